//! The metrics of a ledger. Must not influence decisions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use telemetry::{Counter, Exposition, Histogram, Source};

use super::Ledger;

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
    lag: AtomicU64,
    /// The newest snapshot known here; 0 for none.
    snapshot: AtomicU64,
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

    fn age(&self) -> f64 {
        match self.snapshot.load(Ordering::Relaxed) {
            0 => -1.0,
            _ => self.begun.elapsed().as_secs_f64() - self.known.load(Ordering::Relaxed) as f64,
        }
    }
}

impl Source for Ledger {
    fn collect(&self, page: &mut Exposition) {
        let figures = &*self.figures;
        let counts = [
            ("ledger_commits_total", "Committed appends.", &figures.commits),
            ("ledger_commands_total", "Commands decided and answered.", &figures.commands),
            (
                "ledger_conflicts_total",
                "Appends refused because another worker was first.",
                &figures.conflicts,
            ),
            (
                "ledger_undetermined_total",
                "Appends whose outcome was undetermined at first.",
                &figures.undetermined,
            ),
            (
                "ledger_barriers_total",
                "Reads of the leader's last sequence before an answer.",
                &figures.barriers,
            ),
            (
                "ledger_loads_total",
                "Loads of snapshot and entries: one at start, more after holes.",
                &figures.loads,
            ),
            ("ledger_snapshot_failures_total", "Failed snapshots.", &figures.unmade),
        ];
        for (name, help, count) in counts {
            page.counter(name, help, &[], count.get());
        }
        page.histogram("ledger_batch_commands", "Commands per batch.", &[], &figures.batches);
        page.histogram("ledger_commit_duration_seconds", "Duration of a commit.", &[], &figures.times);
        let (sequence, amounts, (known, open)) = {
            let stock = self.stock();
            (stock.sequence(), stock.amounts(), stock.reservations())
        };
        let levels = [
            ("ledger_sequence", "The last entry that the stock includes.", sequence as f64),
            (
                "ledger_lag",
                "Entries behind the leader at the last barrier.",
                figures.lag.load(Ordering::Relaxed) as f64,
            ),
            (
                "ledger_snapshot_sequence",
                "Sequence of the newest known snapshot.",
                figures.snapshot.load(Ordering::Relaxed) as f64,
            ),
            (
                "ledger_snapshot_age_seconds",
                "Seconds since the newest snapshot became known; -1: none.",
                figures.age(),
            ),
            ("inventory_products", "Products.", amounts.products as f64),
            ("inventory_products_limit", "Limit of products.", self.bounds.products as f64),
            ("inventory_adjustments", "Remembered ids of adjustments.", amounts.adjustments as f64),
            ("inventory_adjustments_limit", "Limit of remembered ids.", self.bounds.adjustments as f64),
            ("inventory_reservations_limit", "Limit of reservations.", self.bounds.reservations as f64),
            ("inventory_reservations", "Reservations, finished ones included.", known as f64),
            ("inventory_reservations_open", "Reservations without an order, which may expire.", open as f64),
        ];
        for (name, help, value) in levels {
            page.gauge(name, help, &[], value);
        }
        let outages = self.guard().outages();
        let storable = outages.iter().all(|(stream, _)| *stream != order_streams::INVENTORY);
        let help = "Whether the ledger accepts commands and can store their facts.";
        page.flag("ledger_ready", help, &[], self.ready() && storable);
    }
}
