//! Diff: whether the record of an order and its reservation agree, and if not, how they differ: the whole table. Pure:
//! must not know where the two come from or what is done about a difference.

use contract::inventory::v1::ReservationPhase as Phase;
use order_streams::status::Status;

use crate::feed::scan::{Entries, OrderState};

/// A worker's next sweep releases a reservation whose order did not come; only one that is still there after this time,
/// in ms, is reported.
const GRACE: u64 = 60_000;

/// What the ledger says of an order. Numbers are sequences of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldReservation {
    /// Its phase.
    pub phase: Phase,
    /// A fingerprint of its items.
    pub items: u64,
    /// The sequence that the order's record had to expect.
    pub fence: u64,
    /// The entry that put it into this phase; 0 while it is merely held.
    pub sequence: u64,
    /// When it expires without an order, Unix ms.
    pub expires: Option<u64>,
}

/// How the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
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
    /// An active order holds no stock.
    OrderWithoutStock,
    /// Other items are held than were ordered.
    OtherItems,
    /// The order was cancelled and its stock has left, or the other way round.
    Contradiction,
    /// Stock is held for an order whose last event cannot be read.
    Unreadable,
}

impl Difference {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Difference::EndLost => "end_lost",
            Difference::NotReleased => "not_released",
            Difference::StockWithoutOrder => "stock_without_order",
            Difference::EntryLost => "entry_lost",
            Difference::StepLost(_) => "step_lost",
            Difference::NotShipped => "not_shipped",
            Difference::OrderWithoutStock => "order_without_stock",
            Difference::OtherItems => "other_items",
            Difference::Contradiction => "contradiction",
            Difference::Unreadable => "unreadable",
        }
    }
}

impl HeldReservation {
    /// The newest entry of the record that it knows.
    pub(super) fn newest(&self) -> u64 {
        self.fence.max(self.sequence)
    }
}

/// Compares the two; none if they agree. `forgotten`: finished reservations of events up to there may be forgotten.
/// `now` in Unix ms.
pub(super) fn judge(
    order: Option<&Entries>,
    held: Option<&HeldReservation>,
    forgotten: u64,
    now: u64,
) -> Option<Difference> {
    let Some(order) = order else { return held.and_then(|held| without(0, held, now)) };
    match order.standing {
        // An unreadable event that holds no stock is reported by its dead letter.
        OrderState::Unreadable => match held?.phase {
            Phase::Held | Phase::Bound => Some(Difference::Unreadable),
            _ => None,
        },
        OrderState::Tombstone => held.and_then(|held| without(order.last, held, now)),
        OrderState::Order(Status::Pending | Status::Confirmed) => living(order, held),
        OrderState::Order(Status::Cancelled | Status::Expired) => match held?.phase {
            Phase::Held | Phase::Bound => Some(Difference::NotReleased),
            Phase::Shipped | Phase::Duplicate => Some(Difference::Contradiction),
            Phase::Cancelled | Phase::Buried | Phase::Unspecified => None,
        },
        OrderState::Order(Status::Shipped | Status::Delivered) => shipped(order, held, forgotten),
    }
}

fn living(order: &Entries, held: Option<&HeldReservation>) -> Option<Difference> {
    let Some(held) = held else { return Some(Difference::OrderWithoutStock) };
    match held.phase {
        Phase::Held | Phase::Bound if held.items == order.items => None,
        Phase::Held | Phase::Bound => Some(Difference::OtherItems),
        Phase::Cancelled => Some(Difference::StepLost(Status::Cancelled)),
        Phase::Shipped | Phase::Duplicate => Some(Difference::StepLost(Status::Shipped)),
        Phase::Buried | Phase::Unspecified => Some(Difference::OrderWithoutStock),
    }
}

fn shipped(order: &Entries, held: Option<&HeldReservation>, forgotten: u64) -> Option<Difference> {
    let Some(held) = held else {
        // The stock of a forgotten one has left long ago. If its event is not known, the next look knows it.
        return order.shipped.filter(|event| *event > forgotten).map(|_| Difference::NotShipped);
    };
    match held.phase {
        Phase::Held | Phase::Bound if held.items == order.items => Some(Difference::NotShipped),
        Phase::Held | Phase::Bound => Some(Difference::OtherItems),
        Phase::Buried | Phase::Unspecified => Some(Difference::NotShipped),
        Phase::Cancelled => Some(Difference::Contradiction),
        Phase::Shipped | Phase::Duplicate => None,
    }
}

