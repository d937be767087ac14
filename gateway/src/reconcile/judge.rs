//! Whether the record of an order and its reservation agree, and if not, in what they differ: the whole table. Pure:
//! knows neither where the two come from nor what is done about it.

use contract::inventory::v1::ReservationPhase as Phase;

use crate::feed::register::{Entries, Standing};
use crate::order::status::Status;

/// A reservation whose order did not come is given back by a worker's next sweep; only one that is still there after
/// this, in ms, is worth a word.
const GRACE: u64 = 60_000;

/// What the ledger says of an order. Numbers are sequences of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// How far it is.
    pub phase: Phase,
    /// Stands for its items.
    pub items: u64,
    /// What the order's record had to expect.
    pub fence: u64,
    /// The entry that says how far it is; 0 while it is merely held.
    pub sequence: u64,
    /// When it ends without an order, unix ms.
    pub expires: Option<u64>,
}

/// In what the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The record ends before an entry that the ledger knows.
    EndLost,
    /// A cancelled order holds stock.
    NotReleased,
    /// Stock is held for no order.
    StockWithoutOrder,
    /// The ledger knows of an order or a tombstone that is not on the record; no stock is held for it.
    EntryLost,
    /// The ledger knows that the order was cancelled or shipped; the record has lost that.
    StepLost(Status),
    /// A shipped order's stock has not left.
    NotShipped,
    /// An order that lives holds no stock.
    OrderWithoutStock,
    /// Other items are held than were ordered.
    OtherItems,
    /// The order was cancelled and its stock has left, or the other way round.
    Contradiction,
    /// Stock is held for an order whose last event cannot be read.
    Unreadable,
}

impl Kind {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::EndLost => "end_lost",
            Kind::NotReleased => "not_released",
            Kind::StockWithoutOrder => "stock_without_order",
            Kind::EntryLost => "entry_lost",
            Kind::StepLost(_) => "step_lost",
            Kind::NotShipped => "not_shipped",
            Kind::OrderWithoutStock => "order_without_stock",
            Kind::OtherItems => "other_items",
            Kind::Contradiction => "contradiction",
            Kind::Unreadable => "unreadable",
        }
    }
}

impl Held {
    /// The newest entry of the record that it knows.
    pub(super) fn newest(&self) -> u64 {
        self.fence.max(self.sequence)
    }
}

/// Compares the two; nothing where they agree. `forgotten`: finished reservations of events up to there may be gone.
/// `now` in unix ms.
pub(super) fn judge(order: Option<&Entries>, held: Option<&Held>, forgotten: u64, now: u64) -> Option<Kind> {
    let Some(order) = order else { return held.and_then(|held| without(0, held, now)) };
    match order.standing {
        // What is no order and holds nothing is said by its dead letter.
        Standing::Unreadable => match held?.phase {
            Phase::Held | Phase::Bound => Some(Kind::Unreadable),
            _ => None,
        },
        Standing::Tombstone => held.and_then(|held| without(order.last, held, now)),
        Standing::Order(Status::Pending | Status::Confirmed) => living(order, held),
        Standing::Order(Status::Cancelled | Status::Expired) => match held?.phase {
            Phase::Held | Phase::Bound => Some(Kind::NotReleased),
            Phase::Shipped | Phase::Duplicate => Some(Kind::Contradiction),
            Phase::Cancelled | Phase::Buried | Phase::Unspecified => None,
        },
        Standing::Order(Status::Shipped | Status::Delivered) => shipped(order, held, forgotten),
    }
}

fn living(order: &Entries, held: Option<&Held>) -> Option<Kind> {
    let Some(held) = held else { return Some(Kind::OrderWithoutStock) };
    match held.phase {
        Phase::Held | Phase::Bound if held.items == order.items => None,
        Phase::Held | Phase::Bound => Some(Kind::OtherItems),
        Phase::Cancelled => Some(Kind::StepLost(Status::Cancelled)),
        Phase::Shipped | Phase::Duplicate => Some(Kind::StepLost(Status::Shipped)),
        Phase::Buried | Phase::Unspecified => Some(Kind::OrderWithoutStock),
    }
}

fn shipped(order: &Entries, held: Option<&Held>, forgotten: u64) -> Option<Kind> {
    let Some(held) = held else {
        // One that is forgotten has left long ago. Where its event is not known, the next look knows it.
        return order.shipped.filter(|event| *event > forgotten).map(|_| Kind::NotShipped);
    };
    match held.phase {
        Phase::Held | Phase::Bound if held.items == order.items => Some(Kind::NotShipped),
        Phase::Held | Phase::Bound => Some(Kind::OtherItems),
        Phase::Buried | Phase::Unspecified => Some(Kind::NotShipped),
        Phase::Cancelled => Some(Kind::Contradiction),
        Phase::Shipped | Phase::Duplicate => None,
    }
}

