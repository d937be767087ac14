//! A reservation: what an order holds, and how far it is. Reserved → Bound | Released | Shipped, Bound → Released |
//! Shipped; the last two are final, but for a release by tombstone, after which it may be made again.

use serde::{Deserialize, Serialize};

use super::Horizon;

/// What an order holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The units; empty once it is finished.
    pub items: Box<[Line]>,
    /// How far it is.
    pub phase: Phase,
    /// The last sequence of the order on ORDERS when it was made: 0, or the tombstone of the one before.
    pub fence: u64,
    /// Fact time of the last change, unix ms.
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

/// How far a reservation is. Events and tombstones are sequences on ORDERS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// Made; its order is not known to exist.
    Held {
        /// When it ends without an order, unix ms; `None`: when it is released.
        expires_at: Option<u64>,
    },
    /// Its order exists.
    Bound {
        /// The event that says so.
        event: u64,
    },
    /// Given back.
    Released {
        /// By what.
        by: Release,
    },
    /// The units have left.
    Shipped {
        /// The event that says so.
        event: u64,
    },
}

/// What gave a reservation back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Release {
    /// A tombstone: no order was recorded before it, and none that expects less can be after it.
    Tombstone(u64),
    /// The order was cancelled by this event.
    Cancelled(u64),
    /// The order was shipped by this event, and the consumer had acknowledged it: a second hold of what had left.
    Duplicate(u64),
}

impl Phase {
    /// The event or tombstone that says so; 0 while it is merely held.
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
    /// Whether nothing more can happen to it, other than being made again.
    pub fn finished(&self) -> bool {
        match self.phase {
            Phase::Held { .. } | Phase::Bound { .. } => false,
            Phase::Released { .. } | Phase::Shipped { .. } => true,
        }
    }

    /// The newest sequence on ORDERS that it knows: the record has an entry of the order at least as new, unless it has
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
