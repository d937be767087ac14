//! What a check is about: how many calls and orders, what may go wrong, and which mistake is put in. Values alone.

/// A mistake, to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// A reservation is released without a tombstone on ORDERS.
    NoTombstone,
    /// A tombstone as old as the reservation releases it: `>=` for `>` (C1).
    OldTombstone,
    /// The consumer acknowledges what changes nothing, whatever it knows (C7).
    NoEvidence,
    /// A negative check is final, whoever made the request id (C2).
    FinalCheck,
    /// A refusal of the reservation is final: the order is not read (C3).
    FinalRefusal,
    /// Finished ids are forgotten before the consumer has acknowledged their last event (C4).
    EarlyForget,
    /// Expiry does not look for dead letters (C5).
    BlindExpiry,
    /// Any tombstone of an order says that the record has lost it.
    AnyTombstone,
}

/// A check's bounds.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The calls: order and content of each. A call that ended may be made again, for ever.
    pub(crate) slots: Vec<(usize, u8)>,
    /// Units in stock.
    pub(crate) stock: u8,
    /// Tombstones per order.
    pub(crate) tombstones: u8,
    /// Reads of ORDERS may answer with anything older.
    pub(crate) stale_reads: bool,
    /// The consumer may decide on anything older (the barrier's read was a deposed leader's).
    pub(crate) stale_barrier: bool,
    /// One event may become a dead letter.
    pub(crate) dead_letters: bool,
    /// Finished ids may be forgotten.
    pub(crate) forget: bool,
    /// Operators have orders settled that need it not.
    pub(crate) reconcile: bool,
    /// DESIGN 6's order after a tombstone, instead of the code's: release first, then reserve.
    pub(crate) release_first: bool,
    /// The mistake.
    pub(crate) mutant: Option<Mutant>,
}

impl Options {
    /// So many calls of one order, one unit, nothing stale.
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

    /// The same with everything that may go wrong at once.
    pub(crate) fn all(slots: &[(usize, u8)]) -> Options {
        Options {
            stale_reads: true,
            stale_barrier: true,
            dead_letters: true,
            forget: true,
            ..Options::of(slots)
        }
    }

    /// Whether this is the mistake.
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// How many orders there are.
    pub(crate) fn orders(&self) -> usize {
        self.slots.iter().map(|(order, _)| order + 1).max().unwrap_or(0)
    }
}
