//! This worker's copy of the stock: loaded from the newest snapshot, updated by the ledger's entries, and reloaded when
//! one is missing. Must not decide anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nats::Store;
use nats::backoff::backoff;
use parking_lot::RwLock;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Feed, LedgerError, LedgerMetrics, Snapshots};
use crate::stock::{Entry, Stock};
use crate::waits::{CATCH_UP, QUIET};

/// Timeout of a read of the ledger's last sequence.
const LOOK: Duration = Duration::from_secs(2);
/// How long the feed may deliver nothing while the ledger is loaded.
const STALL: Duration = Duration::from_secs(10);
/// How often loading may find entries missing before they count as lost: a purge may be in progress.
const TRIES: u32 = 5;
/// The feed is recreated after this many entries that the leader had and the feed did not deliver: its consumer is lost
/// with its server, which the client library notices only after ten seconds.
const MISSED: u32 = 2;
/// The least time between two: the next consumer may be placed on the same server until that is known to be down.
const RENEW: Duration = Duration::from_secs(1);

pub(super) struct Replica {
    store: Store,
    snapshots: Snapshots,
    stock: Arc<RwLock<Stock>>,
    feed: Feed,
    /// Consecutive entries that the feed did not deliver, and when it was created.
    missed: u32,
    fed: Instant,
    worker: Uuid,
    /// The last entry from the feed that this worker wrote: its sequence and batch.
    mine: Option<(u64, u64)>,
    loads: u64,
    loading: Arc<AtomicBool>,
    metrics: Arc<LedgerMetrics>,
}

impl Replica {
    /// An empty copy. `worker` is the id of this worker's writer; `loading` is set while the copy is not usable.
    pub(super) fn new(
        store: Store,
        snapshots: Snapshots,
        stock: Arc<RwLock<Stock>>,
        worker: Uuid,
        loading: Arc<AtomicBool>,
        metrics: Arc<LedgerMetrics>,
    ) -> Replica {
        let (feed, fed) = (Feed::nothing(), Instant::now());
        Replica {
            store,
            snapshots,
            stock,
            feed,
            missed: 0,
            fed,
            worker,
            mine: None,
            loads: 0,
            loading,
            metrics,
        }
    }

    /// The last entry that it includes.
    pub(super) fn sequence(&self) -> u64 {
        self.stock.read().sequence()
    }

    /// How often it was loaded: entries seen before a load are not known after it.
    pub(super) fn loads(&self) -> u64 {
        self.loads
    }

    /// The storage of the ledger.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether this worker wrote the entry, as the given batch; for entries that the feed delivered.
    pub(super) fn wrote(&self, sequence: u64, batch: u64) -> bool {
        self.mine == Some((sequence, batch))
    }

    /// The next entry of the feed. Cancel-safe.
    pub(super) async fn next(&mut self) -> (u64, bytes::Bytes) {
        let next = self.feed.next().await;
        self.missed = 0;
        next
    }

    /// Applies what the feed has ready, without waiting: an append that was decided on an older state is refused.
    pub(super) async fn take_ready(&mut self) -> Result<(), LedgerError> {
        while let Some((sequence, bytes)) = self.feed.ready() {
            self.missed = 0;
            self.take(sequence, &bytes).await?;
        }
        Ok(())
    }

    /// Applies entries up to a sequence, until a deadline. `false` if they do not arrive: it may never exist.
    pub(super) async fn catch_up(&mut self, sequence: u64, until: Instant) -> Result<bool, LedgerError> {
        let until = until.min(Instant::now() + CATCH_UP);
        // A feed that missed the last entry is not waited for.
        let mut quiet = if self.missed > 0 { Duration::ZERO } else { QUIET };
        while self.sequence() < sequence {
            let next = match tokio::time::timeout(quiet, self.next()).await {
                Ok((next, bytes)) => Some((next, bytes)),
                Err(_) => self.read_next(until).await,
            };
            quiet = if self.missed > 0 && next.is_some() { Duration::ZERO } else { QUIET };
            match next {
                Some((next, bytes)) => self.take(next, &bytes).await?,
                None if Instant::now() < until => {}
                None => return Ok(false),
            }
            self.renew();
        }
        Ok(true)
    }

    /// The next entry, read from the leader. A feed that is only slow delivers it again, which is harmless.
    async fn read_next(&mut self, until: Instant) -> Option<(u64, bytes::Bytes)> {
        let next = self.sequence() + 1;
        // If it cannot be read, the feed is waited for as before.
        let message = self.store.get(next, until).await.ok().flatten()?;
        self.missed = self.missed.saturating_add(1);
        Some((next, message.payload))
    }

