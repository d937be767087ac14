//! Fills the storage of a cluster through a stream of its own, and empties it again. Must never know who suffers from it.

use std::time::Duration;

use anyhow::ensure;
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use link::Link;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::soak::leader::ask;

const STREAM: &str = "BALLAST";
const CHUNK: usize = 512 << 10;
const LIMIT: Duration = Duration::from_secs(120);
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 8;

/// Writes until nothing more is stored.
pub(crate) async fn fill(link: &Link, replicas: usize) -> anyhow::Result<()> {
    let config = json!({
        "name": STREAM, "subjects": ["ballast"], "storage": "file", "num_replicas": replicas,
        "retention": "limits", "discard": "old",
    });
    let made = ask(link, &format!("$JS.API.STREAM.CREATE.{STREAM}"), config).await?;
    ensure!(made["error"].is_null(), "the stream {STREAM} was not made: {made}");
    let limit = Instant::now() + LIMIT;
    let chunk = Bytes::from(vec![b'.'; CHUNK]);
    // Several at once share the time that a sync takes.
    while !join_all((0..AT_ONCE).map(|_| refused(link, chunk.clone()))).await.into_iter().all(|no| no) {
        ensure!(Instant::now() < limit, "the storage is not full after {LIMIT:?}: it is too large for this");
    }
    Ok(())
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
