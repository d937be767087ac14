//! Fills the storage of a cluster's nodes through a separate stream, and empties it again. Must not depend on what that
//! affects.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use nats::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::soak::leader::ask;
use crate::usage::http;

const STREAM: &str = "BALLAST";
const CHUNK: usize = 512 << 10;
const LIMIT: Duration = Duration::from_secs(120);
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 8;

/// Writes until nothing more is stored. A single server refuses then. In a cluster, full nodes do not become leaders,
/// and if too few others are left, there is no leader that could refuse.
pub(crate) async fn fill(link: &Connection, monitors: &[u16]) -> anyhow::Result<()> {
    let config = json!({
        "name": STREAM, "subjects": ["ballast"], "storage": "file", "num_replicas": monitors.len(),
        "retention": "limits", "discard": "old",
    });
    let made = ask(link, &format!("$JS.API.STREAM.CREATE.{STREAM}"), config).await?;
    ensure!(made["error"].is_null(), "the stream {STREAM} was not created: {made}");
    let limit = Instant::now() + LIMIT;
    let chunk = Bytes::from(vec![b'.'; CHUNK]);
    // Concurrent writes share a sync.
    loop {
        let refused = join_all((0..AT_ONCE).map(|_| refused(link, chunk.clone()))).await;
        if refused.into_iter().all(|no| no) || full(monitors).await? {
            return Ok(());
        }
        ensure!(
            Instant::now() < limit,
            "the storage is not full after {LIMIT:?}: it is too large for this test"
        );
    }
}

/// Whether most nodes have reached their storage limit.
async fn full(monitors: &[u16]) -> anyhow::Result<bool> {
    let mut count = 0;
    for monitor in monitors {
        let (_, body) = http(*monitor, "/jsz", ATTEMPT).await?;
        let node: Value = serde_json::from_str(&body)?;
        let [used, most] = [&node["storage"], &node["config"]["max_storage"]].map(Value::as_u64);
        count += usize::from(used.context("no storage")? >= most.context("no limit")?);
    }
    Ok(count * 2 > monitors.len())
}

/// Whether a chunk was refused.
async fn refused(link: &Connection, chunk: Bytes) -> bool {
    let limit = Instant::now() + ATTEMPT;
    match link.request("ballast".to_owned(), HeaderMap::new(), chunk, limit).await {
        Ok(reply) => {
            let answer: Option<Value> = serde_json::from_slice(&reply.payload).ok();
            answer.is_some_and(|answer| !answer["error"].is_null())
        }
        Err(_) => {
            // The stream has no leader at the moment.
            sleep(PAUSE).await;
            false
        }
    }
}

/// Removes the stream.
pub(crate) async fn empty(link: &Connection) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    loop {
        let gone = ask(link, &format!("$JS.API.STREAM.DELETE.{STREAM}"), Value::Null).await;
        match gone {
            Ok(answer) if answer["success"] == true => return Ok(()),
            other => ensure!(Instant::now() < limit, "the stream {STREAM} was not removed: {other:?}"),
        }
    }
}
