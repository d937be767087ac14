//! The metrics of a ledger. Must not influence decisions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use telemetry::{Counter, Histogram};

/// The counters of a ledger.
#[derive(Debug)]
pub(super) struct LedgerMetrics {
    pub(super) commits: Counter,
    pub(super) commands: Counter,
    pub(super) batches: Histogram,
    pub(super) times: Histogram,
    pub(super) conflicts: Counter,
    pub(super) undetermined: Counter,
    pub(super) barriers: Counter,
    pub(super) loads: Counter,
    /// Snapshots that were begun and failed.
    pub(super) unmade: Counter,
    /// Entries behind the leader at the last barrier.
    pub(super) lag: AtomicU64,
    /// The newest snapshot known here; 0 for none.
    pub(super) snapshot: AtomicU64,
    /// When this worker learned of it, in seconds since `begun`.
    known: AtomicU64,
    begun: Instant,
}

impl LedgerMetrics {
    pub(super) fn new() -> LedgerMetrics {
        LedgerMetrics {
            commits: Counter::default(),
            commands: Counter::default(),
            batches: Histogram::batches(),
            times: Histogram::times(),
            conflicts: Counter::default(),
            undetermined: Counter::default(),
            barriers: Counter::default(),
            loads: Counter::default(),
            unmade: Counter::default(),
            lag: AtomicU64::new(0),
            snapshot: AtomicU64::new(0),
            known: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// Records how many entries the leader's last one is ahead.
    pub(super) fn behind(&self, entries: u64) {
        self.lag.store(entries, Ordering::Relaxed);
    }

    /// Records that there is a snapshot of this sequence.
    pub(super) fn snapshot(&self, sequence: u64) {
        if self.snapshot.fetch_max(sequence, Ordering::Relaxed) < sequence {
            self.known.store(self.begun.elapsed().as_secs(), Ordering::Relaxed);
        }
    }

    /// The newest snapshot known here; 0 for none.
    pub(super) fn known_snapshot(&self) -> u64 {
        self.snapshot.load(Ordering::Relaxed)
    }

    pub(super) fn age(&self) -> f64 {
        match self.snapshot.load(Ordering::Relaxed) {
            0 => -1.0,
            _ => self.begun.elapsed().as_secs_f64() - self.known.load(Ordering::Relaxed) as f64,
        }
    }
}
