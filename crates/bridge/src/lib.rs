//! The bridge: calls any route of a catalog over its NATS subject, with deadlines, attempts and headers, and
//! interprets the replies. It depends on routes and payloads. Must not depend on what a payload is about.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod attempt;
pub mod budget;
pub mod call;
pub mod concurrency;
mod control;
pub mod discovery;
mod durable;
mod emit;
mod failures;
mod flow;
#[cfg(any(test, fuzzing, feature = "fuzz"))]
pub mod fuzz;
mod header;
mod hedge;
mod latency;
mod learned;
pub mod liveness;
mod many;
mod messages;
pub mod metrics;
pub mod micro;
mod outgoing;
pub mod patience;
mod reply;
mod response;
pub mod route_state;
pub mod share;
mod storage;
mod subscribe;
#[cfg(test)]
mod tests;
pub mod token;
mod topic;
mod window;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use catalog::{Catalog, Kind, Route};
use futures_util::poll;
use nats::{Connection, RequestError};
use prost::Message;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use wire::{Delivered, Failure, Reason, ResponseMetadata, nestjs};

pub use call::{CallContext, Tenancy};
pub use control::CONTROL;
use control::Control;
pub use durable::Upload;
use failures::{captured, streams_only, sum, taken, unaddressed, unfit, violated};
pub use flow::StreamBytes;
pub use learned::{Learned, RouteStates};
pub use messages::Messages;
pub use metrics::BridgeMetrics;
use metrics::{CatalogMetrics, RouteMetrics};
use outgoing::{Outgoing, address, tenant};
use reply::AttemptError;
pub use response::Response;
pub use route_state::{Limits, RouteState};

use crate::concurrency::{Permit, Saturated};
use crate::share::Shares;
use crate::topic::Topics;

/// Upper bound of the backoff before the first retry, with full jitter; doubles with each retry.
const BACKOFF: Duration = Duration::from_millis(100);
/// Maximum of that bound.
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// The retry delay for calls that are refused.
const SHED: Duration = Duration::from_millis(100);

/// A request that is refused as too late with more than this left was refused wrongly. A service may answer until just
/// before the deadline: the workers until 200 ms before it.
pub const EARLY: Duration = Duration::from_millis(500);

/// The payload of a reply, and its metadata.
type Answer = (Bytes, Option<Box<ResponseMetadata>>);

/// Calls services over one NATS connection. Clones share it.
#[derive(Clone)]
pub struct Bridge {
    link: Connection,
    /// The connection of streams, so that their messages do not hold up replies.
    streams: Connection,
    states: Arc<RouteStates>,
    metrics: BridgeMetrics,
    /// Those of the catalog.
    counts: CatalogMetrics,
    tasks: TaskTracker,
    topics: Arc<Topics>,
}

impl Bridge {
    /// A bridge over this connection. Bridges of one gateway share the route states.
    pub fn new(link: Connection, states: Arc<RouteStates>) -> Bridge {
        let (metrics, tasks) = (BridgeMetrics::default(), TaskTracker::new());
        let counts = metrics.of(states.catalog().routes());
        Bridge { streams: link.clone(), link, states, metrics, counts, tasks, topics: Arc::default() }
    }

    /// The same for the routes of another catalog: it counts on, and its work belongs to the same drain.
    #[must_use]
    pub fn serving(&self, states: Arc<RouteStates>) -> Bridge {
        Bridge { counts: self.metrics.of(states.catalog().routes()), states, ..self.clone() }
    }

    /// The same for no route: it keeps no catalog, and can [serve](Bridge::serving) any.
    #[must_use]
    pub fn idle(&self) -> Bridge {
        self.serving(Arc::new(self.states.next(Arc::default(), [])))
    }

    /// The same for one route alone: what lasts long does not keep its catalog.
    #[must_use]
    pub fn only(&self, route: &Arc<Route>) -> Bridge {
        let counts = self.metrics.of(std::slice::from_ref(route));
        Bridge { counts, states: Arc::new(self.states.only(route)), ..self.clone() }
    }

