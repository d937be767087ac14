//! The encoding of an order's events: subjects, headers and payload, and how they are read back. Owns that layout for
//! the store and the feed. Must not depend on connections, streams or consumers.

use contract::header::{
    BAGGAGE, CONTENT_TYPE, OPERATION_ID, ORDER_CREATED_SEQUENCE, ORDER_CUSTOMER, ORDER_STATUS, REQUEST_ID,
};
use contract::orders::v1 as pb;
use contract::subject::{CREATED, TOMBSTONE, UPDATED, order};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use super::model::{Order, OrderBody};
use super::status::Status;
use bridge::call::CallContext;

/// The characters of a customer id that are percent-encoded in a header.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An event to store.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// The order after the event, as proto3 JSON.
    pub payload: Vec<u8>,
}

/// The parts of a stored message that are read here. `header` looks up a header.
pub struct Stored<'a, H> {
    /// Its subject.
    pub subject: &'a str,
    /// Its sequence.
    pub sequence: u64,
    /// Its headers.
    pub header: H,
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The order was recorded.
    Created,
    /// Its status changed.
    Updated,
}

/// The content of an event's subject and headers: enough to list and filter orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The type of the event.
    pub kind: EventKind,
    /// The order id.
    pub id: Uuid,
    /// The customer id.
    pub customer: Box<str>,
    /// The order's status after the event.
    pub status: Status,
    /// The sequence of the order's first event.
    pub first: u64,
}

/// An order's last entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Last {
    /// The order as it is.
    Order(Order),
    /// No order: a reservation under its id was given up at this sequence.
    Tombstone(u64),
}

/// A stored message that is not a valid event.
#[derive(Debug, thiserror::Error)]
#[error("entry {sequence} of the record, on subject {subject}, cannot be read: {what}")]
pub struct Unreadable {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// What is wrong.
    pub what: String,
}

/// The order in an event's payload; its id has to be `id`.
pub fn body(id: Uuid, payload: &[u8]) -> Result<OrderBody, String> {
    let order: pb::Order = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let body = OrderBody::parse(&order).map_err(|faults| format!("{faults:?}"))?;
    if body.id == id { Ok(body) } else { Err("the payload holds another order".to_owned()) }
}

impl Last {
    /// Its sequence.
    pub fn sequence(&self) -> u64 {
        match self {
            Last::Order(order) => order.last,
            Last::Tombstone(sequence) => *sequence,
        }
    }
}

impl Event {
    /// The first event of an order.
    pub fn created(body: &OrderBody, call: &CallContext) -> Result<Event, serde_json::Error> {
        Event::write(CREATED, body, None, call)
    }

    /// A later event: the order as it is after it, and the sequence of its first.
    pub fn updated(body: &OrderBody, first: u64, call: &CallContext) -> Result<Event, serde_json::Error> {
        Event::write(UPDATED, body, Some(first), call)
    }

    fn write(
        prefix: &str,
        body: &OrderBody,
        first: Option<u64>,
        call: &CallContext,
    ) -> Result<Event, serde_json::Error> {
        let mut headers = vec![
            (OPERATION_ID, Uuid::new_v4().to_string()),
            (ORDER_CUSTOMER, utf8_percent_encode(&body.customer, PLAIN).to_string()),
            (ORDER_STATUS, body.status.name().to_owned()),
            (CONTENT_TYPE, "application/json".to_owned()),
        ];
        headers.extend(first.map(|first| (ORDER_CREATED_SEQUENCE, first.to_string())));
        headers.extend(call.request_id.as_deref().map(|id| (REQUEST_ID, id.to_owned())));
        // Baggage is for the services that handle the call; it is not recorded.
        let context = call.context(&call.span).filter(|(name, _)| *name != BAGGAGE);
        headers.extend(context.map(|(name, value)| (name, value.into_owned())));
        let payload = serde_json::to_vec(&body.to_pb())?;
        Ok(Event { subject: format!("{prefix}{}", body.id), headers, payload })
    }

    /// The id by which its writer recognises it.
    pub fn operation(&self) -> &str {
        self.headers
            .iter()
            .find(|(name, _)| *name == OPERATION_ID)
            .map_or("", |(_, operation)| operation.as_str())
    }
}

impl<'a, H: Fn(&'static str) -> Option<&'a str>> Stored<'a, H> {
    /// Reads subject and headers; none for a tombstone.
    pub fn mark(&self) -> Result<Option<Mark>, Unreadable> {
        let (kind, id) = match self.place()? {
            (Some(kind), id) => (kind, id),
            (None, _) => return Ok(None),
        };
        let customer = (self.header)(ORDER_CUSTOMER)
            .and_then(|text| percent_decode_str(text).decode_utf8().ok())
            .filter(|customer| !customer.is_empty())
            .ok_or_else(|| self.unreadable("no valid customer header"))?;
        let status = (self.header)(ORDER_STATUS)
            .and_then(Status::from_name)
            .ok_or_else(|| self.unreadable("no valid status header"))?;
        Ok(Some(Mark { kind, id, customer: customer.into(), status, first: self.first(kind)? }))
    }

