//! The bridge: any route of the contract to its NATS subject and back, with deadline, attempts, headers and the
//! meaning of what comes back. It knows routes and payloads; it must never know what a payload is about.

pub(crate) mod budget;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub(crate) mod header;
mod hedge;
pub mod lane;
pub mod presence;
pub mod pulse;
mod reply;
pub mod survey;
pub mod tally;
#[cfg(test)]
mod tests;
mod usual;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::route::{Mismatch, Route, Routed};
use contract::{Delivered, Failure, Reason, nest};
use futures_util::poll;
use link::{Link, Trouble};
use prost::Message as _;
use telemetry::{Kind, Span};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use hedge::{Hedging, Outcome};
pub use lane::{Lane, Lanes, Limits};
use reply::Reply;
pub use tally::Tallies;
use tally::Tally;

use crate::call::Call;
use crate::gate::{Full, Place};
use crate::share::Shares;

/// Full jitter below this before the first repeat; doubling.
const BACKOFF: Duration = Duration::from_millis(100);
/// The most that a backoff may grow to.
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// When to come back after being turned away.
const SHED: Duration = Duration::from_millis(100);

/// Calls services behind NATS, over one connection. Clones share it.
#[derive(Clone)]
pub struct Bridge {
    link: Link,
    lanes: Arc<Lanes>,
    tallies: Tallies,
    tasks: TaskTracker,
}

/// One attempt that failed, and whether another may follow.
struct Setback {
    failure: Failure,
    again: bool,
    /// Whether a repeat is no additional load: what was sent before is lost with its connection.
    free: bool,
}

impl Bridge {
    /// A bridge over this connection. Bridges of one gateway share their lanes.
    pub fn new(link: Link, lanes: Arc<Lanes>) -> Bridge {
        let (tallies, tasks) = (Tallies::new(contract::route::ALL), TaskTracker::new());
        Bridge { link, lanes, tallies, tasks }
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What its attempts came to.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// What has to end before the process may: calls being answered, and work that outlives its caller.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Begins work that goes on to its end even when its caller leaves. A drain waits for it. What ends at once, as where
    /// there is no connection, has ended when this returns: it must not take up room until its turn comes.
    pub async fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        if poll!(work.as_mut()).is_pending() {
            self.tasks.spawn(work);
        }
    }

    /// Calls a route with a message, for its reply.
    pub async fn ask<R: Routed>(&self, request: &R, call: &Call) -> Result<R::Reply, Failure> {
        let (lane, place) = self.enter(R::ROUTE, call, Lane::enter_inside)?;
        let payload = request.to_payload().map_err(|mismatch| unfit(&mismatch))?;
        let again = || request.repeatable();
        let payload = place.judge(call.deadline, self.send(R::ROUTE, lane, payload, call, again).await)?;
        let reply =
            R::reply_from_payload(&payload).map_err(|mismatch| violated(R::ROUTE, lane, &mismatch))?;
        if reply.encoded_len() == 0 && reply::is_acknowledgement(&payload) {
            return Err(captured(R::ROUTE, lane));
        }
        Ok(reply)
    }

    /// Calls a route with a request in the protobuf encoding, for its reply in the same.
    pub async fn pass(&self, route: &'static Route, request: &[u8], call: &Call) -> Result<Vec<u8>, Failure> {
        let (lane, place) = self.enter(route, call, Lane::enter)?;
        let payload = (route.request)(request).map_err(|mismatch| unfit(&mismatch))?;
        let again = || (route.repeats)(request);
        let payload = place.judge(call.deadline, self.send(route, lane, payload, call, again).await)?;
        let reply = (route.reply)(&payload).map_err(|mismatch| violated(route, lane, &mismatch))?;
        if reply.is_empty() && reply::is_acknowledgement(&payload) {
            return Err(captured(route, lane));
        }
        Ok(reply)
    }

    /// Calls a route with a payload, for the reply's payload.
    pub async fn call(&self, route: &'static Route, payload: Vec<u8>, call: &Call) -> Result<Bytes, Failure> {
        let (lane, place) = self.enter(route, call, Lane::enter)?;
        place.judge(call.deadline, self.send(route, lane, payload, call, || route.repeatable).await)
    }

