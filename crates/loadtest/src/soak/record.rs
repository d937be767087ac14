//! Reads the streams of a soak from each replica. Must not depend on what they should contain.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats::{Connection, Store};
use tokio::time::{Duration, Instant, sleep};

use super::leader;

const LIMIT: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 64;
/// How long followers may take to have an entry that the leader has.
const PAUSE: Duration = Duration::from_millis(300);

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    /// All other headers, as one text.
    pub(crate) headers: String,
}

/// A stream as each node has it. Every node is made the leader in turn.
pub(crate) async fn replicas(
    link: &Connection,
    name: &'static str,
    nodes: usize,
) -> anyhow::Result<Vec<Vec<Row>>> {
    let mut all = Vec::new();
    for node in 0..nodes {
        let node = format!("node{node}");
        leader::make(link, name, &node).await?;
        let rows = read(link, name, 1).await?;
        ensure!(leader::of(link, name).await? == node, "the leader of {name} changed while it was read");
        all.push(rows);
    }
    Ok(all)
}

/// Reads everything from a sequence on, from the leader.
pub(crate) async fn read(link: &Connection, name: &'static str, from: u64) -> anyhow::Result<Vec<Row>> {
    let store = Store::new(link.clone(), name);
    let range = store.range(Instant::now() + LIMIT).await?;
    let get = |sequence| {
        let store = store.clone();
        async move {
            let found = store.get(sequence, Instant::now() + LIMIT).await;
            found.with_context(|| format!("{name} {sequence}"))
        }
    };
    let rows = stream::iter(range.first.max(from)..=range.last).map(get).buffered(AT_ONCE);
    let rows: Vec<_> = rows.try_collect().await?;
    let row = |message: async_nats::jetstream::message::StreamMessage| Row {
        sequence: message.sequence,
        subject: message.subject.to_string(),
        payload: message.payload,
        headers: {
            let mut lines: Vec<String> =
                message.headers.iter().map(|(name, values)| format!("{name}: {values:?}")).collect();
            lines.sort_unstable();
            lines.join("\n")
        },
    };
    Ok(rows.into_iter().flatten().map(row).collect())
}

/// Reads the ledger as it grows, so that purged entries are known. If a read fails, it tries again later.
pub(crate) async fn tap(link: Connection, name: &'static str, rows: tokio::sync::watch::Sender<Vec<Row>>) {
    loop {
        let next = rows.borrow().last().map_or(1, |row| row.sequence + 1);
        if let Ok(more) = read(&link, name, next).await {
            // A new leader may lag behind for a moment and miss entries.
            let contiguous = more.into_iter().zip(next..).take_while(|(row, wanted)| row.sequence == *wanted);
            rows.send_modify(|rows| rows.extend(contiguous.map(|(row, _)| row)));
        }
        sleep(PAUSE).await;
    }
}
