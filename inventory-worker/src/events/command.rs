//! What an entry of ORDERS asks of the stock. Pure: must not know how often an event was delivered, or what the ledger says.

use contract::orders::v1::OrderStatus;
use order_streams::entry::{DamagedEntry, Entry, EntryDamage, EntryKind};

use crate::stock::Command;

/// The most characters of the error of an event: it may contain parts of the event, and has to fit a header.
pub(super) const WORDS: usize = 512;

/// What an event requires.
#[derive(Debug)]
pub(super) enum Asked {
    Command(Command),
    Nothing,
}

/// An event that no redelivery can fix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Poison(pub(super) String);

/// The command that an event asks for. Its order may be beyond the limits of this build, and its headers are not read.
pub(super) fn asked(entry: &Entry<'_>) -> Result<Asked, Poison> {
    let (order, sequence) = (entry.id, entry.sequence);
    if entry.kind == EntryKind::Tombstone {
        return Err(poison(&EntryDamage::Subject(entry.subject().to_owned())));
    }
    match (entry.kind, entry.content()?.status()) {
        (EntryKind::Created, _) => Ok(Asked::Command(Command::Bind(order, sequence))),
        (EntryKind::Updated, OrderStatus::Cancelled | OrderStatus::Expired) => {
            Ok(Asked::Command(Command::Cancel(order, sequence)))
        }
        (EntryKind::Updated, OrderStatus::Shipped) => Ok(Asked::Command(Command::Ship(order, sequence))),
        // They do not concern the stock: DELIVERED follows SHIPPED, which has its own event.
        (EntryKind::Updated, OrderStatus::Confirmed | OrderStatus::Delivered) => Ok(Asked::Nothing),
        (kind, status) => Err(poison(&format_args!("{} with {}", kind.name(), status.as_str_name()))),
    }
}

impl From<DamagedEntry> for Poison {
    fn from(entry: DamagedEntry) -> Poison {
        poison(&entry.damage)
    }
}

fn poison(why: &dyn std::fmt::Display) -> Poison {
    Poison(why.to_string().chars().take(WORDS).collect())
}

#[cfg(test)]
mod tests {
    use contract::orders::v1::Order;
    use uuid::Uuid;

    use super::*;

    const ID: Uuid = Uuid::from_u128(9);

    fn of(subject: &str, payload: &[u8]) -> Result<Option<Command>, String> {
        let entry = Entry::parse(9, subject, None, payload);
        match entry.map_err(Poison::from).and_then(|entry| asked(&entry)) {
            Ok(Asked::Command(command)) => Ok(Some(command)),
            Ok(Asked::Nothing) => Ok(None),
            Err(Poison(why)) => Err(why),
        }
    }

    fn with(kind: &str, status: OrderStatus) -> Result<Option<Command>, String> {
        let order = Order { order_id: ID.to_string(), status: status.into(), ..Order::default() };
        of(&format!("orders.event.{kind}.{ID}"), &serde_json::to_vec(&order).unwrap())
    }

    #[test]
    fn an_order_binds_its_reservation_whatever_else_it_holds() {
        for status in [OrderStatus::Unspecified, OrderStatus::Pending, OrderStatus::Cancelled] {
            assert!(matches!(with("order_created", status), Ok(Some(Command::Bind(ID, 9)))));
        }
    }

    #[test]
    fn a_change_of_status_moves_the_stock_or_does_not_concern_it() {
        let updated = |status| with("order_status_updated", status);
        for status in [OrderStatus::Cancelled, OrderStatus::Expired] {
            assert!(matches!(updated(status), Ok(Some(Command::Cancel(ID, 9)))));
        }
        assert!(matches!(updated(OrderStatus::Shipped), Ok(Some(Command::Ship(ID, 9)))));
        for status in [OrderStatus::Confirmed, OrderStatus::Delivered] {
            assert!(matches!(updated(status), Ok(None)));
        }
    }

    #[test]
    fn what_a_dead_letter_says_is_what_is_wrong_with_its_event() {
        let says = |found: Result<Option<Command>, String>| found.unwrap_err();
        let pending = with("order_status_updated", OrderStatus::Pending);
        assert_eq!(says(pending), "order_status_updated with ORDER_STATUS_PENDING");
        let unknown = with("order_noted", OrderStatus::Shipped);
        assert_eq!(says(unknown), "order_noted with ORDER_STATUS_SHIPPED");
        let created = format!("orders.event.order_created.{ID}");
        assert!(says(of(&created, b"{nonsense")).starts_with("not an order: "));
        let other = says(of(&created, br#"{"orderId":"x"}"#));
        assert_eq!(other, format!("the subject names {ID}, the event x"));
        for subject in ["orders.event.order_created.x".to_owned(), format!("orders.fence.expired.{ID}")] {
            assert_eq!(says(of(&subject, b"{}")), format!("the subject names no order: {subject}"));
        }
    }
}
