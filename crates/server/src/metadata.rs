//! Request metadata: the deadline, the request id, the trace context and what a route lists are validated and forwarded,
//! with the authenticated caller. Nothing else is. Must not depend on what the request is.

use std::time::Duration;

use admission::Arrival;
use admission::request::margin;
use catalog::{MetadataKey, Route};
use http::{Extensions, HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Request;
use wire::metadata::{FIELD, values};
use wire::{Failure, FieldViolation, Metadata, header};

use super::baggage::Kept;
use super::headers::{REQUEST_ID, TRACEPARENT, TRACESTATE, find};
use super::origin::Origin;
use bridge::call::{CallContext, LONGEST, Limit};

/// How long a stream may last.
const STREAM: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of a forwarded tracestate; W3C requires at least 512 characters.
const TRACESTATE_MOST: usize = 512;

/// The most bytes of a call's metadata that are passed on, as HTTP/2 counts them.
const MOST: usize = 8 << 10;
const TOO_MUCH: &str = "the metadata that this rpc passes on has more than 8 KiB: send less";
/// What a value of metadata has to be that a route passes on.
const UNFIT: &str = "this metadata must be visible ASCII, and base64 if its name ends with -bin";

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Where its caller sets no deadline.
    pub(super) default: Duration,
    /// Whatever deadline its caller sets.
    pub(super) longest: Duration,
}

impl Budget {
    /// Of a call of this route. A stream lasts as long as its service and its caller want: what it may wait for has limits of
    /// its own.
    pub(super) fn of(route: &Route) -> Budget {
        match &route.kind {
            kind if kind.streams_replies() => Budget { default: STREAM, longest: STREAM },
            kind if kind.streams_requests() => Budget { default: LONGEST, longest: LONGEST },
            _ => Budget { default: route.budget(), longest: LONGEST },
        }
    }
}

/// The context of a request's call, with this budget if its caller sets no deadline.
pub fn call_of<T>(request: &Request<T>, default_budget: Duration) -> CallContext {
    let (headers, extensions) = (request.metadata().as_ref(), request.extensions());
    match extensions.get::<Origin>() {
        Some(origin) => {
            call(headers, extensions, origin, Budget { default: default_budget, longest: LONGEST })
        }
        // Every request has one. Without it the call has no caller, which would mean access to everything, so it is
        // expired.
        None => CallContext::until(Instant::now()),
    }
}

/// The same, from the parts of a request.
pub(super) fn call(
    headers: &HeaderMap,
    extensions: &Extensions,
    origin: &Origin,
    budget: Budget,
) -> CallContext {
    let Origin { arrival: Arrival { at, asked }, caller, hold, .. } = origin;
    let from = asked.map_or_else(Instant::now, |_| *at);
    let [request_id, parent, state] = find(headers, [&REQUEST_ID, &TRACEPARENT, &TRACESTATE]);
    CallContext {
        request_id: text(request_id).filter(|id| is_id(id)).map(Into::into),
        principal: caller.as_ref().map(|caller| caller.principal.clone()).unwrap_or_default(),
        tenant: caller.as_ref().map(|caller| caller.tenant.clone()).unwrap_or_default(),
        hold: hold.clone(),
        trace: trace(text(parent), text(state), extensions),
        span: extensions.get().cloned().unwrap_or_default(),
        ..within(from, own(*asked, budget))
    }
}

