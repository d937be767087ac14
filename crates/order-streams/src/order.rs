//! An order as recorded. An `Order` is always valid: it is made from parsed values, or from a stored event that is
//! validated again here. Must not depend on NATS or gRPC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::Item;
use contract::limits::Reader;
use contract::orders::v1 as pb;
use pbjson_types::Timestamp;
use uuid::Uuid;
use wire::FieldViolation;

use crate::status::Status;

/// The last second of the year 9999 in Unix time: the latest time that proto3 JSON can represent.
const LAST_SECOND: u64 = 253_402_300_799;

/// The content of an order, without its sequences in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderBody {
    /// The order id.
    pub id: Uuid,
    /// The customer id.
    pub customer: Box<str>,
    /// The items ordered.
    pub items: Vec<Item>,
    /// The current status.
    pub status: Status,
    /// The reason given for the status.
    pub reason: Box<str>,
    /// When it was recorded.
    pub created: Moment,
    /// When it changed last; never before `created`.
    pub updated: Moment,
}

/// An order on the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Its content.
    pub body: OrderBody,
    /// The sequence of its first event.
    pub first: u64,
    /// The sequence of its last event, which the next append has to expect.
    pub last: u64,
}

/// A point in time, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Now, by this machine's clock, in whole microseconds.
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment(Duration::new(since.as_secs(), since.subsec_micros() * 1_000))
    }

    fn from_pb(timestamp: Timestamp) -> Option<Moment> {
        let seconds = u64::try_from(timestamp.seconds).ok().filter(|seconds| *seconds <= LAST_SECOND)?;
        let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Moment(Duration::new(seconds, nanos)))
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Timestamp {
        Timestamp {
            seconds: i64::try_from(moment.0.as_secs()).unwrap_or(i64::MAX),
            // Below 10⁹ by construction.
            nanos: moment.0.subsec_nanos().cast_signed(),
        }
    }
}

impl OrderBody {
    /// A new order, recorded at `now`.
    pub fn new(id: Uuid, customer: Box<str>, items: Vec<Item>, now: Moment) -> OrderBody {
        let (status, reason) = (Status::Pending, Box::default());
        OrderBody { id, customer, items, status, reason, created: now, updated: now }
    }

    /// The order after a step that the status machine allows.
    #[must_use]
    pub fn step(&self, to: Status, reason: &str, now: Moment) -> OrderBody {
        // Another gateway's clock may have been ahead of ours.
        OrderBody { status: to, reason: reason.into(), updated: now.max(self.updated), ..self.clone() }
    }

    /// Parses a stored order.
    ///
    /// # Errors
    ///
    /// The fields that are not within the limits of the contract.
    pub fn parse(order: &pb::Order) -> Result<OrderBody, Vec<FieldViolation>> {
        let mut reader = Reader::default();
        let id = reader.order_id("order_id", &order.order_id);
        let customer = reader.customer_id("customer_id", &order.customer_id);
        let items = Item::read_all(&mut reader, "items", &order.items);
        let status = Status::from_wire(order.status);
        if status.is_none() {
            reader.fault("status", "must be a status");
        }
        let reason = reader.reason("status_reason", &order.status_reason);
        let created = moment(&mut reader, "create_time", order.create_time);
        let updated = moment(&mut reader, "update_time", order.update_time);
        if created.zip(updated).is_some_and(|(created, updated)| updated < created) {
            reader.fault("update_time", "must not be before create_time");
        }
        let body = (|| {
            let (id, customer, items, status) = (id?, customer?, items?, status?);
            Some(OrderBody {
                id,
                customer,
                items,
                status,
                reason: reason?,
                created: created?,
                updated: updated?,
            })
        })();
        reader.finish(body)
    }

    /// The order as stored, without its etag, which is its sequence in the store.
    pub fn to_pb(&self) -> pb::Order {
        pb::Order {
            order_id: self.id.to_string(),
            customer_id: self.customer.to_string(),
            items: self.items.iter().map(Into::into).collect(),
            status: self.status.to_pb().into(),
            status_reason: self.reason.to_string(),
            etag: String::new(),
            create_time: Some(self.created.into()),
            update_time: Some(self.updated.into()),
        }
    }
}

fn moment(reader: &mut Reader, field: &str, timestamp: Option<Timestamp>) -> Option<Moment> {
    let moment = timestamp.and_then(Moment::from_pb);
    if moment.is_none() {
        reader.fault(field, "must be a time from 1970 to 9999");
    }
    moment
}

impl Order {
    /// The etag: the last sequence in decimal.
    pub fn etag(&self) -> String {
        self.last.to_string()
    }
}

impl From<&Order> for pb::Order {
    fn from(order: &Order) -> pb::Order {
        pb::Order { etag: order.etag(), ..order.body.to_pb() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> OrderBody {
        let item = |product: &str| Item { product: product.into(), quantity: 2 };
        OrderBody {
            id: Uuid::from_u128(7),
            customer: "Zoë ✓".into(),
            items: vec![item("lamp"), item("desk")],
            status: Status::Confirmed,
            reason: "paid".into(),
            created: Moment(Duration::new(1_700_000_000, 5_000)),
            updated: Moment(Duration::new(1_700_000_001, 0)),
        }
    }

    #[test]
    fn an_order_is_read_back_from_what_was_written() {
        let json = serde_json::to_vec(&body().to_pb()).unwrap();
        assert_eq!(OrderBody::parse(&serde_json::from_slice(&json).unwrap()), Ok(body()));
    }

    #[test]
    fn a_stored_order_that_breaks_a_rule_is_none() {
        type Break = (&'static str, fn(&mut pb::Order));
        let breaks: [Break; 9] = [
            ("order_id", |order| order.order_id = "7".into()),
            ("customer_id", |order| order.customer_id.clear()),
            ("items", |order| order.items.clear()),
            ("items[1].product_id", |order| order.items[1].product_id = "lamp".into()),
            ("status", |order| order.status = 0),
            ("status_reason", |order| order.status_reason = "a\nb".into()),
            ("create_time", |order| order.create_time = None),
            ("update_time", |order| order.update_time = Some(Timestamp { seconds: 1, nanos: -1 })),
            ("update_time", |order| order.update_time = Some(Timestamp { seconds: 1, nanos: 0 })),
        ];
        for (field, change) in breaks {
            let mut order = body().to_pb();
            change(&mut order);
            let faults = OrderBody::parse(&order).unwrap_err();
            assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), [field]);
        }
    }

    #[test]
    fn time_never_runs_backwards() {
        let early = Moment(Duration::ZERO);
        let after = body().step(Status::Shipped, "", early);
        assert_eq!((after.created, after.updated), (body().created, body().updated));
    }
}
