//! When a snapshot is made, and how: off the runtime's threads, one at a time, and by one worker of several that reach
//! the same count together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use link::inbox::jitter;

use super::{Figures, Snapshots};
use crate::stock::Stock;

/// Workers wait for up to so long before they look whether another was first.
const SPREAD_MS: u64 = 2_000;

pub(super) struct Keeper {
    snapshots: Snapshots,
    stock: Arc<RwLock<Stock>>,
    every: u64,
    /// Where the last one was begun.
    last: u64,
    busy: Arc<AtomicBool>,
    figures: Arc<Figures>,
}

impl Keeper {
    /// Makes snapshots of a stock every so many entries.
    pub(super) fn new(
        snapshots: Snapshots,
        stock: Arc<RwLock<Stock>>,
        every: u64,
        figures: Arc<Figures>,
    ) -> Keeper {
        Keeper { snapshots, stock, every, last: 0, busy: Arc::new(AtomicBool::new(false)), figures }
    }

    /// Begins one if it is due at this sequence.
    pub(super) fn look(&mut self, sequence: u64) {
        if sequence >= self.last + self.every {
            self.begin(sequence, None);
        }
    }

    /// Begins one if entries are gone that no snapshot has: somebody purged the ledger, which begins with `first` now. Only
    /// who runs knows them still; the next start would not.
    pub(super) fn look_for_hole(&mut self, sequence: u64, first: u64) {
        if first > self.figures.known_snapshot() + 1 && sequence + 1 >= first {
            self.begin(sequence, Some(first));
        }
    }

    fn begin(&mut self, sequence: u64, first: Option<u64>) {
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        self.last = sequence;
        let (snapshots, stock, every, busy) =
            (self.snapshots.clone(), self.stock.clone(), self.every, self.busy.clone());
        let figures = self.figures.clone();
        tokio::spawn(async move {
            match make(&snapshots, stock, every, first).await {
                Ok(newest) => figures.snapshot(newest),
                Err(why) => tracing::error!(why, "the snapshot was not made"),
            }
            busy.store(false, Ordering::Release);
        });
    }
}

/// Makes one, unless another worker has; the sequence of the newest.
async fn make(
    snapshots: &Snapshots,
    stock: Arc<RwLock<Stock>>,
    every: u64,
    first: Option<u64>,
) -> Result<u64, String> {
    // Fewer entries than this between two come only in tests, which should not wait.
    tokio::time::sleep(Duration::from_millis(jitter(SPREAD_MS.min(every)))).await;
    let newest = snapshots.list().await?.first().copied().unwrap_or(0);
    // Another worker's snapshot may have come before the purge.
    let hole = first.is_some_and(|first| first > newest + 1);
    if first.is_some() && !hole {
        return Ok(newest);
    }
    if hole {
        tracing::error!(newest, first, "the ledger was purged past its newest snapshot; another is made now");
    }
    let copied = tokio::task::spawn_blocking(move || {
        // The writer waits for the copy, not for the JSON.
        let copy = stock.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !hole && copy.sequence() < newest + every.div_ceil(2) {
            return None;
        }
        Some(copy)
    });
    let Some(copy) = copied.await.map_err(|error| error.to_string())? else { return Ok(newest) };
    let sequence = copy.sequence();
    let bytes = snapshots.write(copy).await?;
    tracing::info!(sequence, bytes, "a snapshot was made");
    Ok(sequence)
}
