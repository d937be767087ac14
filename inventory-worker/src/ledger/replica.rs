//! This worker's copy of the stock: loaded from the newest snapshot, kept up with the ledger's entries, and loaded
//! anew when one is missing. It never decides anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use link::inbox::backoff;
use link::{Store, streams};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Broken, Feed, Figures, Snapshots};
use crate::stock::{Entry, Stock};
use crate::waits::{CATCH_UP, QUIET};

/// How long the storage may take to say how far the ledger goes.
const LOOK: Duration = Duration::from_secs(2);
/// How long the feed may bring nothing while the ledger is loaded.
const STALL: Duration = Duration::from_secs(10);
/// How often entries may be found missing when loading before they are given up for lost: a purge may be under way.
const TRIES: u32 = 5;
/// So many entries that the leader had, and the feed did not bring, and it is made anew: its consumer is lost with the server
/// that had it, and the client library notices that after ten seconds.
const MISSED: u32 = 2;
/// Not more often than this: the next consumer may be given to the same server, as long as that is not known to be away.
const RENEW: Duration = Duration::from_secs(1);

pub(super) struct Replica {
    store: Store,
    snapshots: Snapshots,
    stock: Arc<RwLock<Stock>>,
    feed: Feed,
    /// Entries in a row that the feed did not bring, and when it was made.
    missed: u32,
    fed: Instant,
    worker: Uuid,
    /// The last entry from the feed that this worker wrote: its sequence and batch.
    mine: Option<(u64, u64)>,
    loads: u64,
    loading: Arc<AtomicBool>,
    figures: Arc<Figures>,
}

