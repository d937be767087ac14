//! Attacks by many connections that do little: idle ones, and TLS handshakes that stop halfway. Must not depend on the
//! effect on others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::kind::Kind;
use super::wire::{End, Line, Told};

/// Connections opened, and closed, per second: only their number counts here. Other attacks open connections as quickly
/// as possible.
const COME: (f64, f64) = (4_000.0, 1_000.0);
/// Pause between the end of a handshake and the next.
const AGAIN: Duration = Duration::from_secs(1);

/// An unfinished request.
const BEGUN: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n";

/// Raises the limit on open files to its maximum, for this process and those it starts.
pub(super) fn raise() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("RLIMIT_NOFILE")
}

/// Attacks until `end`.
pub(super) async fn run(kind: Kind, target: SocketAddr, count: usize, end: Instant) -> anyhow::Result<Told> {
    let hello: Arc<[u8]> = hello()?.into();
    let rate = if kind == Kind::Handshakes { COME.1 } else { COME.0 };
    let mut members = JoinSet::new();
    for number in 0..count {
        let hello = hello.clone();
        let late = Duration::from_secs_f64(number as f64 / rate);
        let come = Instant::now() + late;
        members.spawn(async move {
            sleep_until(come).await;
            if kind == Kind::Handshakes {
                // Every other one stops in the middle of its ClientHello.
                let said = if number % 2 == 0 { hello.len() } else { hello.len() / 2 };
                return shake(target, &hello[..said], end, late).await;
            }
            let mut told = Told::default();
            // They close as gradually as they came, unless the attack keeps others from connecting until the end.
            let end = if matches!(kind, Kind::IdleHttp | Kind::IdleHealth) { end } else { end + late };
            match kind {
                _ if number % 2 == 1 => {
                    wait(TcpStream::connect(target).await.ok().as_mut(), end, &mut told).await
                }
                Kind::IdleHttp => {
                    let mut stream = TcpStream::connect(target).await.ok();
                    if let Some(stream) = &mut stream {
                        let _ = stream.write_all(BEGUN).await;
                    }
                    wait(stream.as_mut(), end, &mut told).await;
                }
                _ => stay(Line::open(target, &[]).await.ok(), end, &mut told).await,
            }
            told
        });
    }
    let mut all = Told::default();
    for told in members.join_all().await {
        all.add(told);
    }
    Ok(all)
}

/// Sends the preface and SETTINGS, and nothing more.
async fn stay(line: Option<Line>, end: Instant, told: &mut Told) {
    told.made += 1;
    let Some(mut line) = line else {
        told.cut += 1;
        return;
    };
    match line.ended(end).await {
        None => told.lasted += 1,
        Some(End::Goodbye(code)) => *told.goodbyes.entry(code).or_default() += 1,
        Some(End::Cut) => told.cut += 1,
    }
}

/// Sends nothing.
async fn wait(stream: Option<&mut TcpStream>, end: Instant, told: &mut Told) {
    told.made += 1;
    let Some(stream) = stream else {
        told.cut += 1;
        return;
    };
    match timeout_at(end, async { while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {} })
        .await
    {
        Err(_) => told.lasted += 1,
        Ok(()) => told.cut += 1,
    }
}

/// Starts a handshake, and another when that was closed. The last one is left `late` after the end.
async fn shake(target: SocketAddr, hello: &[u8], end: Instant, late: Duration) -> Told {
    let mut told = Told::default();
    while Instant::now() < end {
        let mut stream = TcpStream::connect(target).await.ok();
        if let Some(stream) = &mut stream {
            // How it ends shows whether the server read it.
            let _ = stream.write_all(hello).await;
        }
        wait(stream.as_mut(), end, &mut told).await;
        let over = Instant::now() >= end;
        sleep_until(if over { end + late } else { end.min(Instant::now() + AGAIN) }).await;
    }
    told
}

/// A ClientHello: what a server needs to do its part of the handshake.
fn hello() -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}
