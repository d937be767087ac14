//! Snapshotter: decides when to make a snapshot, and makes it off the runtime's threads, one at a time. Of several
//! workers that reach the same count together, one makes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nats::backoff::jitter;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::{LedgerMetrics, Snapshots};
use crate::stock::Stock;

/// Workers wait up to so long before they check whether another was first.
const SPREAD_MS: u64 = 2_000;
/// Backoff after a failure, doubling up to the maximum: trying at once does not help, whatever is wrong.
const REST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_secs(600);

pub(super) struct Snapshotter {
    snapshots: Snapshots,
    stock: Arc<RwLock<Stock>>,
    every: u64,
    /// The sequence at which the last one was begun.
    last: u64,
    busy: Arc<AtomicBool>,
    failed: Arc<Mutex<Failed>>,
    metrics: Arc<LedgerMetrics>,
}

/// Consecutive failures, and when the next try is allowed.
#[derive(Debug, Default)]
struct Failed {
    times: u32,
    until: Option<Instant>,
}

impl Failed {
    /// Whether one may be begun now: after a failure when the backoff is over, else if it is due.
    fn allows(&self, due: bool, now: Instant) -> bool {
        self.until.map_or(due, |until| now >= until)
    }

    /// Records a failure; returns the backoff.
    fn again(&mut self, now: Instant) -> Duration {
        let rest = REST.saturating_mul(1 << self.times.min(16)).min(REST_MOST);
        self.times = self.times.saturating_add(1);
        self.until = Some(now + rest);
        rest
    }
}

impl Snapshotter {
    /// Makes a snapshot of the stock every `every` entries.
    pub(super) fn new(
        snapshots: Snapshots,
        stock: Arc<RwLock<Stock>>,
        every: u64,
        metrics: Arc<LedgerMetrics>,
    ) -> Snapshotter {
        let (busy, failed) = Default::default();
        Snapshotter { snapshots, stock, every, last: 0, busy, failed, metrics }
    }

    /// Begins one if it is due at this sequence.
    pub(super) fn look(&mut self, sequence: u64) {
        if self.failed().allows(sequence >= self.last + self.every, Instant::now()) {
            self.begin(sequence, None);
        }
    }

    /// Begins one if entries are lost that no snapshot includes: the ledger was purged, and begins with `first` now.
    /// Only running workers still know them; the next start would not.
    pub(super) fn look_for_hole(&mut self, sequence: u64, first: u64) {
        let hole = first > self.metrics.known_snapshot() + 1 && sequence + 1 >= first;
        if hole && self.failed().allows(true, Instant::now()) {
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
        let (metrics, failed) = (self.metrics.clone(), self.failed.clone());
        tokio::spawn(async move {
            let made = make(&snapshots, stock, every, first).await;
            {
                let mut failed = failed.lock();
                match made {
                    Ok(newest) => {
                        *failed = Failed::default();
                        metrics.snapshot(newest);
                    }
                    Err(why) => {
                        metrics.unmade.increment();
                        let again = failed.again(Instant::now());
                        let times = failed.times;
                        tracing::error!(why, times, ?again, "a snapshot failed");
                    }
                }
            }
            busy.store(false, Ordering::Release);
        });
    }

    fn failed(&self) -> parking_lot::MutexGuard<'_, Failed> {
        self.failed.lock()
    }
}

/// Makes one, unless another worker has; returns the sequence of the newest.
async fn make(
    snapshots: &Snapshots,
    stock: Arc<RwLock<Stock>>,
    every: u64,
    first: Option<u64>,
) -> Result<u64, String> {
    // Only tests have fewer entries than this between two snapshots, and should not wait.
    tokio::time::sleep(Duration::from_millis(jitter(SPREAD_MS.min(every)))).await;
    let newest = snapshots.list().await?.first().copied().unwrap_or(0);
    // Another worker's snapshot may have come before the purge.
    let hole = first.is_some_and(|first| first > newest + 1);
    if first.is_some() && !hole {
        return Ok(newest);
    }
    if hole {
        tracing::error!(
            newest,
            first,
            "the ledger was purged past its newest snapshot; making another one now"
        );
    }
    let copied = tokio::task::spawn_blocking(move || {
        // The writer waits for the copy, not for the JSON.
        let copy = stock.read().clone();
        if !hole && copy.sequence() < newest + every.div_ceil(2) {
            return None;
        }
        Some(copy)
    });
    let Some(copy) = copied.await.map_err(|error| error.to_string())? else { return Ok(newest) };
    let sequence = copy.sequence();
    let bytes = snapshots.write(copy).await?;
    tracing::info!(sequence, bytes, "made a snapshot");
    Ok(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_again_later_and_later_whether_entries_come_or_not() {
        let (mut failed, mut now) = (Failed::default(), Instant::now());
        assert!(failed.allows(true, now) && !failed.allows(false, now));
        let mut rests = Vec::new();
        for _ in 0..12 {
            let rest = failed.again(now);
            assert!(!failed.allows(true, now + rest - Duration::from_millis(1)), "due or not");
            now += rest;
            assert!(failed.allows(false, now));
            rests.push(rest.as_secs());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }
}
