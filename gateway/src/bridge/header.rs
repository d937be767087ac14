//! The headers of a request on NATS. Must never panic on what a caller wrote: a value that is no header is left out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use contract::{Route, header};
use link::Wall;
use telemetry::Span;

use crate::call::Call;

/// The headers of an attempt under this span, whose answer is of use for `left`. Both are said: the time of day, and what
/// is left of it, which is true also where the service's clock is another.
pub(super) fn of(route: &Route, call: &Call, span: &Span, wall: Wall, left: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let deadline = wall.unix_ms().saturating_add(left);
    headers.insert(HeaderName::from_static(header::REQUEST_DEADLINE), HeaderValue::from(deadline));
    headers.insert(HeaderName::from_static(header::REQUEST_TIMEOUT), HeaderValue::from(left));
    if span.traced() {
        headers.insert(HeaderName::from_static(header::REQUEST_SENT), HeaderValue::from(unix_us()));
    }
    headers.insert(HeaderName::from_static(header::CONTENT_TYPE), route.content_type());
    if let Some(id) = &call.request_id {
        put(&mut headers, header::REQUEST_ID, id);
    }
    if !call.principal.is_empty() {
        put(&mut headers, header::PRINCIPAL, &call.principal);
    }
    for (name, value) in call.context(span) {
        put(&mut headers, name, &value);
    }
    headers
}

/// Adds a header, unless the value cannot be one.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    match value.parse::<HeaderValue>() {
        Ok(value) => headers.insert(HeaderName::from_static(name), value),
        Err(_) => tracing::warn!(name, "a value that cannot be a header was left out"),
    }
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use contract::route::ALL;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn what_a_caller_wrote_never_panics_and_never_breaks_a_line() {
        let mut call = Call::until(Instant::now());
        call.principal = "eve\r\nNats-Expected-Stream: X".into();
        call.request_id = Some("fine".into());
        let headers = of(ALL[0], &call, &Span::default(), Wall::default(), Duration::from_secs(1));
        assert!(headers.get(header::PRINCIPAL).is_none());
        assert_eq!(headers.get(header::REQUEST_ID).map(HeaderValue::as_str), Some("fine"));
    }
}