    /// A place on the route's lane. It is taken before anything is done for a call, so that an overload costs nothing.
    fn enter(
        &self,
        route: &Route,
        call: &Call,
        gate: impl FnOnce(&Lane, Option<&Arc<Shares>>) -> Result<Place, Full>,
    ) -> Result<(&Lane, Place), Failure> {
        if !self.link.connected() {
            return Err(link::failure::of_request(&Trouble::Disconnected, route.subject));
        }
        let lane = self.lanes.of(route)?;
        if lane.capturer().is_some() {
            return Err(taken(route));
        }
        let place = gate(lane, call.shares()).map_err(|full| {
            self.tally(route, |tally| tally.shed.one());
            full.failure(route.path, SHED)
        })?;
        Ok((lane, place))
    }

    fn tally(&self, route: &Route, note: impl FnOnce(&Tally)) {
        if let Some(tally) = self.tallies.of(route) {
            note(tally);
        }
    }

    /// All attempts. `again`: whether this request may be sent twice; asked where one failed that may have been done.
    async fn send(
        &self,
        route: &'static Route,
        lane: &Lane,
        payload: Vec<u8>,
        call: &Call,
        again: impl Fn() -> bool,
    ) -> Result<Bytes, Failure> {
        let enveloped = if lane.nest() { nest::call(route.subject, &payload) } else { None };
        let payload = Bytes::from(enveloped.unwrap_or(payload));
        let mut delivered = Delivered::No;
        for repeat in 0.. {
            let setback = match self.attempt(route, lane, payload.clone(), call, repeat, &again).await {
                Ok(reply) => return Ok(reply),
                Err(setback) => setback,
            };
            let harmless = setback.failure.certainty() == Delivered::No || again();
            let failure = sum(setback.failure, &mut delivered);
            let pause = link::inbox::backoff(BACKOFF, repeat, BACKOFF_MOST);
            let time = Instant::now() + pause < call.deadline;
            if !(setback.again
                && harmless
                && time
                && repeat < route.retries
                && (setback.free || lane.retry()))
            {
                return Err(failure);
            }
            tracing::debug!(route = route.path, repeat, %failure, "repeating");
            self.tally(route, |tally| tally.retries.one());
            tokio::time::sleep(pause).await;
            if call.over() {
                return Err(failure);
            }
        }
        Err(Failure::new(Reason::Internal, "the attempts have no end"))
    }

    /// One attempt.
    async fn attempt(
        &self,
        route: &'static Route,
        lane: &Lane,
        payload: Bytes,
        call: &Call,
        repeat: u32,
        again: impl Fn() -> bool,
    ) -> Result<Bytes, Setback> {
        let begun = Instant::now();
        if begun >= call.deadline {
            return Err(Setback::last(call.late(Delivered::No)));
        }
        let deadline = call.deadline.min(begun + route.timeout);
        let span = trace(route, call, repeat, 0);
        let (link, tally) = (&self.link, self.tallies.of(route));
        let hedging = Hedging { link, route, lane, tally, call, payload, repeat, begun, deadline };
        let Outcome { reply, open } = hedging.ask(&span, again).await;
        let trouble = match reply {
            Ok(message) => {
                let mut reply = reply::read(route, lane.nest(), message);
                if let Reply::Refusal(setback) = &mut reply
                    && reply::late(&setback.failure)
                {
                    // It serves nobody who refuses what has time left: no sign of life.
                    self.refused_early(route, deadline, &mut setback.failure);
                } else {
                    lane.pulse().beat();
                }
                return match reply {
                    Reply::Answer(payload) => Ok(payload),
                    Reply::Refusal(setback) => {
                        span.fail(setback.failure.reason.to_string());
                        Err(if open { setback.beside_another() } else { setback })
                    }
                    Reply::Nonsense => Err(Setback::last(violated(route, lane, &"no envelope of NestJS"))),
                };
            }
            Err(trouble) => trouble,
        };
        if span.traced() {
            span.fail(trouble.to_string());
        }
        Err(self.missed(route, lane, call, repeat, &trouble))
    }

