//! What an audit can find, in words. Must never know how it is found.

use std::fmt;

/// Something that the server has otherwise than its answers said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Discrepancy {
    /// A placed order that cannot be read.
    Unreadable { order: String, request_id: String, why: String },
    /// A placed order with another content.
    Other { order: String, request_id: String, what: String },
    /// One order for two orders of the file.
    Shared { order: String, first: String, second: String },
    /// A placed order that the list has not.
    Unlisted { order: String, request_id: String },
    /// An order twice in the list.
    Twice { order: String },
    /// An order that was in the list before, and is not any more.
    Gone { order: String },
    /// A new order that no answer spoke of.
    Stranger { order: String, customer: String, items: usize },
    /// Reserved units grew by something else than the new orders' items.
    Reserved { product: String, before: u32, after: u32, placed: u64 },
    /// Units on hand changed.
    OnHand { product: String, before: u32, after: u32 },
    /// Stock that was set, and reads otherwise before the run.
    NotSet { product: String, wanted: u32, on_hand: u32 },
    /// More is reserved than there is.
    Oversold { product: String, on_hand: u32, reserved: u32 },
    /// Available is not what on hand and reserved leave.
    Available { product: String, on_hand: u32, reserved: u32, available: u32 },
    /// Open orders hold more than is reserved.
    Uncovered { product: String, held: u64, reserved: u32 },
}

impl Discrepancy {
    /// Whether it may go away by itself: reservations without an order expire, and the list of orders follows the
    /// record at a distance.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Discrepancy::Reserved { .. } | Discrepancy::Unlisted { .. } | Discrepancy::Uncovered { .. } => {
                true
            }
            Discrepancy::Unreadable { .. }
            | Discrepancy::Other { .. }
            | Discrepancy::Shared { .. }
            | Discrepancy::Twice { .. }
            | Discrepancy::Gone { .. }
            | Discrepancy::Stranger { .. }
            | Discrepancy::OnHand { .. }
            | Discrepancy::NotSet { .. }
            | Discrepancy::Oversold { .. }
            | Discrepancy::Available { .. } => false,
        }
    }
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Discrepancy::Unreadable { order, request_id, why } => {
                write!(f, "order {order} of request_id {request_id} cannot be read: {why}")
            }
            Discrepancy::Other { order, request_id, what } => {
                write!(f, "order {order} of request_id {request_id} has {what}")
            }
            Discrepancy::Shared { order, first, second } => {
                write!(f, "order {order} is the answer to request_id {first} and to {second}")
            }
            Discrepancy::Unlisted { order, request_id } => {
                write!(f, "order {order} of request_id {request_id} is not in the list")
            }
            Discrepancy::Twice { order } => write!(f, "order {order} is in the list more than once"),
            Discrepancy::Gone { order } => write!(f, "order {order} was in the list before the run only"),
            Discrepancy::Stranger { order, customer, items } => {
                write!(f, "order {order} (customer {customer}, {items} items) is new, and no answer named it")
            }
            Discrepancy::Reserved { product, before, after, placed } => {
                write!(
                    f,
                    "product {product}: reserved went from {before} to {after}, new orders have {placed}"
                )
            }
            Discrepancy::OnHand { product, before, after } => {
                write!(f, "product {product}: on_hand went from {before} to {after}")
            }
            Discrepancy::NotSet { product, wanted, on_hand } => {
                write!(f, "product {product}: on_hand was set to {wanted}, and read as {on_hand}")
            }
            Discrepancy::Oversold { product, on_hand, reserved } => {
                write!(f, "product {product}: {reserved} reserved of {on_hand}")
            }
            Discrepancy::Available { product, on_hand, reserved, available } => {
                write!(f, "product {product}: {available} available, with {reserved} reserved of {on_hand}")
            }
            Discrepancy::Uncovered { product, held, reserved } => {
                write!(f, "product {product}: open orders hold {held}, but {reserved} are reserved")
            }
        }
    }
}
