//! Invariants of any bytes that a service replies, and of the headers that are sent to it. Driven by the fuzzers in
//! fuzz/, and by their corpus in every test run.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::{Message, Subject};
use catalog::Route;
use telemetry::Span;
use wire::Failure;
use wire::header as names;

use super::reply::{self, Reply};
use crate::call::CallContext;

/// A service's reply: lines of headers, an empty line, and the payload; parsed for each of these routes, with the NestJS
/// envelope and without. Returns the refusals.
///
/// # Panics
/// If a refusal is a success, or an accepted reply does not match its message type.
pub fn reply(routes: &[Arc<Route>], data: &[u8]) -> Vec<Failure> {
    let end = data.windows(2).position(|window| window == b"\n\n");
    let (head, payload) = end.map_or((&b""[..], data), |end| (&data[..end], &data[end + 2..]));
    let mut headers = HeaderMap::new();
    for line in String::from_utf8_lossy(head).split('\n').take(8) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let mut refusals = Vec::new();
    for nest in [false, true] {
        for route in routes {
            let message = Message {
                subject: Subject::from_static("reply"),
                reply: None,
                payload: payload.to_vec().into(),
                headers: Some(headers.clone()),
                status: None,
                description: None,
                length: 0,
            };
            match reply::read(route, nest, message) {
                Reply::Answer(answer) => {
                    let refused = headers.get(names::SERVICE_ERROR_CODE).is_some();
                    assert!(nest || !refused, "a refusal was taken for an answer");
                    if let Ok(message) = route.codec.reply(&answer) {
                        assert!(message.len() <= 8 * answer.len() + 64, "an answer has grown");
                    }
                }
                Reply::Refusal(error) => {
                    assert_ne!(error.failure.code as i32, 0, "a refusal is no success");
                    refusals.push(error.failure);
                }
                Reply::Nonsense => assert!(nest),
            }
        }
    }
    refusals
}

/// The headers of a request contain only the characters that each of them allows.
///
/// # Panics
/// If they do not.
pub fn told(route: &Route, call: &CallContext) {
    let wall = nats::WallClock::default();
    let headers = super::header::of(route, call, &Span::default(), wall, Duration::from_secs(1));
    let is_id = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    for (name, values) in headers.iter() {
        assert_eq!(values.len(), 1, "{name} is there once");
        let value = values[0].as_str();
        let good = match AsRef::<str>::as_ref(name) {
            names::REQUEST_DEADLINE | names::REQUEST_TIMEOUT => value.bytes().all(|b| b.is_ascii_digit()),
            names::CONTENT_TYPE => value == route.content_type(),
            names::REQUEST_ID => (1..=64).contains(&value.len()) && value.bytes().all(is_id),
            names::PRINCIPAL => value.len() <= 256 && value.bytes().all(|b| b.is_ascii_graphic()),
            names::TENANT => value.len() <= 1_536 && value.bytes().all(|b| b.is_ascii_graphic()),
            names::TRACEPARENT => value.len() == 55 && value.bytes().all(is_id),
            names::TRACESTATE => value.len() <= 512 && value.bytes().all(|b| (b' '..=b'~').contains(&b)),
            names::BAGGAGE => value.bytes().all(|b| (b' '..=b'~').contains(&b) || b == b'\t'),
            _ => false,
        };
        assert!(good, "{name}: {value:?}");
    }
}
