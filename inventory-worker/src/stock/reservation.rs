//! A reservation: what an order holds, and its phase. Reserved → Bound | Released | Shipped, Bound → Released |
//! Shipped. The last two are final, except for a release by tombstone, after which the order may reserve again.

use serde::{Deserialize, Serialize};

use super::Horizon;

/// What an order holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The units; empty once it is finished.
    pub items: Box<[Line]>,
    /// Its phase.
    pub phase: Phase,
    /// The last sequence of the order on ORDERS when it was made: 0, or the tombstone of the previous reservation.
    pub fence: u64,
    /// Fact time of the last change, Unix ms.
    pub changed: u64,
}

/// Units of one product, by its number in the stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The product's number.
    pub product: u32,
    /// Units.
    pub quantity: u32,
}

/// The phase of a reservation. Events and tombstones are sequences on ORDERS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// Made; its order is not known to exist.
    Held {
        /// When it expires without an order, Unix ms; `None`: when it is released.
        expires_at: Option<u64>,
    },
    /// Its order exists.
    Bound {
        /// The event that caused it.
        event: u64,
    },
    /// Released.
    Released {
        /// The cause.
        by: Release,
    },
    /// The units have left.
    Shipped {
        /// The event that caused it.
        event: u64,
    },
}

/// What released a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Release {
    /// A tombstone: no order was recorded before it, and none that expects less can be after it.
    Tombstone(u64),
    /// The order was cancelled by this event.
    Cancelled(u64),
    /// The order was shipped by this event, which the consumer had acknowledged: a second reservation of units that had
    /// left.
    Duplicate(u64),
}

impl Phase {
    /// The event or tombstone that caused the phase; 0 while it is merely held.
    pub fn sequence(self) -> u64 {
        match self {
            Phase::Held { .. } => 0,
            Phase::Bound { event }
            | Phase::Shipped { event }
            | Phase::Released {
                by: Release::Tombstone(event) | Release::Cancelled(event) | Release::Duplicate(event),
            } => event,
        }
    }
}

impl Reservation {
    /// Whether nothing more can happen to it, except a new reservation.
    pub fn finished(&self) -> bool {
        match self.phase {
            Phase::Held { .. } | Phase::Bound { .. } => false,
            Phase::Released { .. } | Phase::Shipped { .. } => true,
        }
    }

    /// The newest sequence on ORDERS that it knows: the record has an entry of the order at least as new, unless it
    /// lost it.
    pub fn newest(&self) -> u64 {
        self.fence.max(self.phase.sequence())
    }

    /// Whether it may be forgotten: finished, old, and its last event acknowledged by the consumer.
    pub fn forgettable(&self, horizon: Horizon) -> bool {
        let acknowledged = match self.phase {
            Phase::Held { .. } | Phase::Bound { .. } => false,
            // The consumer never sees a tombstone.
            Phase::Released { by: Release::Tombstone(_) } => true,
            Phase::Released { by: Release::Cancelled(event) | Release::Duplicate(event) }
            | Phase::Shipped { event } => event <= horizon.floor,
        };
        acknowledged && self.changed <= horizon.before
    }
}
