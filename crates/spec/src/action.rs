//! The steps of the model. Must not say what they do.

use crate::world::{Hold, Late};

/// A step of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    /// A client calls, for the first time or again.
    Call(usize),
    /// A call takes its next step; if it reads, it sees this many entries of the order.
    Go(usize, u8),
    /// A gateway dies, or a call is given up: what it sent stays in flight.
    Die(usize),
    /// A record that was sent earlier is stored now.
    Store(usize, u8),
    /// A reservation that was requested earlier, or twice, is made now.
    Again(usize, u8),
    /// A worker that found a reservation with this fence appends a tombstone.
    Bury(usize, u8),
    /// A worker whose tombstone was refused reads the last entry, and decides.
    Settle(usize, u8, u8),
    /// A command that was decided earlier reaches the ledger.
    Submit(usize, Late),
    /// The consumer processes an event; acknowledged or not.
    Deliver(usize, u8, bool),
    /// A worker that is behind processes it, on an older state of the ledger.
    DeliverBehind(usize, u8, Hold),
    /// An event becomes a dead letter.
    Poison(usize, u8),
    /// The order is cancelled.
    Cancel(usize),
    /// The order is shipped.
    Ship(usize),
    /// The ledger forgets a finished id.
    Forget(usize),
    /// An operator has the order settled by this entry.
    Mend(usize, u8),
}
