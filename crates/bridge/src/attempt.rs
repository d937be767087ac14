//! One attempt of a call: the request, its hedges, and what its reply or silence means. Must not decide whether there is
//! another.

use async_nats::Message;
use catalog::Route;
use nats::RequestError;
use tokio::time::Instant;
use wire::{Delivered, Failure, ResponseMetadata};

use crate::call::CallContext;
use crate::failures::violated;
use crate::hedge::{Hedging, Outcome, trace};
use crate::outgoing::Outgoing;
use crate::reply::{self, AttemptError, Reply};
use crate::response;
use crate::route_state::RouteState;
use crate::{Answer, Bridge, EARLY};

impl Bridge {
    /// Makes one attempt.
    pub(super) async fn attempt(
        &self,
        route: &Route,
        state: &RouteState,
        message: Outgoing<'_>,
        call: &CallContext,
        repeat: u32,
        again: impl Fn() -> bool,
    ) -> Result<Answer, AttemptError> {
        let begun = Instant::now();
        if begun >= call.deadline {
            return Err(AttemptError::last(call.late(Delivered::No)));
        }
        let deadline = call.deadline.min(begun + route.timeout);
        let span = trace(route, call, repeat, 0);
        let (link, metrics) = (&self.link, self.counts.of(route));
        let hedging = Hedging { link, route, state, metrics, call, message, repeat, begun, deadline };
        let Outcome { reply, open } = hedging.ask(&span, again).await;
        let trouble = match reply {
            Ok(message) => {
                let metadata = self.metadata(route, &message);
                let mut reply = reply::read(route, state.nestjs(), message);
                if let Reply::Refusal(error) = &mut reply
                    && reply::late(&error.failure)
                {
                    // A service that refuses requests with time left serves nothing: this does not count as live.
                    self.refused_early(route, deadline, &mut error.failure);
                } else {
                    state.liveness().up();
                }
                return match reply {
                    Reply::Answer(payload) => Ok((payload, metadata)),
                    Reply::Refusal(error) => {
                        let error = error.with(metadata);
                        span.fail(error.failure.reason.to_string());
                        Err(if open { error.beside_another() } else { error })
                    }
                    Reply::Nonsense => Err(AttemptError::last(violated(route, state, &"no NestJS envelope"))),
                };
            }
            Err(trouble) => trouble,
        };
        if span.traced() {
            span.fail(trouble.to_string());
        }
        Err(self.missed(route, state, call, repeat, &trouble))
    }

    /// Handles a refusal as too late. If the attempt has time left, one of the two clocks is wrong.
    fn refused_early(&self, route: &Route, deadline: Instant, failure: &mut Failure) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < EARLY {
            return;
        }
        self.note(route, |metrics| metrics.early.increment());
        failure.cause.get_or_insert_with(|| {
            let left = left.as_millis();
            format!(
                "refused as too late with {left} ms left: its clock differs from the gateway's, or the request \
                 waited in a queue"
            )
            .into()
        });
    }

    /// The failure of an attempt without a reply.
    pub(super) fn missed(
        &self,
        route: &Route,
        state: &RouteState,
        call: &CallContext,
        repeat: u32,
        trouble: &RequestError,
    ) -> AttemptError {
        if matches!(trouble, RequestError::NoResponders) {
            // Nobody may be there for one subject of a template, and a caller chooses which.
            if state.fixed().is_some() {
                state.liveness().down(Instant::now());
            }
            self.note(route, |metrics| metrics.absent.increment());
        }
        if matches!(trouble, RequestError::Timeout) {
            self.note(route, |metrics| metrics.timeouts.increment());
        }
        let failed = || nats::failure::of_request(trouble, route.subject.as_str());
        let (failure, again) = match trouble {
            RequestError::Timeout if call.over() => (call.late(Delivered::Unknown), false),
            RequestError::Timeout | RequestError::Lost | RequestError::Dropped => {
                (failed(), route.repeatable)
            }
            RequestError::NoResponders => (failed(), true),
            // The connection was just lost, and may be back soon.
            RequestError::Disconnected if repeat > 0 => (failed(), true),
            _ => (failed(), false),
        };
        AttemptError {
            failure,
            again,
            free: matches!(trouble, RequestError::Lost | RequestError::Disconnected),
        }
    }

    /// The metadata of a reply that the route passes on.
    pub(crate) fn metadata(&self, route: &Route, message: &Message) -> Option<Box<ResponseMetadata>> {
        if route.metadata.reply.is_empty() {
            return None;
        }
        let (metadata, left_out) = response::read(route, message);
        if left_out > 0 {
            self.note(route, |metrics| metrics.left_out.add(left_out));
            let route = route.path.as_str();
            tracing::warn!(route, left_out, "values of a reply's metadata are not valid, or too many bytes");
        }
        (metadata != ResponseMetadata::default()).then(|| Box::new(metadata))
    }
}