    /// Recreates a feed that does not deliver existing entries.
    fn renew(&mut self) {
        if self.missed < MISSED || self.fed.elapsed() < RENEW {
            return;
        }
        let sequence = self.sequence();
        tracing::info!(after = sequence, "the ledger's consumer delivers nothing; creating a new one");
        (self.feed, self.fed) = (Feed::after(self.store.connection().clone(), sequence), Instant::now());
    }

    /// Applies an entry that the feed delivered. On a hole, everything is reloaded: the missing entries are unknown.
    pub(super) async fn take(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), LedgerError> {
        let applied = self.sequence();
        if sequence <= applied {
            return Ok(());
        }
        if sequence > applied + 1 {
            tracing::warn!(
                applied,
                sequence,
                "entries are missing: a purge was faster; reloading the ledger"
            );
            return self.load().await;
        }
        let entry = read(sequence, bytes)?;
        if entry.worker == self.worker {
            self.mine = Some((sequence, entry.batch));
        }
        self.apply(sequence, &entry)
    }

    /// Applies an entry, read or just written. One that contradicts the stock makes the stock unusable.
    pub(super) fn apply(&mut self, sequence: u64, entry: &Entry) -> Result<(), LedgerError> {
        let mut stock = self.stock.write();
        stock.apply(sequence, entry).map_err(|contradiction| {
            *stock = Stock::default();
            LedgerError::from(contradiction)
        })
    }

    /// Loads until it succeeds: nothing may be decided on a hole, and an unavailable storage comes back.
    pub(super) async fn load(&mut self) -> Result<(), LedgerError> {
        self.loading.store(true, Ordering::Release);
        self.loads += 1;
        self.metrics.loads.increment();
        let mut missing = 0;
        loop {
            match self.try_load().await {
                Ok(()) => break,
                Err(
                    error @ (LedgerError::Unreadable { .. }
                    | LedgerError::Contradiction(_)
                    | LedgerError::Replaced),
                ) => {
                    return Err(error);
                }
                Err(error @ (LedgerError::Hole { .. } | LedgerError::Behind { .. }))
                    if missing + 1 == TRIES =>
                {
                    return Err(error);
                }
                Err(error) => {
                    missing +=
                        u32::from(matches!(error, LedgerError::Hole { .. } | LedgerError::Behind { .. }));
                    tracing::warn!(%error, "the ledger could not be loaded; trying again");
                }
            }
            tokio::time::sleep(backoff(Duration::from_millis(100), 2, LOOK)).await;
        }
        self.loading.store(false, Ordering::Release);
        Ok(())
    }

    /// Loads the newest snapshot and replays the entries after it, up to the current last one. Only then is the old
    /// stock replaced, so that no reader sees it go back.
    async fn try_load(&mut self) -> Result<(), LedgerError> {
        let mut stock = self.snapshots.newest().await.map_err(LedgerError::Snapshots)?.unwrap_or_default();
        let snapshot = stock.sequence();
        self.metrics.snapshot(snapshot);
        let (identity, range) = self.store.identity(Instant::now() + LOOK).await?;
        // Everything read from here on is invalid if the ledger was deleted and created again.
        if !self.store.guard().keep(order_streams::INVENTORY, identity) {
            return Err(LedgerError::Replaced);
        }
        if range.first > snapshot + 1 {
            return Err(LedgerError::Hole { first: range.first, snapshot });
        }
        if range.last < snapshot {
            return Err(LedgerError::Behind { last: range.last, known: snapshot });
        }
        let mut feed = Feed::after(self.store.connection().clone(), snapshot);
        while stock.sequence() < range.last {
            let next = tokio::time::timeout(STALL, feed.next()).await;
            let (sequence, bytes) = next.map_err(|_| LedgerError::Slow)?;
            if sequence > stock.sequence() + 1 {
                return Err(LedgerError::Hole { first: sequence, snapshot: stock.sequence() });
            }
            stock.apply(sequence, &read(sequence, &bytes)?)?;
        }
        tracing::info!(snapshot, sequence = stock.sequence(), "the ledger is loaded");
        *self.stock.write() = stock;
        (self.feed, self.fed, self.missed) = (feed, Instant::now(), 0);
        Ok(())
    }
}

fn read(sequence: u64, bytes: &[u8]) -> Result<Entry, LedgerError> {
    serde_json::from_slice(bytes)
        .map_err(|error| LedgerError::Unreadable { sequence, why: error.to_string() })
}
