//! The parser of ORDERS' entries, for gateways and workers. Parses only as much of an entry as is asked for: its subject
//! says which order it is about, its headers are enough to list the order, its payload is the order after it. `event`
//! writes what is read here. Must do no I/O, and must not decide how a damaged entry is handled.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use async_nats::jetstream::message::StreamMessage;
use contract::Item;
use contract::header::{OPERATION_ID, ORDER_CREATED_SEQUENCE, ORDER_CUSTOMER, ORDER_STATUS};
use contract::limits::Reader;
use contract::orders::v1 as pb;
use contract::subject::{CREATED, TOMBSTONE, UPDATED, order};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::order::{Order, OrderBody};
use crate::status::Status;

/// The subjects of events: the kind follows, then the order id.
const EVENT: &str = "orders.event.";
/// The most characters of an entry that an error repeats.
const QUOTED: usize = 512;

/// An entry of ORDERS whose subject names its order.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// Its kind.
    pub kind: EntryKind<'a>,
    /// The order id.
    pub id: Uuid,
    subject: &'a str,
    headers: Option<&'a HeaderMap>,
    payload: &'a [u8],
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// The order was recorded.
    Created,
    /// Its status changed.
    Updated,
    /// No order: a reservation under its id was given up.
    Tombstone,
    /// An event of a kind that this build does not know.
    Unknown(&'a str),
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

/// An entry, or the part of it that was asked for, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {sequence} of the record, on subject {subject}, cannot be read: {damage}")]
pub struct DamagedEntry {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// The order that its subject names, if it names one.
    pub order: Option<Uuid>,
    /// What is wrong.
    pub damage: EntryDamage,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryDamage {
    /// Its subject is not one of an order.
    #[error("the subject names no order: {0}")]
    Subject(String),
    /// It is of a kind that this build does not know.
    #[error("{0} is no kind of event")]
    Kind(String),
    /// The header with the customer.
    #[error("no valid customer header")]
    Customer,
    /// The header with the status.
    #[error("no valid status header")]
    Status,
    /// The header that a later event has.
    #[error("no valid header with the sequence of its first event")]
    First,
    /// Its payload is not an order in JSON.
    #[error("not an order: {0}")]
    Payload(String),
    /// Its payload is another order than its subject names.
    #[error("the subject names {named}, the event {found}")]
    Other {
        /// The order id of the subject.
        named: Uuid,
        /// What the payload has as its order id.
        found: String,
    },
    /// Its items are not within the limits.
    #[error("its items are not valid")]
    Items,
    /// Fields of its order that are not within the limits.
    #[error("{0}")]
    Order(String),
}

impl EntryKind<'_> {
    /// Its name in the subject.
    pub fn name(&self) -> &str {
        match self {
            EntryKind::Created => "order_created",
            EntryKind::Updated => "order_status_updated",
            EntryKind::Tombstone => "expired",
            EntryKind::Unknown(name) => name,
        }
    }
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

impl<'a> Entry<'a> {
    /// Reads the subject.
    ///
    /// # Errors
    ///
    /// It names no order in its canonical form.
    pub fn parse(
        sequence: u64,
        subject: &'a str,
        headers: Option<&'a HeaderMap>,
        payload: &'a [u8],
    ) -> Result<Entry<'a>, DamagedEntry> {
        let known =
            [(CREATED, EntryKind::Created), (UPDATED, EntryKind::Updated), (TOMBSTONE, EntryKind::Tombstone)];
        let known = known.into_iter().find_map(|(prefix, kind)| Some((kind, subject.strip_prefix(prefix)?)));
        let unknown = || {
            let (kind, id) = subject.strip_prefix(EVENT)?.split_once('.')?;
            Some((EntryKind::Unknown(kind), id))
        };
        match known.or_else(unknown).and_then(|(kind, id)| Some((kind, order(id)?))) {
            Some((kind, id)) => Ok(Entry { sequence, kind, id, subject, headers, payload }),
            None => Err(DamagedEntry {
                sequence,
                subject: subject.to_owned(),
                order: None,
                damage: EntryDamage::Subject(quoted(subject)),
            }),
        }
    }

    /// An entry that was read on its own.
    ///
    /// # Errors
    ///
    /// As [`Entry::parse`].
    pub fn of(message: &'a StreamMessage) -> Result<Entry<'a>, DamagedEntry> {
        Entry::parse(message.sequence, &message.subject, Some(&message.headers), &message.payload)
    }

    /// Its subject.
    pub fn subject(&self) -> &'a str {
        self.subject
    }

    /// The id by which its writer recognises it, if there is one.
    pub fn operation(&self) -> Option<&'a str> {
        self.header(OPERATION_ID)
    }

    /// Reads the headers, without the payload; none for a tombstone.
    ///
    /// # Errors
    ///
    /// The headers are not those of an event, or its kind is not known.
    pub fn mark(&self) -> Result<Option<Mark>, DamagedEntry> {
        let Some(kind) = self.event()? else { return Ok(None) };
        let customer = self
            .header(ORDER_CUSTOMER)
            .and_then(|text| percent_decode_str(text).decode_utf8().ok())
            .filter(|customer| !customer.is_empty())
            .ok_or_else(|| self.damaged(EntryDamage::Customer))?;
        let status = self
            .header(ORDER_STATUS)
            .and_then(Status::from_name)
            .ok_or_else(|| self.damaged(EntryDamage::Status))?;
        Ok(Some(Mark { kind, id: self.id, customer: customer.into(), status, first: self.first()? }))
    }

    /// The sequence of the order's first event: its own, unless it is a later one.
    ///
    /// # Errors
    ///
    /// A later event has no valid header with it.
    pub fn first(&self) -> Result<u64, DamagedEntry> {
        match self.kind {
            EntryKind::Created | EntryKind::Tombstone | EntryKind::Unknown(_) => Ok(self.sequence),
            EntryKind::Updated => self
                .header(ORDER_CREATED_SEQUENCE)
                .and_then(|text| text.parse().ok())
                .filter(|first| (1..self.sequence).contains(first))
                .ok_or_else(|| self.damaged(EntryDamage::First)),
        }
    }

    /// The order in the payload, of which only the id is checked: what moves stock needs id and status alone, whatever
    /// the limits of this build are. An order without a status has UNSPECIFIED.
    ///
    /// # Errors
    ///
    /// The payload is not an order, or another one.
    pub fn content(&self) -> Result<pb::Order, DamagedEntry> {
        content(self.id, self.payload).map_err(|damage| self.damaged(damage))
    }

    /// The items of the order in the payload, and its status.
    ///
    /// # Errors
    ///
    /// As [`Entry::content`], or the items are not valid.
    pub fn items(&self) -> Result<(pb::OrderStatus, Vec<Item>), DamagedEntry> {
        let order = self.content()?;
        let mut reader = Reader::default();
        let items = Item::read_all(&mut reader, "items", &order.items);
        let items = reader.finish(items).map_err(|_| self.damaged(EntryDamage::Items))?;
        Ok((order.status(), items))
    }

    /// The order after the event, with every field checked.
    ///
    /// # Errors
    ///
    /// The entry is not a valid event.
    pub fn last(&self) -> Result<Last, DamagedEntry> {
        if self.event()?.is_none() {
            return Ok(Last::Tombstone(self.sequence));
        }
        let body = body(self.id, self.payload).map_err(|damage| self.damaged(damage))?;
        Ok(Last::Order(Order { body, first: self.first()?, last: self.sequence }))
    }

    /// The type of the event; a tombstone is none.
    fn event(&self) -> Result<Option<EventKind>, DamagedEntry> {
        match self.kind {
            EntryKind::Created => Ok(Some(EventKind::Created)),
            EntryKind::Updated => Ok(Some(EventKind::Updated)),
            EntryKind::Tombstone => Ok(None),
            EntryKind::Unknown(kind) => Err(self.damaged(EntryDamage::Kind(quoted(kind)))),
        }
    }

    fn header(&self, name: &'static str) -> Option<&'a str> {
        self.headers?.get(HeaderName::from_static(name)).map(HeaderValue::as_str)
    }

    fn damaged(&self, damage: EntryDamage) -> DamagedEntry {
        let subject = self.subject.to_owned();
        DamagedEntry { sequence: self.sequence, subject, order: Some(self.id), damage }
    }
}

/// The order in an event's payload, with every field checked; its id has to be `id`.
///
/// # Errors
///
/// The payload is not a valid order, or another one.
pub fn body(id: Uuid, payload: &[u8]) -> Result<OrderBody, EntryDamage> {
    let order = content(id, payload)?;
    OrderBody::parse(&order).map_err(|faults| EntryDamage::Order(quoted(&format!("{faults:?}"))))
}

fn content(id: Uuid, payload: &[u8]) -> Result<pb::Order, EntryDamage> {
    let order: pb::Order =
        serde_json::from_slice(payload).map_err(|error| EntryDamage::Payload(quoted(&error.to_string())))?;
    let mut reader = Reader::default();
    if reader.order_id("order_id", &order.order_id) == Some(id) {
        Ok(order)
    } else {
        Err(EntryDamage::Other { named: id, found: quoted(&order.order_id) })
    }
}

/// The beginning of a text of an entry.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

#[cfg(test)]
mod tests;