    /// The same, with a connection of its own for streams.
    #[must_use]
    pub fn streaming_over(self, streams: Connection) -> Bridge {
        Bridge { streams, ..self }
    }

    /// Every connection, once.
    pub fn connections(&self) -> Vec<&Connection> {
        match self.link.is_same(&self.streams) {
            true => vec![&self.link],
            false => vec![&self.link, &self.streams],
        }
    }

    /// The connection of streams.
    fn streams(&self) -> &Connection {
        &self.streams
    }

    fn states(&self) -> &RouteStates {
        &self.states
    }

    /// What is served.
    pub fn catalog(&self) -> &Arc<Catalog> {
        self.states.catalog()
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.link
    }

    /// Metrics of attempts.
    pub fn metrics(&self) -> &BridgeMetrics {
        &self.metrics
    }

    /// Work that has to end before the process exits: calls being answered, and work that outlives its caller.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Spawns work that runs to completion even if its caller cancels. A drain waits for it. Work that ends
    /// immediately, for example without a connection, has ended when this returns, so it does not hold permits until it
    /// is scheduled.
    pub async fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        if poll!(work.as_mut()).is_pending() {
            self.tasks.spawn(work);
        }
    }

    /// Calls the route of the rpc at this path for the gateway's own services, within the limit for these, and reads the
    /// payload of the reply. The request's payload is made only if there is room.
    /// `repeatable`: whether the request may be sent again as it is.
    ///
    /// # Errors
    /// The service's refusal, or why there is no valid reply; `delivered` tells whether the service may have the request.
    pub async fn ask<T: Message, E: Display>(
        &self,
        path: &str,
        payload: impl FnOnce() -> Result<Vec<u8>, Failure>,
        repeatable: bool,
        call: &CallContext,
        read: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let route = self.states.route(path)?;
        let (state, permit) = self.enter(route, call, RouteState::enter_inside)?;
        let fixed = state.fixed().filter(|_| route.tenant_field.is_none());
        let subject = fixed.ok_or_else(|| unaddressed(route))?.clone();
        let sent = self.send(route, state, subject, payload()?, call, || repeatable).await;
        let (payload, _) = permit.record_outcome(call.deadline, sent)?;
        let reply = read(&payload).map_err(|mismatch| violated(route, state, &mismatch))?;
        if reply.encoded_len() == 0 && reply::is_acknowledgement(&payload) {
            return Err(captured(route, state));
        }
        Ok(reply)
    }

    /// Calls a route with a protobuf-encoded request, and returns the reply in the same encoding, with its metadata.
    ///
    /// # Errors
    /// The service's refusal, or why there is no valid reply: no connection, no responders, no place within the limits, no
    /// answer in time, a request or a reply that does not fit the route's messages. Its `delivered` tells whether
    /// the service may have the request.
    pub async fn pass(&self, route: &Route, request: &[u8], call: &CallContext) -> Result<Response, Failure> {
        match &route.kind {
            Kind::Request => {}
            Kind::Emit { require_subscriber } => {
                return self.emit(route, request, *require_subscriber, call).await.map(Response::from);
            }
            Kind::EmitDurable(durable) if durable.streams => return Err(streams_only(route)),
            Kind::EmitDurable(durable) => {
                return self.store(route, durable, request, call).await.map(Response::from);
            }
            Kind::RequestMany(_) | Kind::Subscribe(_) => return Err(streams_only(route)),
        }
        let (state, place) = self.enter(route, call, RouteState::enter)?;
        let payload = route.codec.request(request).map_err(|mismatch| unfit(&mismatch))?;
        let subject = address(route, state, request, call)?;
        let again = || route.codec.repeatable(request);
        let sent = self.send(route, state, subject, payload, call, again).await;
        let (payload, metadata) = place.record_outcome(call.deadline, sent)?;
        let message = route.codec.reply(&payload).map_err(|mismatch| violated(route, state, &mismatch))?;
        if message.is_empty() && reply::is_acknowledgement(&payload) {
            return Err(captured(route, state));
        }
        Ok(Response { message, metadata })
    }

    /// Calls a route with a payload, and returns the payload of the reply.
    #[cfg(test)]
    async fn call(&self, route: &Route, payload: Vec<u8>, call: &CallContext) -> Result<Bytes, Failure> {
        let (state, place) = self.enter(route, call, RouteState::enter)?;
        let subject = address(route, state, &[], call)?;
        let sent = self.send(route, state, subject, payload, call, || route.repeatable).await;
        place.record_outcome(call.deadline, sent).map(|(payload, _)| payload)
    }

    /// A permit of the route. It is taken before any work for a call, so that refusing an overload is cheap.
    fn enter(
        &self,
        route: &Route,
        call: &CallContext,
        gate: impl FnOnce(&RouteState, Option<&Arc<Shares>>) -> Result<Permit, Saturated>,
    ) -> Result<(&RouteState, Permit), Failure> {
        if !self.link.connected() {
            return Err(nats::failure::of_request(&RequestError::Disconnected, route.subject.as_str()));
        }
        let state = self.states.of(route)?;
        if !state.may_be_stored() && state.capturer().is_some() {
            return Err(taken(route));
        }
        let place = gate(state, call.shares()).map_err(|full| {
            self.note(route, |metrics| metrics.shed.increment());
            full.failure(&route.path, SHED)
        })?;
        Ok((state, place))
    }

    fn note(&self, route: &Route, note: impl FnOnce(&RouteMetrics)) {
        if let Some(metrics) = self.counts.of(route) {
            note(metrics);
        }
    }

    /// Sends a request, and returns the payload of its reply, with its metadata. `again`: whether this request may be sent twice; called
    /// after a failure that may have been executed.
    async fn send(
        &self,
        route: &Route,
        state: &RouteState,
        subject: Subject,
        payload: Vec<u8>,
        call: &CallContext,
        again: impl Fn() -> bool,
    ) -> Result<Answer, Failure> {
        let enveloped = if state.nestjs() { nestjs::call(&subject, &payload) } else { None };
        let control = route.cancel.then(|| Control::new(self.link.clone(), true));
        let control = control.as_ref();
        let message = Outgoing { subject, payload: Bytes::from(enveloped.unwrap_or(payload)), control };
        let attempt = |repeat| self.attempt(route, state, message.clone(), call, repeat, &again);
        let reply = self.attempts(route, state, call, &again, attempt).await;
        // The service has answered, or has no request that it could give up.
        let open = reply.as_ref().is_err_and(|failure| failure.certainty() == Delivered::Unknown);
        if let Some(control) = control.filter(|_| !open) {
            control.progress().end();
        }
        reply
    }

    /// Makes all attempts. `attempt` makes one, by its number from 0.
    async fn attempts<T, F: Future<Output = Result<T, AttemptError>>>(
        &self,
        route: &Route,
        state: &RouteState,
        call: &CallContext,
        again: impl Fn() -> bool,
        attempt: impl Fn(u32) -> F,
    ) -> Result<T, Failure> {
        let mut delivered = Delivered::No;
        for repeat in 0.. {
            let error = match attempt(repeat).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let harmless = error.failure.certainty() == Delivered::No || again();
            let failure = sum(error.failure, &mut delivered);
            let pause = nats::backoff::backoff(BACKOFF, repeat, BACKOFF_MOST);
            let time = Instant::now() + pause < call.deadline;
            if !(error.again && harmless && time && repeat < route.retries && (error.free || state.retry())) {
                return Err(failure);
            }
            tracing::debug!(route = route.path.as_str(), repeat, %failure, "retrying");
            self.note(route, |metrics| metrics.retries.increment());
            tokio::time::sleep(pause).await;
            if call.over() {
                return Err(failure);
            }
        }
        Err(Failure::new(Reason::Internal, "the number of attempts overflowed"))
    }
}
