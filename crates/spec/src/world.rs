//! The state of the model: ORDERS, the ledger, messages in flight, and the step of each call. Must contain only values,
//! and not depend on the moves.

/// An entry on ORDERS. Its sequence is its index in the order's register, from 1: only entries of one order are
/// compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    /// The order, with this content.
    Created(u8),
    /// No order.
    Tombstone,
    /// The order was cancelled.
    Cancelled,
    /// The order was shipped.
    Shipped,
}

/// The state of an order in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// Unknown: never reserved, or forgotten.
    Nothing,
    /// Reserved: content and fence.
    Held { content: u8, fence: u8 },
    /// Its order exists.
    Bound { content: u8, fence: u8 },
    /// Released by a tombstone with this sequence.
    Buried(u8),
    /// Released: cancelled by this event.
    Cancelled(u8),
    /// Released: a second reservation of units that this event shipped.
    Duplicate(u8),
    /// Shipped by this event.
    Shipped(u8),
}

/// A command in flight, which may reach the ledger at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Late {
    Expire(u8),
    Bind(u8),
    Cancel(u8),
    Drop(u8),
    Ship(u8),
    Disown(u8),
}

/// The step of a call to CreateOrder (`crates/orders/src/service/create.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// No call.
    Idle,
    /// It checks.
    Check,
    /// It requests a reservation, having found this tombstone (0: none).
    Reserve { buried: u8 },
    /// It was refused for insufficient stock, and reads the order.
    Short,
    /// It was refused because the id is finished, and reads the order.
    Finished,
    /// It records the order after this sequence.
    Record { fence: u8 },
    /// Another entry came first: it reads the last one.
    Read { fence: u8 },
    /// It found a tombstone newer than its fence, and has the reservation released.
    Release { buried: u8 },
}

/// Wrong ends of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// Refused for insufficient stock, although its own order is recorded or its own stock is held.
    Refused,
    /// The order is finished in the ledger, but not on the record.
    Contradiction,
}

/// One order: its register on ORDERS, its state in the ledger, and what is in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    pub(crate) register: Vec<Entry>,
    pub(crate) hold: Hold,
    /// Earlier states in the ledger, for workers that are behind.
    pub(crate) past: Vec<Hold>,
    /// The fences of all reservations so far, as bits: a worker may be about to append a tombstone for each.
    pub(crate) fences: u8,
    /// Records that were sent, by content, the expected sequence as a bit.
    pub(crate) sent: [u8; 2],
    /// Contents for which a reservation was requested.
    pub(crate) asked: [bool; 2],
    /// Commands that may still arrive.
    pub(crate) late: Vec<Late>,
    /// Events that the consumer has acknowledged, as bits.
    pub(crate) acked: u8,
    /// The sequence up to which finished ids may have been forgotten.
    pub(crate) floor: u8,
    /// No read returns an entry older than this.
    pub(crate) since: u8,
    /// An event of it is a dead letter.
    pub(crate) dead: bool,
    /// How often its units left.
    pub(crate) shipped: u8,
}

/// A slot for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) order: usize,
    pub(crate) content: u8,
    pub(crate) step: Step,
}

/// The whole state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) orders: Vec<Order>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) wrong: Option<Wrong>,
}

impl Order {
    pub(crate) fn new() -> Order {
        Order {
            register: Vec::new(),
            hold: Hold::Nothing,
            past: Vec::new(),
            fences: 0,
            sent: [0; 2],
            asked: [false; 2],
            late: Vec::new(),
            acked: 0,
            floor: 0,
            since: 0,
            dead: false,
            shipped: 0,
        }
    }

    /// The last sequence.
    pub(crate) fn last(&self) -> u8 {
        u8::try_from(self.register.len()).unwrap_or(u8::MAX)
    }

    /// The content of the order, if it was recorded.
    pub(crate) fn recorded(&self) -> Option<u8> {
        self.register.iter().find_map(|entry| match entry {
            Entry::Created(content) => Some(*content),
            Entry::Tombstone | Entry::Cancelled | Entry::Shipped => None,
        })
    }

    /// Whether the order exists and holds its stock.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.register.last(), Some(Entry::Created(_)))
    }

    /// Adds a command that may arrive at any time.
    pub(crate) fn submit(&mut self, late: Late) {
        if let Err(place) = self.late.binary_search(&late) {
            self.late.insert(place, late);
        }
    }

    /// Sets a new state in the ledger.
    pub(crate) fn turn(&mut self, hold: Hold, remember: bool) {
        if remember && let Err(place) = self.past.binary_search(&self.hold) {
            self.past.insert(place, self.hold);
        }
        if let Hold::Held { fence, .. } = hold {
            self.fences |= 1 << fence;
        }
        if matches!(hold, Hold::Shipped(_)) {
            self.shipped += 1;
        }
        self.hold = hold;
    }

    /// The sequence up to which the consumer has acknowledged every event.
    pub(crate) fn floor_now(&self) -> u8 {
        let open = self
            .register
            .iter()
            .enumerate()
            .find(|(place, entry)| **entry != Entry::Tombstone && self.acked & (1 << place) == 0);
        open.map_or(self.last(), |(place, _)| u8::try_from(place).unwrap_or(u8::MAX))
    }
}
