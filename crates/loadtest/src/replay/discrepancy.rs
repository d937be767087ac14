//! The discrepancies that an audit can find, and their texts. Must not depend on how they are found.

use std::fmt;

/// A difference between the server's state and its replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Discrepancy {
    /// A placed order that cannot be read.
    Unreadable { order: String, request_id: String, why: String },
    /// A placed order with other content.
    Other { order: String, request_id: String, what: String },
    /// One order as the reply to two orders of the file.
    Shared { order: String, first: String, second: String },
    /// A placed order that is not listed.
    Unlisted { order: String, request_id: String },
    /// An order that is listed twice.
    Twice { order: String },
    /// An order that was listed before and no longer is.
    Gone { order: String },
    /// A new order that no reply named.
    Stranger { order: String, customer: String, items: usize },
    /// Reserved units grew by another amount than the new orders' items.
    Reserved { product: String, before: u32, after: u32, placed: u64 },
    /// on_hand changed.
    OnHand { product: String, before: u32, after: u32 },
    /// Stock that was set, and reads differently before the run.
    NotSet { product: String, wanted: u32, on_hand: u32 },
    /// More is reserved than on hand.
    Oversold { product: String, on_hand: u32, reserved: u32 },
    /// Available is not on hand less reserved.
    Available { product: String, on_hand: u32, reserved: u32, available: u32 },
    /// Open orders hold more units than are reserved.
    Uncovered { product: String, held: u64, reserved: u32 },
}

impl Discrepancy {
    /// Whether it may go away by itself: reservations without an order expire, and the list of orders lags behind the
    /// stream.
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
                write!(f, "order {order} is the reply to request_id {first} and to {second}")
            }
            Discrepancy::Unlisted { order, request_id } => {
                write!(f, "order {order} of request_id {request_id} is not in the list")
            }
            Discrepancy::Twice { order } => write!(f, "order {order} is in the list more than once"),
            Discrepancy::Gone { order } => {
                write!(f, "order {order} was in the list before the run, and no longer is")
            }
            Discrepancy::Stranger { order, customer, items } => {
                write!(f, "order {order} (customer {customer}, {items} items) is new, and no reply named it")
            }
            Discrepancy::Reserved { product, before, after, placed } => {
                write!(
                    f,
                    "product {product}: reserved changed from {before} to {after}, new orders have {placed}"
                )
            }
            Discrepancy::OnHand { product, before, after } => {
                write!(f, "product {product}: on_hand changed from {before} to {after}")
            }
            Discrepancy::NotSet { product, wanted, on_hand } => {
                write!(f, "product {product}: on_hand was set to {wanted}, but reads as {on_hand}")
            }
            Discrepancy::Oversold { product, on_hand, reserved } => {
                write!(f, "product {product}: {reserved} reserved of {on_hand} on hand")
            }
            Discrepancy::Available { product, on_hand, reserved, available } => {
                write!(
                    f,
                    "product {product}: {available} available, with {reserved} reserved of {on_hand} on hand"
                )
            }
            Discrepancy::Uncovered { product, held, reserved } => {
                write!(f, "product {product}: open orders hold {held}, but {reserved} are reserved")
            }
        }
    }
}
