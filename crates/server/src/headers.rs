//! Names of metadata headers, and a look-up of several at once. Look-ups by `HeaderName` are faster than by text, which
//! has to be parsed.

use http::{HeaderMap, HeaderName, HeaderValue};
use wire::header;

pub(super) static BAGGAGE: HeaderName = HeaderName::from_static(header::BAGGAGE);
pub(super) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static(header::TRACEPARENT);
pub(super) static TRACESTATE: HeaderName = HeaderName::from_static(header::TRACESTATE);

/// The first value of each of these headers, found in one pass: a call has few headers, and mostly none of these.
pub(super) fn find<'a, const N: usize>(
    headers: &'a HeaderMap,
    names: [&HeaderName; N],
) -> [Option<&'a HeaderValue>; N] {
    let mut found = [None; N];
    for (name, value) in headers {
        if let Some(place) = names.iter().position(|wanted| *wanted == name) {
            found[place] = found[place].or(Some(value));
        }
    }
    found
}