    /// The order after the event.
    pub fn read(&self, payload: &[u8]) -> Result<Last, Unreadable> {
        let (kind, id) = match self.place()? {
            (Some(kind), id) => (kind, id),
            (None, _) => return Ok(Last::Tombstone(self.sequence)),
        };
        let body = body(id, payload).map_err(|what| self.unreadable(what))?;
        Ok(Last::Order(Order { body, first: self.first(kind)?, last: self.sequence }))
    }

    /// The type of the event and the order id; a tombstone has no type.
    fn place(&self) -> Result<(Option<EventKind>, Uuid), Unreadable> {
        let kinds =
            [(CREATED, Some(EventKind::Created)), (UPDATED, Some(EventKind::Updated)), (TOMBSTONE, None)];
        kinds
            .into_iter()
            .find_map(|(prefix, kind)| Some((kind, self.subject.strip_prefix(prefix)?)))
            .and_then(|(kind, id)| Some((kind, order(id)?)))
            .ok_or_else(|| self.unreadable("the subject is not one of an order"))
    }

    fn first(&self, kind: EventKind) -> Result<u64, Unreadable> {
        match kind {
            EventKind::Created => Ok(self.sequence),
            EventKind::Updated => (self.header)(ORDER_CREATED_SEQUENCE)
                .and_then(|text| text.parse().ok())
                .filter(|first| (1..self.sequence).contains(first))
                .ok_or_else(|| self.unreadable("no valid header with the sequence of its first event")),
        }
    }

    fn unreadable(&self, what: impl Into<String>) -> Unreadable {
        Unreadable { sequence: self.sequence, subject: self.subject.to_owned(), what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use contract::Item;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::order::model::Moment;
    use crate::order::request::NewOrder;

    fn body(customer: &str) -> OrderBody {
        let order = NewOrder {
            id: Uuid::from_u128(9),
            request_id: "r".into(),
            made: false,
            customer: customer.into(),
            items: vec![Item { product: "lamp".into(), quantity: 1 }],
        };
        OrderBody::place(&order, Moment::now())
    }

    fn stored<'a>(event: &'a Event, sequence: u64) -> Stored<'a, impl Fn(&'static str) -> Option<&'a str>> {
        let header = move |name: &'static str| {
            event.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
        };
        Stored { subject: &event.subject, sequence, header }
    }

    #[test]
    fn both_kinds_of_events_are_read_back() {
        let call = CallContext::until(Instant::now());
        let created = Event::created(&body("Ann"), &call).unwrap();
        let order = Order { body: body("Ann"), first: 4, last: 4 };
        let Last::Order(read) = stored(&created, 4).read(&created.payload).unwrap() else { panic!() };
        assert_eq!((read.first, read.last, &read.body.customer), (4, 4, &order.body.customer));
        let shipped = body("Ann").step(Status::Shipped, "gone", Moment::now());
        let updated = Event::updated(&shipped, 4, &call).unwrap();
        let expected = Last::Order(Order { body: shipped, first: 4, last: 9 });
        assert_eq!(stored(&updated, 9).read(&updated.payload).unwrap(), expected);
        let mark = stored(&updated, 9).mark().unwrap().unwrap();
        assert_eq!((mark.kind, mark.status, mark.first), (EventKind::Updated, Status::Shipped, 4));
        assert_ne!(created.operation(), updated.operation());
    }

    #[test]
    fn what_is_no_event_is_an_error_and_never_a_panic() {
        let call = CallContext::until(Instant::now());
        let good = Event::updated(&body("Ann"), 4, &call).unwrap();
        let breaks: [fn(&mut Event); 8] = [
            |event| event.subject = "orders.event.order_deleted.x".into(),
            |event| event.subject = "orders.event.order_created.x".into(),
            |event| event.subject = format!("{UPDATED}{}", Uuid::nil()),
            |event| event.subject = format!("{UPDATED}{}", Uuid::from_u128(9).simple()),
            |event| event.subject = format!("{UPDATED}{}", Uuid::from_u128(9).urn()),
            |event| event.headers.retain(|(name, _)| *name != ORDER_CREATED_SEQUENCE),
            |event| event.payload = b"{}".to_vec(),
            |event| event.payload = b"\xff".to_vec(),
        ];
        for change in breaks {
            let mut event = good.clone();
            change(&mut event);
            assert!(stored(&event, 9).read(&event.payload).is_err());
        }
        assert!(stored(&good, 4).mark().is_err(), "created after it was updated");
        let tombstone = Event { subject: format!("{TOMBSTONE}{}", Uuid::nil()), ..good };
        assert_eq!(stored(&tombstone, 9).read(b"").unwrap(), Last::Tombstone(9));
        assert_eq!(stored(&tombstone, 9).mark().unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_customer_survives_the_header(customer in "\\PC{1,128}") {
            let event = Event::created(&body(&customer), &CallContext::until(Instant::now())).unwrap();
            let mark = stored(&event, 1).mark().unwrap().unwrap();
            prop_assert_eq!(&*mark.customer, customer.as_str());
            let value = event.headers.iter().find(|(name, _)| *name == ORDER_CUSTOMER).unwrap();
            prop_assert!(value.1.bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}
