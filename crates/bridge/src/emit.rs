//! Events: messages without a reply. Must not repeat one that a server may have.

use bytes::Bytes;
use catalog::Route;
use nats::RequestError;
use tokio::time::{Instant, timeout_at};
use wire::{Delivered, Failure, nestjs};

use crate::call::CallContext;
use crate::hedge::trace;
use crate::route_state::RouteState;
use crate::{Bridge, address, header, unfit};

impl Bridge {
    /// Publishes a request in the protobuf encoding as an event, and returns when a server has it: not that anybody
    /// received it, unless somebody has to subscribe. Events wait nowhere for a connection.
    ///
    /// # Errors
    /// The request does not fit, there is no connection, or nobody subscribes: not delivered. The connection was lost or
    /// the time was over before the server confirmed: unknown.
    pub(super) async fn emit(
        &self,
        route: &Route,
        request: &[u8],
        require_subscriber: bool,
        call: &CallContext,
    ) -> Result<Vec<u8>, Failure> {
        let (state, permit) = self.enter(route, call, RouteState::enter)?;
        let payload = route.codec.request(request).map_err(|mismatch| unfit(&mismatch))?;
        let subject = address(route, state, request, call)?;
        let enveloped = if state.nestjs() { nestjs::event(&subject, &payload) } else { None };
        let payload = Bytes::from(enveloped.unwrap_or(payload));
        if call.over() {
            return Err(call.late(Delivered::No));
        }
        let deadline = call.deadline.min(Instant::now() + route.timeout);
        let span = trace(route, call, 0, 0);
        let headers = header::of_event(route, call, &span);
        self.note(route, |metrics| metrics.attempts.increment());
        let handed = self.link.hand_over(subject, headers, payload, require_subscriber);
        let handed = timeout_at(deadline, handed).await.unwrap_or(Err(RequestError::Timeout));
        let sent = handed.map_err(|trouble| {
            span.fail(trouble.to_string());
            match trouble {
                RequestError::Timeout if call.over() => call.late(Delivered::Unknown),
                trouble => nats::failure::of_request(&trouble, route.subject.as_str()),
            }
        });
        permit.record_outcome(call.deadline, sent.map(|()| Bytes::new())).map(|_| Vec::new())
    }
}
