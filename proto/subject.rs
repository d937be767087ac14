//! Subjects of the record of orders, the stream ORDERS. Its lock is a filter over all entries of an order: whoever
//! writes there has to write it the same way.

use uuid::Uuid;

/// Subjects of events: type, order id.
pub const EVENTS: &str = "orders.event.*.*";
/// Subjects of tombstones: order id.
pub const FENCES: &str = "orders.fence.expired.*";

/// Where an event of this type (`order_created`, `order_status_updated`) is stored.
pub fn event(kind: &str, order: Uuid) -> String {
    format!("orders.event.{kind}.{order}")
}

/// Where a tombstone is stored: no order was recorded before it.
pub fn fence(order: Uuid) -> String {
    format!("orders.fence.expired.{order}")
}

/// Every entry of an order: its events and tombstones.
pub fn entries(order: Uuid) -> String {
    format!("orders.*.*.{order}")
}

/// Whether an entry on this subject is a tombstone.
pub fn is_fence(subject: &str) -> bool {
    subject.starts_with("orders.fence.")
}
