//! The status of an order and its transitions: the whole status machine. Pure: must not know who asks or where orders
//! are stored.

use contract::orders::v1 as pb;

/// The status of an order. There is no UNSPECIFIED: an order always has a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Recorded, its stock reserved.
    Pending,
    /// Accepted.
    Confirmed,
    /// Left the warehouse.
    Shipped,
    /// Arrived.
    Delivered,
    /// Cancelled by a client.
    Cancelled,
    /// Given up by the system.
    Expired,
}

/// The effect of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The order takes the status.
    Change,
    /// The order has that status already, as when a step is repeated whose answer was lost.
    Nothing,
}

/// A step that the status machine does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IllegalTransition {
    /// The order's status.
    pub from: Status,
    /// The requested status.
    pub to: Status,
}

/// PENDING → CONFIRMED → SHIPPED → DELIVERED, and PENDING or CONFIRMED → CANCELLED.
///
/// # Errors
///
/// Any other step.
pub fn step(from: Status, to: Status) -> Result<Step, IllegalTransition> {
    use Status::{Cancelled, Confirmed, Delivered, Expired, Pending, Shipped};
    match (from, to) {
        (Pending, Pending)
        | (Confirmed, Confirmed)
        | (Shipped, Shipped)
        | (Delivered, Delivered)
        | (Cancelled, Cancelled)
        | (Expired, Expired) => Ok(Step::Nothing),
        (Pending, Confirmed | Cancelled) | (Confirmed, Shipped | Cancelled) | (Shipped, Delivered) => {
            Ok(Step::Change)
        }
        (Pending, Shipped | Delivered | Expired)
        | (Confirmed, Pending | Delivered | Expired)
        | (Shipped, Pending | Confirmed | Cancelled | Expired)
        | (Delivered, Pending | Confirmed | Shipped | Cancelled | Expired)
        | (Cancelled, Pending | Confirmed | Shipped | Delivered | Expired)
        | (Expired, Pending | Confirmed | Shipped | Delivered | Cancelled) => {
            Err(IllegalTransition { from, to })
        }
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 6] = [
        Status::Pending,
        Status::Confirmed,
        Status::Shipped,
        Status::Delivered,
        Status::Cancelled,
        Status::Expired,
    ];

    /// The status with this number on the wire; none for UNSPECIFIED and for numbers of a later contract.
    pub fn from_wire(number: i32) -> Option<Status> {
        pb::OrderStatus::try_from(number).ok().and_then(Status::from_pb)
    }

    /// The status with this name on the wire, such as `ORDER_STATUS_PENDING`.
    pub fn from_name(name: &str) -> Option<Status> {
        pb::OrderStatus::from_str_name(name).and_then(Status::from_pb)
    }

    fn from_pb(status: pb::OrderStatus) -> Option<Status> {
        match status {
            pb::OrderStatus::Unspecified => None,
            pb::OrderStatus::Pending => Some(Status::Pending),
            pb::OrderStatus::Confirmed => Some(Status::Confirmed),
            pb::OrderStatus::Shipped => Some(Status::Shipped),
            pb::OrderStatus::Delivered => Some(Status::Delivered),
            pb::OrderStatus::Cancelled => Some(Status::Cancelled),
            pb::OrderStatus::Expired => Some(Status::Expired),
        }
    }

    /// Its value on the wire.
    pub fn to_pb(self) -> pb::OrderStatus {
        match self {
            Status::Pending => pb::OrderStatus::Pending,
            Status::Confirmed => pb::OrderStatus::Confirmed,
            Status::Shipped => pb::OrderStatus::Shipped,
            Status::Delivered => pb::OrderStatus::Delivered,
            Status::Cancelled => pb::OrderStatus::Cancelled,
            Status::Expired => pb::OrderStatus::Expired,
        }
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        self.to_pb().as_str_name()
    }

    /// Its name without the enum's prefix: `PENDING`.
    pub fn word(self) -> &'static str {
        self.name().trim_start_matches("ORDER_STATUS_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_the_documented_one() {
        use Status::{Cancelled, Confirmed, Delivered, Pending, Shipped};
        let steps = [
            (Pending, Confirmed),
            (Confirmed, Shipped),
            (Shipped, Delivered),
            (Pending, Cancelled),
            (Confirmed, Cancelled),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                let expected = match (from == to, steps.contains(&(from, to))) {
                    (true, _) => Ok(Step::Nothing),
                    (false, true) => Ok(Step::Change),
                    (false, false) => Err(IllegalTransition { from, to }),
                };
                assert_eq!(step(from, to), expected, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_status_survives_both_of_its_wire_forms() {
        for status in Status::ALL {
            assert_eq!(Status::from_name(status.name()), Some(status));
            assert_eq!(Status::from_wire(status.to_pb() as i32), Some(status));
        }
        assert_eq!(Status::from_wire(0), None);
        assert_eq!(Status::from_wire(99), None);
        assert_eq!(Status::from_name("ORDER_STATUS_UNSPECIFIED"), None);
    }
}
