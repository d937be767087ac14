//! The world of the model: what ORDERS and the ledger have, what is on its way, and how far each call is. Values alone;
//! must never know what may happen next.

/// An entry on ORDERS. Its sequence is its place in the order's register, from 1: only entries of one order are ever
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

/// What the ledger says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// Nothing: never heard of, or forgotten.
    Nothing,
    /// Reserved: content and fence.
    Held { content: u8, fence: u8 },
    /// Its order exists.
    Bound { content: u8, fence: u8 },
    /// Given back, by a tombstone with this sequence.
    Buried(u8),
    /// Given back: cancelled by this event.
    Cancelled(u8),
    /// Given back: a second hold of what this event shipped.
    Duplicate(u8),
    /// Left, by this event.
    Shipped(u8),
}

/// A command that somebody has decided to submit, and that may reach the ledger at any time from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Late {
    Expire(u8),
    Bind(u8),
    Cancel(u8),
    Drop(u8),
    Ship(u8),
    Disown(u8),
}

/// How far a call to CreateOrder is (`gateway/src/order/flow.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// No call.
    Idle,
    /// It checks.
    Check,
    /// It asks for a reservation, having found this tombstone (0: none).
    Reserve { buried: u8 },
    /// It was told that there is too little, and reads the order.
    Short,
    /// It was told that the id is finished, and reads the order.
    Finished,
    /// It records behind this sequence.
    Record { fence: u8 },
    /// Something came first: it reads what is there now.
    Read { fence: u8 },
    /// It found a tombstone that its reservation does not know, and has it released.
    Release { buried: u8 },
}

/// What can be held against a call's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// Refused for want of stock, with its own order recorded or its own stock held.
    Refused,
    /// The ledger knows the order as finished, the record does not know it.
    Contradiction,
}

/// One order: its register on ORDERS, its place in the ledger, and what is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    pub(crate) register: Vec<Entry>,
    pub(crate) hold: Hold,
    /// What the ledger said before, for workers that are behind.
    pub(crate) past: Vec<Hold>,
    /// The fences of all reservations that there were, as bits: somebody may be about to bury each.
    pub(crate) fences: u8,
    /// Records that were sent, by content, the expected sequence as a bit.
    pub(crate) sent: [u8; 2],
    /// Contents that a reservation was asked for.
    pub(crate) asked: [bool; 2],
    /// Commands that may still come.
    pub(crate) late: Vec<Late>,
    /// Events that the consumer has acknowledged, as bits.
    pub(crate) acked: u8,
    /// The sequence up to which finished ids may have been forgotten.
    pub(crate) floor: u8,
    /// Nobody reads anything older any more.
    pub(crate) since: u8,
    /// An event of it is a dead letter.
    pub(crate) dead: bool,
    /// How often its units left.
    pub(crate) shipped: u8,
}

/// A call, or the place for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) order: usize,
    pub(crate) content: u8,
    pub(crate) step: Step,
}

/// Everything.
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

    /// Notes a command that may come at any time.
    pub(crate) fn submit(&mut self, late: Late) {
        if let Err(place) = self.late.binary_search(&late) {
            self.late.insert(place, late);
        }
    }

    /// The ledger says something new of it.
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