    /// A service says that the time of an attempt is over. While it is not, one of the two clocks is off.
    fn refused_early(&self, route: &Route, deadline: Instant, failure: &mut Failure) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < crate::waits::EARLY {
            return;
        }
        self.tally(route, |tally| tally.early.one());
        failure.cause.get_or_insert_with(|| {
            let left = left.as_millis();
            format!(
                "refused as too late with {left} ms left: its clock differs from ours, or it lay in a queue"
            )
            .into()
        });
    }

    /// What an attempt without a reply comes to.
    fn missed(&self, route: &Route, lane: &Lane, call: &Call, repeat: u32, trouble: &Trouble) -> Setback {
        if matches!(trouble, Trouble::NoResponders) {
            lane.pulse().miss(Instant::now());
            self.tally(route, |tally| tally.absent.one());
        }
        if matches!(trouble, Trouble::Timeout) {
            self.tally(route, |tally| tally.timeouts.one());
        }
        let (failure, again) = match trouble {
            Trouble::Timeout if call.over() => (call.late(Delivered::Unknown), false),
            Trouble::Timeout | Trouble::Lost => {
                (link::failure::of_request(trouble, route.subject), route.repeatable)
            }
            Trouble::NoResponders => (link::failure::of_request(trouble, route.subject), true),
            // The connection was lost a moment ago, and may be back in as short a time.
            Trouble::Disconnected if repeat > 0 => (link::failure::of_request(trouble, route.subject), true),
            _ => (link::failure::of_request(trouble, route.subject), false),
        };
        Setback { failure, again, free: matches!(trouble, Trouble::Lost | Trouble::Disconnected) }
    }
}

impl Setback {
    /// No attempt follows.
    fn last(failure: Failure) -> Setback {
        Setback { failure, again: false, free: false }
    }

    /// The same, while another request of the attempt may be done.
    fn beside_another(mut self) -> Setback {
        if self.failure.certainty() == Delivered::No {
            self.failure = self.failure.delivered(Delivered::Unknown);
        }
        self
    }
}

/// The span of one request: an attempt's first, or one of its hedges.
fn trace(route: &Route, call: &Call, repeat: u32, hedge: u32) -> Span {
    if !call.span.traced() {
        return Span::default();
    }
    let span = call.span.child(format!("send {}", route.subject), Kind::Client);
    span.say("messaging.system", "nats");
    span.say("messaging.operation.type", "send");
    span.say("messaging.destination.name", route.subject);
    if repeat > 0 {
        span.say("messaging.nats.retry", i64::from(repeat));
    }
    if let Some(id) = &call.request_id {
        span.note("request.id", id);
    }
    if hedge > 0 {
        span.say("messaging.nats.hedge", i64::from(hedge));
    }
    span
}

/// A reply that does not fit its message: the service behind breaks the contract.
fn violated(route: &Route, lane: &Lane, mismatch: &dyn std::fmt::Display) -> Failure {
    let count = lane.violation();
    Failure::new(Reason::ContractViolation, format!("the service behind {} answered nonsense", route.rpc))
        .delivered(Delivered::Yes)
        .because(format_args!(
            "{}: a reply does not fit the contract ({count} so far): {mismatch}",
            route.path
        ))
}

/// A stream's acknowledgement in place of an answer: some stream captures the subject. Whether the service had the
/// request as well, nobody knows.
fn captured(route: &Route, lane: &Lane) -> Failure {
    violated(route, lane, &"JetStream acknowledged the request: a stream captures its subject")
        .delivered(Delivered::Unknown)
}

/// A stream captures the subject. Its name is the operator's, and in the log.
fn taken(route: &Route) -> Failure {
    let message =
        format!("a stream captures the subject {}, and would answer in the service's place", route.subject);
    Failure::new(Reason::SubjectCaptured, message).delivered(Delivered::No).retry_after(link::failure::RETRY)
}

fn unfit(mismatch: &Mismatch) -> Failure {
    Failure::new(Reason::InvalidRequest, format!("the message cannot be read: {mismatch}"))
        .delivered(Delivered::No)
}

/// The failure of the attempts so far: what one of them may have delivered, a later "not delivered" does not undo.
fn sum(failure: Failure, so_far: &mut Delivered) -> Failure {
    match reply::delivered(&failure) {
        Some("no") => failure.delivered(*so_far),
        Some("yes") => failure,
        _ => {
            *so_far = Delivered::Unknown;
            failure
        }
    }
}
