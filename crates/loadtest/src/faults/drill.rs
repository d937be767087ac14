//! Faults that mostly fail no call, so that only an alert reports them: a worker that restarts repeatedly, an ORDERS
//! stream that was edited or has reached its limit, a dead letter, a certificate that expires, an unreachable
//! collector, a limit of the gateway that is reached. Must not depend on which alerts fire.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use bytes::Bytes;
use local_nats::spare_port;
use nats::Connection;
use order_streams::{DEAD_LETTER_PREFIX, DEAD_LETTERS, ORDERS};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::load::{self, Calls, Load};
use crate::process::serves;
use crate::soak::leader::ask;
use crate::soak::load::channels;
use crate::soak::plan::{Kind, Target};
use crate::soak::site::Site;

/// Number of restarts, and how long the worker serves after each: long enough to be scraped.
const RESTARTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(3);
/// Remaining validity of the certificate.
const LEFT: Duration = Duration::from_secs(86_400);
/// Concurrent calls: more than the gateway's limit on calls in flight.
const RATE: u32 = 200;
const LIMIT: Duration = Duration::from_secs(5);

/// The extra gateways, and the load on one of them.
pub(crate) struct Odd {
    _load: AbortOnDropHandle<()>,
    _folder: tempfile::TempDir,
}

/// Kills a worker repeatedly.
pub(crate) async fn restart(site: &mut Site, worker: Target) -> anyhow::Result<()> {
    let instance = site.instances().into_iter().find(|instance| instance.target == worker);
    let port = instance.context("no such worker")?.port;
    for _ in 0..RESTARTS {
        site.strike(Kind::Kill, worker).await?;
        site.relieve(Kind::Kill, worker).await?;
        serves(port, "").await?;
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Edits ORDERS so that it no longer has a setting that correctness needs, or restores it.
pub(crate) async fn edit(link: &Connection, direct: bool) -> anyhow::Result<()> {
    change(link, |config, _| {
        config["allow_direct"] = direct.into();
        Ok(())
    })
    .await
}

/// Limits ORDERS to one byte more than it has, or removes the limit.
pub(crate) async fn bound(link: &Connection, bound: bool) -> anyhow::Result<()> {
    change(link, |config, state| {
        let bytes = state["bytes"].as_i64().context("no bytes")?;
        config["max_bytes"] = if bound { bytes + 1 } else { -1 }.into();
        Ok(())
    })
    .await
}

/// Changes the configuration of ORDERS; `change` gets configuration and state.
async fn change(
    link: &Connection,
    change: impl FnOnce(&mut Value, &Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut info = ask(link, &format!("$JS.API.STREAM.INFO.{ORDERS}"), Value::Null).await?;
    let mut config = info["config"].take();
    change(&mut config, &info["state"])?;
    let answer = ask(link, &format!("$JS.API.STREAM.UPDATE.{ORDERS}"), config).await?;
    ensure!(answer["error"].is_null(), "{ORDERS} was not edited: {answer}");
    Ok(())
}

/// Stores a dead letter.
pub(crate) async fn letter(link: &Connection) -> anyhow::Result<()> {
    let subject = format!("{DEAD_LETTER_PREFIX}.drill");
    let reply =
        link.request(subject, HeaderMap::new(), Bytes::from_static(b"{}"), Instant::now() + LIMIT).await?;
    let answer: Value = serde_json::from_slice(&reply.payload)?;
    ensure!(answer["error"].is_null(), "no dead letter was stored: {answer}");
    Ok(())
}

/// Removes the dead letters.
pub(crate) async fn purge(link: &Connection) -> anyhow::Result<()> {
    let answer = ask(link, &format!("$JS.API.STREAM.PURGE.{DEAD_LETTERS}"), Value::Null).await?;
    ensure!(answer["error"].is_null(), "the dead letters were not removed: {answer}");
    Ok(())
}

/// Starts two more gateways: one with a certificate that expires soon, and one whose collector is unreachable and whose
/// limit is one call in flight.
pub(crate) async fn odd(site: &mut Site) -> anyhow::Result<Odd> {
    let folder = tempfile::tempdir()?;
    let (cert, key) = certificate(folder.path())?;
    let health = format!("127.0.0.1:{}", spare_port()?);
    let text = |path: &PathBuf| path.display().to_string();
    site.join(&["--tls-cert", &text(&cert), "--tls-key", &text(&key), "--health-addr", &health]).await?;
    let nowhere = format!("http://127.0.0.1:{}", spare_port()?);
    let collector = ["--otel-exporter-otlp-endpoint", &nowhere, "--otel-traces-sampler", "always_on"];
    let narrow = ["--max-in-flight", "1", "--otel-bsp-schedule-delay", "500"];
    site.join(&[collector, narrow].concat()).await?;
    let url = site.gateway_urls().pop().context("no gateway")?;
    let load = Load { rate: RATE, deadline: LIMIT };
    let (calls, stop) = (Calls::default(), CancellationToken::new());
    let load = load::run(load, channels(&[url])?, Instant::now(), calls, stop);
    Ok(Odd { _load: AbortOnDropHandle::new(tokio::spawn(load)), _folder: folder })
}

/// A certificate that expires soon, and its key, as files.
fn certificate(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.not_after = (std::time::SystemTime::now() + LEFT).into();
    let key = KeyPair::generate()?;
    let paths = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&paths.0, params.self_signed(&key)?.pem())?;
    std::fs::write(&paths.1, key.serialize_pem())?;
    Ok(paths)
}
