//! Clients that open a connection for each call during an attack, and health probes that do. Must not depend on the
//! attack.

use std::net::SocketAddr;
use std::time::Duration;

use server::health_client::GatewayClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use super::healthy::call;
use super::kind::Port;

/// Pause between two of them, and the timeout of each.
const PACE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Results.
#[derive(Debug, Clone, Default)]
pub(super) struct Newcomers {
    pub(super) came: u64,
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
    /// The longest time to connect and get a reply.
    pub(super) longest: Duration,
}

/// Connects and calls repeatedly for this time.
pub(super) async fn callers(endpoint: &Endpoint, length: Duration) -> Newcomers {
    come(length, async |number| {
        let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
        call(channel, number).await
    })
    .await
}

/// Connects and checks health, as Kubernetes does. The gRPC port is not probed, as it may require TLS.
pub(super) async fn probes(port: Port, target: SocketAddr, length: Duration) -> Newcomers {
    let said = |error: anyhow::Error| format!("a probe: {error:#}");
    match port {
        Port::Grpc => Newcomers::default(),
        Port::Health => {
            come(length, async |_| {
                let probe =
                    GatewayClient::connect(target).await.map_err(|error| format!("a probe: {error}"))?;
                let health = probe.health("").await.map_err(|error| format!("a probe: {error}"))?;
                if health == "SERVING" { Ok(()) } else { Err(format!("a probe: {health}")) }
            })
            .await
        }
        Port::Http => come(length, async |_| healthz(target).await.map_err(said)).await,
    }
}

async fn healthz(target: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200 "), "/healthz: {status:?}");
    Ok(())
}

async fn come(length: Duration, each: impl AsyncFn(usize) -> Result<(), String>) -> Newcomers {
    let (end, mut seen) = (Instant::now() + length, Newcomers::default());
    for number in 1.. {
        sleep(PACE.0).await;
        if Instant::now() >= end {
            break;
        }
        let begun = Instant::now();
        let ended = timeout(PACE.1, each(number)).await;
        seen.came += 1;
        seen.longest = seen.longest.max(begun.elapsed());
        if let Err(failure) = ended.unwrap_or_else(|_| Err("no reply in time".to_owned())) {
            seen.failed += 1;
            seen.failure.get_or_insert(failure);
        }
    }
    seen
}
