//! Writes the entries of ORDERS: subject, headers and payload of an order's events and of tombstones. `entry` reads
//! them back. Must not append them.

use async_nats::HeaderMap;
use contract::header::{CONTENT_TYPE, OPERATION_ID, ORDER_CREATED_SEQUENCE, ORDER_CUSTOMER, ORDER_STATUS};
use contract::subject::{CREATED, TOMBSTONE, UPDATED};
use nats::header::put;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::order::OrderBody;

/// The characters of a customer id that are percent-encoded in a header.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An entry to append.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// The order after the event, as proto3 JSON; of a tombstone, the order's id.
    pub payload: Vec<u8>,
}

impl Event {
    /// The first event of an order. `context`: headers that say for which call it is written.
    ///
    /// # Errors
    ///
    /// The order cannot be encoded.
    pub fn created(
        body: &OrderBody,
        context: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Event, serde_json::Error> {
        Event::write(CREATED, body, None, context)
    }

    /// A later event: the order as it is after it, and the sequence of its first.
    ///
    /// # Errors
    ///
    /// The order cannot be encoded.
    pub fn updated(
        body: &OrderBody,
        first: u64,
        context: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Event, serde_json::Error> {
        Event::write(UPDATED, body, Some(first), context)
    }

    /// A tombstone: no order was recorded under this id before it.
    pub fn tombstone(id: Uuid) -> Event {
        let payload = format!(r#"{{"orderId":"{id}"}}"#).into_bytes();
        Event { subject: format!("{TOMBSTONE}{id}"), headers: vec![operation()], payload }
    }

    fn write(
        prefix: &str,
        body: &OrderBody,
        first: Option<u64>,
        context: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Event, serde_json::Error> {
        let mut headers = vec![
            operation(),
            (ORDER_CUSTOMER, utf8_percent_encode(&body.customer, PLAIN).to_string()),
            (ORDER_STATUS, body.status.name().to_owned()),
            (CONTENT_TYPE, "application/json".to_owned()),
        ];
        headers.extend(first.map(|first| (ORDER_CREATED_SEQUENCE, first.to_string())));
        headers.extend(context);
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

    /// Its headers, as they are sent.
    pub fn header_map(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            put(&mut headers, name, value);
        }
        headers
    }
}

fn operation() -> (&'static str, String) {
    (OPERATION_ID, Uuid::new_v4().to_string())
}
