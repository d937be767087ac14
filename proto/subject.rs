//! Subjects of the record of orders, the stream ORDERS. The lock of an order is a filter over all its entries: every
//! writer has to use the same one.

use uuid::Uuid;

/// All events: type, order id.
pub const EVENTS: &str = "orders.event.*.*";
/// All tombstones: order id.
pub const TOMBSTONES: &str = "orders.fence.expired.*";

/// An event that records an order; its id follows.
pub const CREATED: &str = "orders.event.order_created.";
/// An event that changes an order; its id follows.
pub const UPDATED: &str = "orders.event.order_status_updated.";
/// A tombstone: no order was recorded before it; the id follows.
pub const TOMBSTONE: &str = "orders.fence.expired.";

/// Every entry of an order, tombstones included: the filter of its lock and of its reads.
pub fn entries(order: Uuid) -> String {
    format!("orders.*.*.{order}")
}

/// The order that a token of a subject names, if it is in canonical form: only that one matches `entries`.
pub fn order(token: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(token).ok()?;
    let mut written = Uuid::encode_buffer();
    (*id.hyphenated().encode_lower(&mut written) == *token).then_some(id)
}

/// The durable consumer of ORDERS that all workers share.
pub const CONSUMER: &str = "inventory-worker";
