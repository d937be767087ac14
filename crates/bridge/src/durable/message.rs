//! One message for a stream: its subject, its payload, and what it is known by. Must not send it.

use async_nats::Subject;
use async_nats::header::HeaderValue;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use catalog::{Durable, Route};
use nats::MESSAGE_ID;
use transcode::{FieldPath, Scalar};
use wire::failure::FieldViolation;
use wire::{Failure, ascii, nestjs};

use crate::call::CallContext;
use crate::route_state::RouteState;
use crate::{address, tenant, unfit};

/// The most bytes of an id.
const ID: usize = 256;

/// A message, ready to be sent.
pub(super) struct DurableMessage {
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    /// What a stream knows it by; empty: nothing.
    pub(super) id: String,
    /// Whether the caller chose the id.
    pub(super) id_is_given: bool,
    /// The sequence that has to be the last one of the subject.
    pub(super) expected: Option<u64>,
}

impl DurableMessage {
    /// The message of a request in the protobuf encoding. `made` makes an id for a message with this condition, if the route
    /// names no field; an empty one: none.
    pub(super) fn read(
        route: &Route,
        state: &RouteState,
        durable: &Durable,
        request: &[u8],
        call: &CallContext,
        made: impl FnOnce(Option<u64>) -> String,
    ) -> Result<DurableMessage, Failure> {
        let payload = route.codec.request(request).map_err(|mismatch| unfit(&mismatch))?;
        let subject = address(route, state, request, call)?;
        let given = durable.message_id.as_ref().map(|path| id(path, request)).transpose()?;
        let expected = durable.expected_sequence.as_ref().map(|path| sequence(path, request)).transpose()?;
        let (id_is_given, expected) = (given.is_some(), expected.flatten());
        let id = match given {
            Some(given) => scoped(&route.path, tenant(route, request, call)?.as_deref(), &given),
            None => made(expected),
        };
        let enveloped = if state.nestjs() { nestjs::event(&subject, &payload) } else { None };
        let payload = Bytes::from(enveloped.unwrap_or(payload));
        Ok(DurableMessage { subject, payload, id, id_is_given, expected })
    }

    /// Whether a stream stores it once, however often it is sent.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.id.is_empty()
    }

    /// Whether this one of a stream is it.
    pub(super) fn is(&self, stored: &StreamMessage) -> bool {
        !self.id.is_empty() && stored.headers.get(MESSAGE_ID).map(HeaderValue::as_str) == Some(&*self.id)
    }
}

/// An id that no other route and no other tenant can have: neither path nor encoded text has a blank.
fn scoped(path: &str, tenant: Option<&str>, id: &str) -> String {
    let tenant = tenant.map(|tenant| format!("={}", ascii::word(tenant))).unwrap_or_default();
    format!("{path} {tenant} {}", ascii::word(id))
}

/// The field that identifies the message.
fn id(path: &FieldPath, request: &[u8]) -> Result<String, Failure> {
    let scalar = path.read(request).map_err(|error| unfit(&error))?;
    let default = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => text.is_empty(),
        Scalar::Number(number) => *number == 0 && !path.has_presence(),
        Scalar::Bool(bool) => !bool && !path.has_presence(),
        Scalar::Name(_) => false,
    };
    match scalar.filter(|scalar| !default(scalar)).map(|scalar| scalar.to_string()) {
        Some(id) if id.len() <= ID => Ok(id),
        Some(id) => {
            let length = id.len();
            Err(bad(path, format!("identifies the message, and has {length} bytes, over the limit of {ID}")))
        }
        None => Err(bad(path, "identifies the message, and has to be set")),
    }
}

/// The sequence that the last message of the subject has to have.
fn sequence(path: &FieldPath, request: &[u8]) -> Result<Option<u64>, Failure> {
    match path.read(request).map_err(|error| unfit(&error))? {
        None => Ok(None),
        Some(Scalar::Number(number)) => u64::try_from(number)
            .map(Some)
            .map_err(|_| bad(path, "is the sequence of the last message, or 0 for none, and not less")),
        Some(_) => Err(bad(path, "is no number")),
    }
}

fn bad(path: &FieldPath, why: impl Into<String>) -> Failure {
    Failure::invalid(vec![FieldViolation::new(path.path(), why)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_routes_tenants_and_ids_have_one_message_id() {
        let ids = [
            scoped("/a.B/C", None, "x"),
            scoped("/a.B/C", Some(""), "x"),
            scoped("/a.B/C", Some("t"), "x"),
            scoped("/a.B/C", Some("t x"), ""),
            scoped("/a.B/C", Some("t"), " x"),
            scoped("/a.B/C", None, "=t x"),
            scoped("/a.B/C", None, "%20x"),
            scoped("/a.B/C", None, "\u{fc}\r\n"),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "{ids:?}");
        assert!(ids.iter().all(|id| id.bytes().all(|b| (b' '..=b'~').contains(&b))), "{ids:?}");
        assert_eq!(ids[2], "/a.B/C =t x");
    }
}