/// There is no order: its last entry is a tombstone, or there is none (0). Any newer entry that the ledger knows was
/// lost by the record.
fn without(last: u64, held: &HeldReservation, now: u64) -> Option<Difference> {
    let over = held.expires.is_some_and(|expires| expires.saturating_add(GRACE) < now);
    match held.phase {
        Phase::Bound => Some(Difference::StockWithoutOrder),
        Phase::Held if over => Some(Difference::StockWithoutOrder),
        _ => (held.newest() > last).then_some(Difference::EntryLost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn order(status: Status) -> Entries {
        let shipped = matches!(status, Status::Shipped | Status::Delivered).then_some(9);
        Entries { last: 9, standing: OrderState::Order(status), items: 7, shipped }
    }

    fn held(phase: Phase) -> HeldReservation {
        HeldReservation { phase, items: 7, fence: 0, sequence: 9, expires: None }
    }

    #[test]
    fn an_order_and_its_reservation_agree_or_differ_as_the_table_says() {
        use Difference::{Contradiction, NotReleased, NotShipped, OrderWithoutStock, StepLost};
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
        assert_eq!(judge(Some(&shipped), None, 8, NOW), Some(Difference::NotShipped));
        assert_eq!(judge(Some(&Entries { shipped: None, ..shipped }), None, 0, NOW), None);
        assert_eq!(judge(Some(&order(Status::Cancelled)), None, 0, NOW), None);
        assert_eq!(judge(Some(&order(Status::Pending)), None, 9, NOW), Some(Difference::OrderWithoutStock));
    }

    #[test]
    fn stock_of_no_order_is_found_once_it_should_be_back_and_a_lost_entry_at_once() {
        let tombstone = Entries { last: 5, standing: OrderState::Tombstone, items: 0, shipped: None };
        assert_eq!(judge(None, Some(&held(Phase::Bound)), 0, NOW), Some(Difference::StockWithoutOrder));
        assert_eq!(
            judge(Some(&tombstone), Some(&held(Phase::Bound)), 0, NOW),
            Some(Difference::StockWithoutOrder)
        );
        let waits = |fence, expires| HeldReservation { fence, sequence: 0, expires, ..held(Phase::Held) };
        assert_eq!(judge(Some(&tombstone), Some(&waits(5, None)), 0, NOW), None);
        assert_eq!(judge(Some(&tombstone), Some(&waits(5, Some(NOW - GRACE))), 0, NOW), None);
        let over = waits(5, Some(NOW - GRACE - 1));
        assert_eq!(judge(Some(&tombstone), Some(&over), 0, NOW), Some(Difference::StockWithoutOrder));
        assert_eq!(judge(Some(&tombstone), Some(&waits(6, None)), 0, NOW), Some(Difference::EntryLost));
        assert_eq!(judge(None, Some(&held(Phase::Shipped)), 0, NOW), Some(Difference::EntryLost));
        assert_eq!(judge(None, None, 0, NOW), None);
    }

    #[test]
    fn an_event_that_is_no_order_matters_where_stock_is_held_for_it() {
        let unreadable = Entries::unreadable(3);
        assert_eq!(judge(Some(&unreadable), Some(&held(Phase::Bound)), 0, NOW), Some(Difference::Unreadable));
        assert_eq!(judge(Some(&unreadable), Some(&held(Phase::Cancelled)), 0, NOW), None);
        assert_eq!(judge(Some(&unreadable), None, 0, NOW), None);
    }

    #[test]
    fn other_items_than_were_ordered_are_never_taken_for_its_own() {
        let other = HeldReservation { items: 8, ..held(Phase::Bound) };
        for status in [Status::Pending, Status::Shipped] {
            let found = judge(Some(&order(status)), Some(&other), 0, NOW);
            assert_eq!(found, Some(Difference::OtherItems));
        }
    }
}
