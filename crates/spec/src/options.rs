//! The configuration of a check: how many calls and orders, which faults are possible, and which mutant is active. Must
//! contain only values.

/// A mistake that the checker has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// A reservation is released without a tombstone on ORDERS.
    NoTombstone,
    /// A tombstone as old as the reservation releases it: `>=` for `>` (docs/protocol.md#c1).
    OldTombstone,
    /// The consumer acknowledges every event that changes nothing, without evidence (docs/protocol.md#c7).
    NoEvidence,
    /// A negative check is final, even under the caller's own request id (docs/protocol.md#c2).
    FinalCheck,
    /// A refusal of the reservation is final: the order is not read (docs/protocol.md#c3).
    FinalRefusal,
    /// Finished ids are forgotten before the consumer has acknowledged their last event (docs/protocol.md#c4).
    EarlyForget,
    /// Expiry does not look for dead letters (docs/protocol.md#c5).
    BlindExpiry,
    /// Any tombstone of an order is taken as proof that the record has lost it (docs/protocol.md#reconcile).
    AnyTombstone,
}

/// The bounds and faults of a check.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The calls: order and content of each. A call that ended may be repeated for ever.
    pub(crate) slots: Vec<(usize, u8)>,
    /// Units in stock.
    pub(crate) stock: u8,
    /// Tombstones per order.
    pub(crate) tombstones: u8,
    /// Reads of ORDERS may return any older state.
    pub(crate) stale_reads: bool,
    /// The consumer may decide on any older state (a deposed leader answered the barrier's read).
    pub(crate) stale_barrier: bool,
    /// One event may become a dead letter.
    pub(crate) dead_letters: bool,
    /// Finished ids may be forgotten.
    pub(crate) forget: bool,
    /// Operators may have any order settled, even if it needs no repair.
    pub(crate) reconcile: bool,
    /// After a tombstone, release first and then reserve, the reverse of the code (docs/protocol.md#c6,
    /// docs/decisions/0006-reserve-first.md).
    pub(crate) release_first: bool,
    /// The active mutant.
    pub(crate) mutant: Option<Mutant>,
}

impl Options {
    /// These calls, one unit, two tombstones, no optional faults.
    pub(crate) fn of(slots: &[(usize, u8)]) -> Options {
        Options {
            slots: slots.to_vec(),
            stock: 1,
            tombstones: 2,
            stale_reads: false,
            stale_barrier: false,
            dead_letters: false,
            forget: false,
            reconcile: false,
            release_first: false,
            mutant: None,
        }
    }

    /// The same with all optional faults at once, except reconcile.
    pub(crate) fn all(slots: &[(usize, u8)]) -> Options {
        Options {
            stale_reads: true,
            stale_barrier: true,
            dead_letters: true,
            forget: true,
            ..Options::of(slots)
        }
    }

    /// Whether this mutant is active.
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// How many orders there are.
    pub(crate) fn orders(&self) -> usize {
        self.slots.iter().map(|(order, _)| order + 1).max().unwrap_or(0)
    }
}
