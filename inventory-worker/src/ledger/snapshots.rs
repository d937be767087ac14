//! Snapshots of the stock in an object store: `snapshot-<sequence>`, with the store's digest, never changed. Two are
//! kept, and the ledger is purged up to the older one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::object_store::{InfoErrorKind, ObjectInfo, ObjectStore};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::TryStreamExt;
use nats::{Connection, Store};
use order_streams::SNAPSHOT_PREFIX as PREFIX;
use tokio::time::Instant;

use super::pipe::pipe;
use crate::stock::Stock;
use crate::waits::{PIECE, PIECE_IDLE, SNAPSHOT};

const KEPT: usize = 2;
/// Contents to which nothing was added for so long are abandoned: a writer ends long before that.
const ABANDONED: Duration = Duration::from_secs(120);

/// The snapshots of the ledger.
#[derive(Clone)]
pub(super) struct Snapshots {
    context: jetstream::Context,
    objects: ObjectStore,
    store: Store,
    /// The most pieces that were read in one try.
    furthest: Arc<AtomicU64>,
}

impl Snapshots {
    pub(super) async fn open(link: &Connection) -> Result<Snapshots, String> {
        let context = jetstream::new(link.client().clone());
        let bucket = || limited(context.get_object_store(order_streams::SNAPSHOT_BUCKET));
        let objects = match bucket().await {
            Ok(objects) => objects,
            // A new leader may not know the bucket yet.
            Err(_) => {
                tokio::time::sleep(nats::store::RETRY_PAUSE).await;
                bucket().await?
            }
        };
        let store = Store::new(link.clone(), order_streams::SNAPSHOTS);
        Ok(Snapshots { context, objects, store, furthest: Arc::default() })
    }

    /// How many pieces of a snapshot could be read so far.
    pub(super) fn furthest(&self) -> Arc<AtomicU64> {
        self.furthest.clone()
    }

