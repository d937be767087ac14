//! Fills the storage of a cluster through a stream of its own, and empties it again. Must never know who suffers from it.

use std::time::Duration;

use anyhow::ensure;
use async_nats::HeaderMap;
use bytes::Bytes;
use link::Link;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::soak::leader::ask;

const STREAM: &str = "BALLAST";
const CHUNK: usize = 512 << 10;
const LIMIT: Duration = Duration::from_secs(60);
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// So many refusals in a row, and nothing more goes in.
const REFUSALS: u32 = 3;

/// Writes until nothing more is stored.
pub(crate) async fn fill(link: &Link, replicas: usize) -> anyhow::Result<()> {
    let config = json!({
        "name": STREAM, "subjects": ["ballast"], "storage": "file", "num_replicas": replicas,
        "retention": "limits", "discard": "old",
    });
    let made = ask(link, &format!("$JS.API.STREAM.CREATE.{STREAM}"), config).await?;
    ensure!(made["error"].is_null(), "the stream {STREAM} was not made: {made}");
    let (limit, mut refusals) = (Instant::now() + LIMIT, 0);
    let chunk = Bytes::from(vec![b'.'; CHUNK]);
    while refusals < REFUSALS {
        ensure!(
            Instant::now() < limit,
            "the storage is not full after {LIMIT:?}: max_file is too large for this"
        );
        let limit = Instant::now() + ATTEMPT;
        let reply = link.request("ballast".to_owned(), HeaderMap::new(), chunk.clone(), limit).await;
        let Ok(reply) = reply else {
            // The stream has no leader yet, or none for a moment.
            sleep(PAUSE).await;
            continue;
        };
        let answer: serde_json::Value = serde_json::from_slice(&reply.payload)?;
        refusals = if answer["error"].is_null() { 0 } else { refusals + 1 };
    }
    Ok(())
}

/// Takes it all out again.
pub(crate) async fn empty(link: &Link) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    loop {
        let gone = ask(link, &format!("$JS.API.STREAM.DELETE.{STREAM}"), serde_json::Value::Null).await;
        match gone {
            Ok(answer) if answer["success"] == true => return Ok(()),
            other => ensure!(Instant::now() < limit, "the stream {STREAM} was not removed: {other:?}"),
        }
    }
}
