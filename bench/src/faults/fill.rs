//! Fills the storage of a cluster's nodes through a stream of its own, and empties it again. Must never know who suffers
//! from it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use link::Link;
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

/// Writes until nothing more is stored: a single server refuses. In a cluster, nodes that are full want to lead nothing, and
/// where too few others are left, nobody is there to refuse.
pub(crate) async fn fill(link: &Link, monitors: &[u16]) -> anyhow::Result<()> {
    let config = json!({
        "name": STREAM, "subjects": ["ballast"], "storage": "file", "num_replicas": monitors.len(),
        "retention": "limits", "discard": "old",
    });
    let made = ask(link, &format!("$JS.API.STREAM.CREATE.{STREAM}"), config).await?;
    ensure!(made["error"].is_null(), "the stream {STREAM} was not made: {made}");
    let limit = Instant::now() + LIMIT;
    let chunk = Bytes::from(vec![b'.'; CHUNK]);
    // Several at once share the time that a sync takes.
    loop {
        let refused = join_all((0..AT_ONCE).map(|_| refused(link, chunk.clone()))).await;
        if refused.into_iter().all(|no| no) || full(monitors).await? {
            return Ok(());
        }
        ensure!(Instant::now() < limit, "the storage is not full after {LIMIT:?}: it is too large for this");
    }
}

/// Whether most of the nodes store all that they may.
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
async fn refused(link: &Link, chunk: Bytes) -> bool {
    let limit = Instant::now() + ATTEMPT;
    match link.request("ballast".to_owned(), HeaderMap::new(), chunk, limit).await {
        Ok(reply) => {
            let answer: Option<Value> = serde_json::from_slice(&reply.payload).ok();
            answer.is_some_and(|answer| !answer["error"].is_null())
        }
        Err(_) => {
            // The stream has no leader yet, or none for a moment.
            sleep(PAUSE).await;
            false
        }
    }
}

/// Takes it all out again.
pub(crate) async fn empty(link: &Link) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    loop {
        let gone = ask(link, &format!("$JS.API.STREAM.DELETE.{STREAM}"), Value::Null).await;
        match gone {
            Ok(answer) if answer["success"] == true => return Ok(()),
            other => ensure!(Instant::now() < limit, "the stream {STREAM} was not removed: {other:?}"),
        }
    }
}
