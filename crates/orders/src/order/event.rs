//! The events that a call writes: an order's, with the call's request id and trace context in their headers. Must not
//! depend on connections, streams or consumers.

use contract::header::{BAGGAGE, REQUEST_ID};
use order_streams::event::Event;
use order_streams::order::OrderBody;

use bridge::call::CallContext;

/// The first event of an order.
pub fn created(body: &OrderBody, call: &CallContext) -> Result<Event, serde_json::Error> {
    Event::created(body, context(call))
}

/// A later event: the order as it is after it, and the sequence of its first.
pub fn updated(body: &OrderBody, first: u64, call: &CallContext) -> Result<Event, serde_json::Error> {
    Event::updated(body, first, context(call))
}

fn context(call: &CallContext) -> impl Iterator<Item = (&'static str, String)> {
    let request_id = call.request_id.as_deref().map(|id| (REQUEST_ID, id.to_owned()));
    // Baggage is for the services that handle the call; it is not recorded.
    let context = call.context(&call.span).filter(|(name, _)| *name != BAGGAGE);
    request_id.into_iter().chain(context.map(|(name, value)| (name, value.into_owned())))
}

#[cfg(test)]
mod tests {
    use contract::Item;
    use contract::header::{TRACEPARENT, TRACESTATE};
    use order_streams::order::Moment;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_event_names_the_call_that_wrote_it_without_its_baggage() {
        let item = Item { product: "lamp".into(), quantity: 1 };
        let body = OrderBody::new(Uuid::from_u128(9), "Ann".into(), vec![item], Moment::now());
        let trace = [(TRACEPARENT, "00-1"), (TRACESTATE, "a=b"), (BAGGAGE, "secret=1")];
        let call = CallContext {
            request_id: Some("r-1".into()),
            trace: trace.map(|(name, value)| (name, value.into())).to_vec(),
            ..CallContext::until(Instant::now())
        };
        let named = |event: Event, name| event.headers.iter().find(|(own, _)| *own == name).cloned();
        for event in [created(&body, &call).unwrap(), updated(&body, 4, &call).unwrap()] {
            let wanted = [(REQUEST_ID, "r-1"), (TRACEPARENT, "00-1"), (TRACESTATE, "a=b")];
            for (name, value) in wanted {
                assert_eq!(named(event.clone(), name), Some((name, value.to_owned())));
            }
            assert_eq!(named(event, BAGGAGE), None);
        }
    }
}
