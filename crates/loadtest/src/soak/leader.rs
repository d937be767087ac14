//! Finds a stream's leader, and moves it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::HeaderMap;
use bytes::Bytes;
use nats::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(40);
const ATTEMPT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// The name of the server that leads a stream. During an election it waits for the new leader.
pub(crate) async fn of(link: &Connection, stream: &str) -> anyhow::Result<String> {
    let limit = Instant::now() + LIMIT;
    while Instant::now() < limit {
        let info = ask(link, &format!("$JS.API.STREAM.INFO.{stream}"), Value::Null).await;
        let leader = info.ok().and_then(|info| info["cluster"]["leader"].as_str().map(str::to_owned));
        if let Some(leader) = leader.filter(|leader| !leader.is_empty()) {
            return Ok(leader);
        }
        sleep(LOOK).await;
    }
    bail!("{stream} has no leader after {LIMIT:?}")
}

/// Makes the leader step down, in favour of this server or any other.
pub(crate) async fn step_down(link: &Connection, stream: &str, to: Option<&str>) -> anyhow::Result<()> {
    let wish = to.map_or(Value::Null, |name| json!({ "placement": { "preferred": name } }));
    // The reply may be lost during the change.
    let _ = ask(link, &format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), wish).await;
    Ok(())
}

/// Makes this server the leader, and waits until it is.
pub(crate) async fn make(link: &Connection, stream: &str, name: &str) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    while of(link, stream).await? != name {
        if Instant::now() >= limit {
            bail!("{name} did not become the leader of {stream} in time");
        }
        step_down(link, stream, Some(name)).await?;
        sleep(LOOK * 5).await;
    }
    Ok(())
}

/// One request with a JSON reply.
pub(crate) async fn ask(link: &Connection, subject: &str, question: Value) -> anyhow::Result<Value> {
    let payload = if question.is_null() { Bytes::new() } else { question.to_string().into() };
    let reply = link.request(subject.to_owned(), HeaderMap::new(), payload, Instant::now() + ATTEMPT).await?;
    serde_json::from_slice(&reply.payload).context("the reply is not JSON")
}
