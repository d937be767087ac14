//! The headers of a request on NATS. Must not panic on input from a caller, nor allow header injection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::header::HeaderMap;
use catalog::Route;
use nats::WallClock;
use nats::header::{fixed, number, pass, put};
use telemetry::Span;
use wire::{ascii, header};

use crate::call::CallContext;

/// The headers of an attempt under this span, with `left` time. They contain both the deadline and the time left, which
/// is correct even if the service's clock is not.
pub(super) fn of(
    route: &Route,
    call: &CallContext,
    span: &Span,
    wall: WallClock,
    left: Duration,
) -> HeaderMap {
    let mut headers = of_event(route, call, span);
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let deadline = wall.unix_ms().saturating_add(left);
    number(&mut headers, header::REQUEST_DEADLINE, deadline);
    number(&mut headers, header::REQUEST_TIMEOUT, left);
    if span.traced() {
        number(&mut headers, header::REQUEST_SENT, unix_us());
    }
    headers
}

/// The headers of an event: nobody answers it, so that it has no deadline.
pub(super) fn of_event(route: &Route, call: &CallContext, span: &Span) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Before ours, which replace what has their names.
    for (name, value) in &call.metadata {
        pass(&mut headers, name, value);
    }
    fixed(&mut headers, header::CONTENT_TYPE, route.content_type());
    if let Some(id) = &call.request_id {
        put(&mut headers, header::REQUEST_ID, id);
    }
    if !call.principal.is_empty() {
        put(&mut headers, header::PRINCIPAL, &call.principal);
    }
    if let Some(tenant) = call.tenant.one() {
        // Whoever decodes it has the same name: nothing is left out or replaced.
        put(&mut headers, header::TENANT, ascii::word(tenant));
    }
    for (name, value) in call.context(span) {
        put(&mut headers, name, &value);
    }
    headers
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use async_nats::header::HeaderValue;
    use tokio::time::Instant;

    use super::*;
    use crate::call::Tenancy;

    #[test]
    fn what_a_caller_wrote_never_panics_and_never_breaks_a_line() {
        let mut call = CallContext::until(Instant::now());
        call.principal = "eve\r\nNats-Expected-Stream: X".into();
        call.tenant = Tenancy::One(" Zoë\r\nPrincipal: 100% ".into());
        call.request_id = Some("fine".into());
        let headers = of(
            &crate::tests::contract().routes()[0],
            &call,
            &Span::default(),
            WallClock::default(),
            Duration::from_secs(1),
        );
        let text = |name| headers.get(name).map(HeaderValue::as_str);
        assert_eq!(text(header::PRINCIPAL), Some("eve??Nats-Expected-Stream: X"));
        assert_eq!(text(header::TENANT), Some("%20Zo%C3%AB%0D%0APrincipal:%20100%25%20"));
        assert_eq!((text(header::REQUEST_ID), text("Nats-Expected-Stream")), (Some("fine"), None));
    }
}