/// The metadata that a route passes on, by the names of its headers on NATS.
///
/// # Errors
///
/// INVALID_REQUEST, not delivered: the values that cannot be headers on NATS.
pub(super) fn listed(headers: &HeaderMap, keys: &[MetadataKey]) -> Result<Metadata, Failure> {
    let (mut found, mut faults, mut bytes) = (Metadata::new(), Vec::new(), 0);
    for key in keys {
        for value in headers.get_all(key.key()) {
            let Some(values) = values(key.key(), value.as_bytes()) else {
                faults.push(FieldViolation::new(key.key(), UNFIT));
                continue;
            };
            for value in values {
                bytes += key.header().len() + value.len() + FIELD;
                if bytes > MOST {
                    faults.push(FieldViolation::new(key.key(), TOO_MUCH));
                    return Err(Failure::invalid(faults));
                }
                found.push((key.header().into(), value.into()));
            }
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(Failure::invalid(faults)) }
}

/// The time that a call may take.
fn own(asked: Option<Duration>, Budget { default, longest }: Budget) -> (Duration, Limit) {
    match asked {
        Some(time) if time <= longest => (time.saturating_sub(margin(time)), Limit::Caller),
        Some(_) => (longest, Limit::Budget),
        None => (default, Limit::Budget),
    }
}

fn within(from: Instant, (time, limit): (Duration, Limit)) -> CallContext {
    CallContext { limit, ..CallContext::until(from + time) }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok()
}

pub(super) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// The W3C trace context, if it is valid, and the baggage entries that are forwarded.
fn trace(
    parent: Option<&str>,
    state: Option<&str>,
    extensions: &Extensions,
) -> Vec<(&'static str, Box<str>)> {
    let baggage = extensions.get::<Kept>().map(|Kept(kept)| (header::BAGGAGE, kept.clone()));
    let mut trace: Vec<_> = baggage.into_iter().collect();
    let Some(parent) = parent.filter(|parent| is_traceparent(parent)) else { return trace };
    trace.push((header::TRACEPARENT, parent.into()));
    let printable = |state: &&str| {
        (1..=TRACESTATE_MOST).contains(&state.len()) && state.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    if let Some(state) = state.filter(printable) {
        trace.push((header::TRACESTATE, state.into()));
    }
    trace
}

/// `version-trace-parent-flags` in lower-case hex: 2, 32, 16 and 2 digits; version ff and ids of zeros are invalid.
pub(super) fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let lengths = [version, trace, parent, flags].map(str::len) == [2, 32, 16, 2];
    let zero = |id: &str| id.bytes().all(|b| b == b'0');
    lengths && parts.iter().all(|part| hex(part)) && version != "ff" && !zero(trace) && !zero(parent)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use proptest::prelude::*;

    use super::super::peer::Peer;
    use super::*;

    const BUDGET: Budget = Budget { default: Duration::from_secs(20), longest: LONGEST };

    fn request(pairs: &[(&'static str, &str)], arrival: Arrival) -> Request<()> {
        let mut request = Request::new(());
        let peer = Arc::new(Peer::new(None, None, Duration::ZERO));
        request.extensions_mut().insert(Origin::new(peer, arrival));
        for (name, value) in pairs {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    fn call(pairs: &[(&'static str, &str)]) -> CallContext {
        call_of(&request(pairs, Arrival::now()), Duration::from_secs(20))
    }

    #[test]
    fn our_deadline_comes_first_then_the_last_moment_then_the_callers() {
        for (asked, ours, latest) in
            [(1, 0, 0), (10, 8, 9), (100, 95, 97), (1_000, 950, 975), (60_000, 59_750, 59_875)]
        {
            let asked = Duration::from_millis(asked);
            let millis = |(time, limit): (Duration, Limit)| (time.as_millis(), limit);
            assert_eq!(millis(own(Some(asked), BUDGET)), (ours, Limit::Caller));
            assert_eq!(admission::request::latest(asked).as_millis(), latest);
        }
    }

    #[test]
    fn a_callers_deadline_counts_from_the_headers_and_a_budget_from_the_message() {
        let (at, second) =
            (Instant::now().checked_sub(Duration::from_secs(5)).unwrap(), Duration::from_secs(1));
        for (asked, late) in [(Some(second), true), (None, false)] {
            assert_eq!(call_of(&request(&[], Arrival { at, asked }), second).over(), late, "{asked:?}");
        }
        assert!(call_of(&Request::new(()), second).over(), "nobody knows where it comes from");
    }

    #[test]
    fn the_largest_timeouts_are_capped() {
        let asked = Some(Duration::from_secs(99_999_999 * 3_600));
        assert_eq!(own(asked, BUDGET), (LONGEST, Limit::Budget));
    }

    #[test]
    fn only_what_is_well_formed_crosses() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let good = call(&[
            ("x-request-id", "a_B-9"),
            ("traceparent", parent),
            ("tracestate", "vendor=1"),
            ("nats-msg-id", "x"),
        ]);
        assert_eq!(good.request_id.as_deref(), Some("a_B-9"));
        assert_eq!(good.trace, [("traceparent", parent.into()), ("tracestate", "vendor=1".into())]);
        let zeros = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for bad in ["", "00-xyz", zeros, &parent.to_uppercase(), &parent.replace("00-", "ff-")] {
            assert!(call(&[("traceparent", bad), ("tracestate", "vendor=1")]).trace.is_empty(), "{bad:?}");
        }
        assert_eq!(call(&[("x-request-id", "a b")]).request_id, None);
        assert_eq!(call(&[("x-request-id", &"x".repeat(65))]).request_id, None);
    }

    proptest! {
        #[test]
        fn a_binary_value_passes_if_and_only_if_clients_can_decode_it(
            bytes in prop::collection::vec(any::<u8>(), 0..9),
            text in "[A-Da-d0-4+/=_é]{0,9}",
        ) {
            let taken = |text: &str| values("x-bin", text.as_bytes()).is_some();
            for encoded in [STANDARD.encode(&bytes), STANDARD_NO_PAD.encode(&bytes)] {
                prop_assert!(taken(&encoded), "{encoded}");
            }
            let decodes = STANDARD.decode(&text).is_ok() || STANDARD_NO_PAD.decode(&text).is_ok();
            prop_assert_eq!(taken(&text), decodes, "{}", text);
        }
    }
}
