//! The figures of a ledger. Must never change what is decided.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use telemetry::{Count, Page, Source, Spread};

use super::Ledger;

/// What a ledger counts.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) commits: Count,
    pub(super) commands: Count,
    pub(super) batches: Spread,
    pub(super) times: Spread,
    pub(super) conflicts: Count,
    pub(super) undetermined: Count,
    pub(super) barriers: Count,
    pub(super) loads: Count,
    /// Snapshots that were begun and not made.
    pub(super) unmade: Count,
    /// Entries behind the leader, when it was asked last.
    lag: AtomicU64,
    /// The newest snapshot known here; 0 for none.
    snapshot: AtomicU64,
    /// When it was known first, in seconds since `begun`.
    known: AtomicU64,
    begun: Instant,
}

impl Figures {
    pub(super) fn new() -> Figures {
        Figures {
            commits: Count::default(),
            commands: Count::default(),
            batches: Spread::batches(),
            times: Spread::times(),
            conflicts: Count::default(),
            undetermined: Count::default(),
            barriers: Count::default(),
            loads: Count::default(),
            unmade: Count::default(),
            lag: AtomicU64::new(0),
            snapshot: AtomicU64::new(0),
            known: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// The leader's last entry is so many ahead.
    pub(super) fn behind(&self, entries: u64) {
        self.lag.store(entries, Ordering::Relaxed);
    }

    /// There is a snapshot of this sequence.
    pub(super) fn snapshot(&self, sequence: u64) {
        if self.snapshot.fetch_max(sequence, Ordering::Relaxed) < sequence {
            self.known.store(self.begun.elapsed().as_secs(), Ordering::Relaxed);
        }
    }

    /// The newest snapshot that is known here; 0 for none.
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
    fn tell(&self, page: &mut Page) {
        let figures = &*self.figures;
        let counts = [
            ("ledger_commits_total", "Appends that were committed.", &figures.commits),
            ("ledger_commands_total", "Commands that were decided and answered.", &figures.commands),
            ("ledger_conflicts_total", "Appends that another worker was faster than.", &figures.conflicts),
            (
                "ledger_undetermined_total",
                "Appends whose outcome had to be found out.",
                &figures.undetermined,
            ),
            ("ledger_barriers_total", "Looks at the leader before an answer.", &figures.barriers),
            (
                "ledger_loads_total",
                "Loads of snapshot and entries: once at start, more after holes.",
                &figures.loads,
            ),
            ("ledger_snapshot_failures_total", "Snapshots that could not be made.", &figures.unmade),
        ];
        for (name, help, count) in counts {
            page.count(name, help, &[], count.get());
        }
        page.spread("ledger_batch_commands", "Commands that were committed together.", &[], &figures.batches);
        page.spread("ledger_commit_duration_seconds", "Time of a commit.", &[], &figures.times);
        let (sequence, amounts, (known, open)) = {
            let stock = self.stock();
            (stock.sequence(), stock.amounts(), stock.reservations())
        };
        let levels = [
            ("ledger_sequence", "The last entry that the stock has.", sequence as f64),
            (
                "ledger_lag",
                "Entries behind the leader when it was asked last.",
                figures.lag.load(Ordering::Relaxed) as f64,
            ),
            (
                "ledger_snapshot_sequence",
                "The newest snapshot known.",
                figures.snapshot.load(Ordering::Relaxed) as f64,
            ),
            (
                "ledger_snapshot_age_seconds",
                "Since the newest snapshot is known; -1: there is none.",
                figures.age(),
            ),
            ("inventory_products", "Products.", amounts.products as f64),
            ("inventory_products_limit", "How many there may be.", self.bounds.products as f64),
            ("inventory_adjustments", "Ids of adjustments that are remembered.", amounts.adjustments as f64),
            ("inventory_adjustments_limit", "How many there may be.", self.bounds.adjustments as f64),
            ("inventory_reservations_limit", "How many may be known.", self.bounds.reservations as f64),
            ("inventory_reservations", "Reservations that are known, finished ones included.", known as f64),
            ("inventory_reservations_open", "Reservations without an order, which may expire.", open as f64),
        ];
        for (name, help, value) in levels {
            page.level(name, help, &[], value);
        }
        let outages = self.guard().outages(&[link::streams::INVENTORY]);
        let storable = outages.iter().all(|(stream, _)| *stream != link::streams::INVENTORY);
        let help = "Whether the ledger takes commands, and can store what they come to.";
        page.flag("ledger_ready", help, &[], self.ready() && storable);
    }
}