impl Replica {
    /// A copy that has nothing yet. `worker` is who writes beside it; `loading` is set while it is no use.
    pub(super) fn new(
        store: Store,
        snapshots: Snapshots,
        stock: Arc<RwLock<Stock>>,
        worker: Uuid,
        loading: Arc<AtomicBool>,
        figures: Arc<Figures>,
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
            figures,
        }
    }

    /// The last entry that is in it.
    pub(super) fn sequence(&self) -> u64 {
        self.stock.read().unwrap_or_else(PoisonError::into_inner).sequence()
    }

    /// How often it was loaded: what was seen of the ledger before is not known after.
    pub(super) fn loads(&self) -> u64 {
        self.loads
    }

    /// The storage of the ledger.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether this worker wrote the entry, as its given batch. Of entries that the feed brought.
    pub(super) fn wrote(&self, sequence: u64, batch: u64) -> bool {
        self.mine == Some((sequence, batch))
    }

    /// The next entry of the feed. May be dropped while it waits without losing one.
    pub(super) async fn next(&mut self) -> (u64, bytes::Bytes) {
        let next = self.feed.next().await;
        self.missed = 0;
        next
    }

    /// Takes what the feed has ready, without waiting: who decides on less than it could know loses the race.
    pub(super) async fn take_ready(&mut self) -> Result<(), Broken> {
        while let Some((sequence, bytes)) = self.feed.ready() {
            self.missed = 0;
            self.take(sequence, &bytes).await?;
        }
        Ok(())
    }

    /// Takes entries up to a sequence, by then. `false` if they do not come: it may never exist.
    pub(super) async fn catch_up(&mut self, sequence: u64, until: Instant) -> Result<bool, Broken> {
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

    /// The next entry as the leader has it. A feed that is only slow brings it once more, which does no harm.
    async fn read_next(&mut self, until: Instant) -> Option<(u64, bytes::Bytes)> {
        let next = self.sequence() + 1;
        // What cannot be read is waited for as before.
        let message = self.store.get(next, until).await.ok().flatten()?;
        self.missed = self.missed.saturating_add(1);
        Some((next, message.payload))
    }

    /// Makes a feed anew that does not bring what there is.
    fn renew(&mut self) {
        if self.missed < MISSED || self.fed.elapsed() < RENEW {
            return;
        }
        let sequence = self.sequence();
        tracing::info!(after = sequence, "the ledger's consumer brings nothing; it is made anew");
        (self.feed, self.fed) = (Feed::after(self.store.link().clone(), sequence), Instant::now());
    }

    /// Takes an entry that the feed brought. On a hole, everything is loaded anew: what is missing cannot be known.
    pub(super) async fn take(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), Broken> {
        let applied = self.sequence();
        if sequence <= applied {
            return Ok(());
        }
        if sequence > applied + 1 {
            tracing::warn!(applied, sequence, "entries are missing: a purge was faster; loading anew");
            return self.load().await;
        }
        let entry = read(sequence, bytes)?;
        if entry.worker == self.worker {
            self.mine = Some((sequence, entry.batch));
        }
        self.apply(sequence, &entry)
    }

    /// Takes an entry, read or just written. One that contradicts the stock leaves nothing that could be used.
    pub(super) fn apply(&mut self, sequence: u64, entry: &Entry) -> Result<(), Broken> {
        let mut stock = self.stock.write().unwrap_or_else(PoisonError::into_inner);
        stock.apply(sequence, entry).map_err(|contradiction| {
            *stock = Stock::default();
            Broken::from(contradiction)
        })
    }

    /// Loads until it succeeds: nothing may be decided on a hole, and storage that is away comes back.
    pub(super) async fn load(&mut self) -> Result<(), Broken> {
        self.loading.store(true, Ordering::Release);
        self.loads += 1;
        self.figures.loads.one();
        let mut missing = 0;
        loop {
            match self.try_load().await {
                Ok(()) => break,
                Err(error @ (Broken::Unreadable { .. } | Broken::Contradiction(_) | Broken::Replaced)) => {
                    return Err(error);
                }
                Err(error @ (Broken::Hole { .. } | Broken::Behind { .. })) if missing + 1 == TRIES => {
                    return Err(error);
                }
                Err(error) => {
                    missing += u32::from(matches!(error, Broken::Hole { .. } | Broken::Behind { .. }));
                    tracing::warn!(%error, "the ledger could not be loaded; it is tried again");
                }
            }
            tokio::time::sleep(backoff(Duration::from_millis(100), 2, LOOK)).await;
        }
        self.loading.store(false, Ordering::Release);
        Ok(())
    }

    /// Loads the newest snapshot and replays the entries after it, up to the last there is now. Only then is the old
    /// stock replaced: nobody sees it go back.
    async fn try_load(&mut self) -> Result<(), Broken> {
        let mut stock = self.snapshots.newest().await.map_err(Broken::Snapshots)?.unwrap_or_default();
        let snapshot = stock.sequence();
        self.figures.snapshot(snapshot);
        let (identity, range) = self.store.identity(Instant::now() + LOOK).await?;
        // What is read from here on is worth nothing in a ledger that is made anew.
        if !self.store.guard().keep(streams::INVENTORY, identity) {
            return Err(Broken::Replaced);
        }
        if range.first > snapshot + 1 {
            return Err(Broken::Hole { first: range.first, snapshot });
        }
        if range.last < snapshot {
            return Err(Broken::Behind { last: range.last, known: snapshot });
        }
        let mut feed = Feed::after(self.store.link().clone(), snapshot);
        while stock.sequence() < range.last {
            let next = tokio::time::timeout(STALL, feed.next()).await;
            let (sequence, bytes) = next.map_err(|_| Broken::Slow)?;
            if sequence > stock.sequence() + 1 {
                return Err(Broken::Hole { first: sequence, snapshot: stock.sequence() });
            }
            stock.apply(sequence, &read(sequence, &bytes)?)?;
        }
        tracing::info!(snapshot, sequence = stock.sequence(), "the ledger is loaded");
        *self.stock.write().unwrap_or_else(PoisonError::into_inner) = stock;
        (self.feed, self.fed, self.missed) = (feed, Instant::now(), 0);
        Ok(())
    }
}

fn read(sequence: u64, bytes: &[u8]) -> Result<Entry, Broken> {
    serde_json::from_slice(bytes).map_err(|error| Broken::Unreadable { sequence, why: error.to_string() })
}