    /// The newest snapshot that can be read. One that cannot be read is logged, and the one before it is tried.
    pub(super) async fn newest(&self) -> Result<Option<Stock>, String> {
        let mut failure = None;
        for sequence in self.list().await? {
            match self.read(sequence).await {
                Ok(stock) => return Ok(Some(stock)),
                Err(why) => {
                    tracing::error!(sequence, why, "a snapshot cannot be read");
                    failure = Some(why);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Writes a snapshot, and removes what is older than the second newest: snapshots, and the ledger up to there.
    /// Returns its bytes.
    pub(super) async fn write(&self, stock: Stock) -> Result<usize, String> {
        let name = format!("{PREFIX}{}", stock.sequence());
        let mut size = 0;
        // Contents of failed tries, here or elsewhere: the next snapshot may need the space.
        if let Err(why) = self.sweep(ABANDONED).await {
            tracing::warn!(why, "the contents of unfinished snapshots could not be removed");
        }
        if !self.list().await?.contains(&stock.sequence()) {
            let (mut inlet, mut outlet) = pipe();
            let writes = tokio::task::spawn_blocking(move || {
                stock.write_snapshot(&mut inlet).map_err(text)?;
                inlet.finish().map_err(text)
            });
            let moved = outlet.moved();
            let put = moving(&moved, self.objects.put(name.as_str(), &mut outlet)).await;
            drop(outlet);
            let written = writes.await.map_err(text)?;
            size =
                put.map_err(|why| written.err().map_or(why.clone(), |also| format!("{why}; {also}")))?.size;
        }
        let kept = self.list().await?;
        if let Some(older) = kept.get(KEPT - 1) {
            let ledger = limited(self.context.get_stream(order_streams::INVENTORY)).await?;
            limited(async { ledger.purge().sequence(older + 1).await }).await?;
        }
        for gone in kept.iter().skip(KEPT) {
            self.remove(&format!("{PREFIX}{gone}")).await?;
        }
        Ok(size)
    }

    /// Removes a snapshot and its metadata: the library's delete leaves a marker for ever
    /// (<https://github.com/nats-io/nats-server/issues/4011>).
    async fn remove(&self, name: &str) -> Result<(), String> {
        let info = self.objects.info(name);
        let object = match limited(async { Ok::<_, String>(info.await) }).await? {
            // Another worker was faster.
            Err(error) if error.kind() == InfoErrorKind::NotFound => return Ok(()),
            object => object.map_err(text)?,
        };
        let stream = limited(self.context.get_stream(order_streams::SNAPSHOTS)).await?;
        let bucket = order_streams::SNAPSHOT_BUCKET;
        // The metadata first, so that nobody finds a snapshot without its contents.
        for subject in
            [format!("$O.{bucket}.M.{}", URL_SAFE.encode(name)), format!("$O.{bucket}.C.{}", object.nuid)]
        {
            limited(async { stream.purge().filter(subject).await }).await?;
        }
        Ok(())
    }

    /// Removes contents without a snapshot to which nothing was added for this long: failed tries leave them.
    async fn sweep(&self, idle: Duration) -> Result<(), String> {
        let (contents, deadline) =
            (format!("$O.{}.C.", order_streams::SNAPSHOT_BUCKET), || Instant::now() + SNAPSHOT);
        let subjects = self.store.subjects(&format!("{contents}*"), deadline()).await.map_err(text)?;
        // Listed after the contents, so that a snapshot finished meanwhile is included.
        let kept: HashSet<String> = self.objects().await?.into_iter().map(|object| object.nuid).collect();
        let without =
            |subject: &&String| subject.strip_prefix(&contents).is_some_and(|nuid| !kept.contains(nuid));
        for subject in subjects.iter().filter(without) {
            let Some(last) = self.store.last(subject, deadline()).await.map_err(text)? else { continue };
            let written = u64::try_from(last.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
            let age = self.store.connection().clock().unix_ms().saturating_sub(written);
            if Duration::from_millis(age) < idle {
                continue;
            }
            let stream = limited(self.context.get_stream(order_streams::SNAPSHOTS)).await?;
            limited(async { stream.purge().filter(subject.as_str()).await }).await?;
            tracing::info!(subject, "removed the contents of an unfinished snapshot");
        }
        Ok(())
    }

    async fn objects(&self) -> Result<Vec<ObjectInfo>, String> {
        let objects = limited(self.objects.list()).await?;
        limited(objects.try_collect()).await
    }

    /// The sequences of the snapshots, newest first.
    pub(super) async fn list(&self) -> Result<Vec<u64>, String> {
        let number = |object: &ObjectInfo| object.name.strip_prefix(PREFIX)?.parse().ok();
        let mut sequences: Vec<u64> = self.objects().await?.iter().filter_map(number).collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        Ok(sequences)
    }

    async fn read(&self, sequence: u64) -> Result<Stock, String> {
        let mut object = limited(self.objects.get(format!("{PREFIX}{sequence}"))).await?;
        let (inlet, outlet) = pipe();
        let moved = outlet.moved();
        let reads = tokio::task::spawn_blocking(move || Stock::read_snapshot(outlet));
        // The digest is checked at its end.
        let note = |pieces| {
            self.furthest.fetch_max(pieces, Ordering::Relaxed);
        };
        let filled = moving_with(&moved, inlet.fill(&mut object), note).await;
        let stock = reads.await.map_err(text)?;
        filled?;
        let stock = stock.map_err(text)?;
        if stock.sequence() == sequence {
            Ok(stock)
        } else {
            Err(format!("it is of sequence {}", stock.sequence()))
        }
    }
}

async fn limited<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(SNAPSHOT, work).await {
        Ok(result) => result.map_err(text),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Work that moves pieces, counted by `moved`. Each piece adds to the time limit, and no single one may take too long.
async fn moving<T, E: std::fmt::Display>(
    moved: &AtomicU64,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    moving_with(moved, work, |_| ()).await
}

/// The same, and regularly calls `tell` with how many have moved.
async fn moving_with<T, E: std::fmt::Display>(
    moved: &AtomicU64,
    work: impl Future<Output = Result<T, E>>,
    tell: impl Fn(u64),
) -> Result<T, String> {
    tokio::pin!(work);
    let (begun, mut known) = (Instant::now(), 0);
    let mut looks = tokio::time::interval(PIECE);
    let mut last = begun;
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(text),
            _ = looks.tick() => {}
        }
        let (now, pieces) = (Instant::now(), moved.load(Ordering::Relaxed));
        tell(pieces);
        if pieces > known {
            (known, last) = (pieces, now);
        }
        let whole = SNAPSHOT + PIECE.saturating_mul(u32::try_from(pieces).unwrap_or(u32::MAX));
        if now >= last + PIECE_IDLE {
            return Err(format!("no progress within {PIECE_IDLE:?} after {pieces} pieces"));
        }
        if now >= begun + whole {
            return Err(format!("{pieces} pieces took longer than {whole:?}"));
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