/// There is no order, and its last entry is a tombstone, or nothing (0). All that the ledger knows of is on the record,
/// unless the record has lost it.
fn without(last: u64, held: &Held, now: u64) -> Option<Kind> {
    let over = held.expires.is_some_and(|expires| expires.saturating_add(GRACE) < now);
    match held.phase {
        Phase::Bound => Some(Kind::StockWithoutOrder),
        Phase::Held if over => Some(Kind::StockWithoutOrder),
        _ => (held.newest() > last).then_some(Kind::EntryLost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn order(status: Status) -> Entries {
        let shipped = matches!(status, Status::Shipped | Status::Delivered).then_some(9);
        Entries { last: 9, standing: Standing::Order(status), items: 7, shipped }
    }

    fn held(phase: Phase) -> Held {
        Held { phase, items: 7, fence: 0, sequence: 9, expires: None }
    }

    #[test]
    fn an_order_and_its_reservation_agree_or_differ_as_the_table_says() {
        use Kind::{Contradiction, NotReleased, NotShipped, OrderWithoutStock, StepLost};
        use Status::{Cancelled, Confirmed, Delivered, Expired, Pending, Shipped};
        let table = [
            (
                Pending,
                [None, None, Some(StepLost(Shipped)), Some(StepLost(Cancelled)), Some(OrderWithoutStock)],
            ),
            (
                Confirmed,
                [None, None, Some(StepLost(Shipped)), Some(StepLost(Cancelled)), Some(OrderWithoutStock)],
            ),
            (Cancelled, [Some(NotReleased), Some(NotReleased), Some(Contradiction), None, None]),
            (Expired, [Some(NotReleased), Some(NotReleased), Some(Contradiction), None, None]),
            (Shipped, [Some(NotShipped), Some(NotShipped), None, Some(Contradiction), Some(NotShipped)]),
            (Delivered, [Some(NotShipped), Some(NotShipped), None, Some(Contradiction), Some(NotShipped)]),
        ];
        let phases = [Phase::Held, Phase::Bound, Phase::Shipped, Phase::Cancelled, Phase::Buried];
        for (status, expected) in table {
            let found = phases.map(|phase| judge(Some(&order(status)), Some(&held(phase)), 0, NOW));
            assert_eq!(found, expected, "{status:?}");
        }
    }

    #[test]
    fn an_order_that_was_shipped_and_forgotten_agrees_and_one_that_the_ledger_never_saw_does_not() {
        let shipped = order(Status::Delivered);
        assert_eq!(judge(Some(&shipped), None, 9, NOW), None);
        assert_eq!(judge(Some(&shipped), None, 8, NOW), Some(Kind::NotShipped));
        assert_eq!(judge(Some(&Entries { shipped: None, ..shipped }), None, 0, NOW), None);
        assert_eq!(judge(Some(&order(Status::Cancelled)), None, 0, NOW), None);
        assert_eq!(judge(Some(&order(Status::Pending)), None, 9, NOW), Some(Kind::OrderWithoutStock));
    }

    #[test]
    fn stock_of_no_order_is_found_once_it_should_be_back_and_a_lost_entry_at_once() {
        let tombstone = Entries { last: 5, standing: Standing::Tombstone, items: 0, shipped: None };
        assert_eq!(judge(None, Some(&held(Phase::Bound)), 0, NOW), Some(Kind::StockWithoutOrder));
        assert_eq!(judge(Some(&tombstone), Some(&held(Phase::Bound)), 0, NOW), Some(Kind::StockWithoutOrder));
        let waits = |fence, expires| Held { fence, sequence: 0, expires, ..held(Phase::Held) };
        assert_eq!(judge(Some(&tombstone), Some(&waits(5, None)), 0, NOW), None);
        assert_eq!(judge(Some(&tombstone), Some(&waits(5, Some(NOW - GRACE))), 0, NOW), None);
        let over = waits(5, Some(NOW - GRACE - 1));
        assert_eq!(judge(Some(&tombstone), Some(&over), 0, NOW), Some(Kind::StockWithoutOrder));
        assert_eq!(judge(Some(&tombstone), Some(&waits(6, None)), 0, NOW), Some(Kind::EntryLost));
        assert_eq!(judge(None, Some(&held(Phase::Shipped)), 0, NOW), Some(Kind::EntryLost));
        assert_eq!(judge(None, None, 0, NOW), None);
    }

    #[test]
    fn an_event_that_is_no_order_matters_where_stock_is_held_for_it() {
        let unreadable = Entries::unreadable(3);
        assert_eq!(judge(Some(&unreadable), Some(&held(Phase::Bound)), 0, NOW), Some(Kind::Unreadable));
        assert_eq!(judge(Some(&unreadable), Some(&held(Phase::Cancelled)), 0, NOW), None);
        assert_eq!(judge(Some(&unreadable), None, 0, NOW), None);
    }

    #[test]
    fn other_items_than_were_ordered_are_never_taken_for_its_own() {
        let other = Held { items: 8, ..held(Phase::Bound) };
        for status in [Status::Pending, Status::Shipped] {
            let found = judge(Some(&order(status)), Some(&other), 0, NOW);
            assert_eq!(found, Some(Kind::OtherItems));
        }
    }
}
