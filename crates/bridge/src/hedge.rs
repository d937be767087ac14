//! The request of one attempt, and its hedges: if it is unanswered for far longer than the route usually takes, the
//! same request is sent again, with its own reply subject, while the earlier ones stay open. The first answer counts.
//! Must not hedge requests that may not be executed twice, nor add load in an overload.

use std::pin::{Pin, pin};
use std::time::Duration;

use async_nats::Message;
use catalog::Route;
use futures_util::future::select_all;
use nats::{Connection, RequestError};
use telemetry::{Span, SpanRole};
use tokio::time::{Instant, timeout_at};

use super::metrics::RouteMetrics;
use super::outgoing::Outgoing;
use super::route_state::RouteState;
use super::{header, latency};
use crate::call::CallContext;

/// After a refusal that did nothing, how long to wait for the other requests, whose results matter too.
const OTHERS: Duration = Duration::from_secs(1);

/// The common parameters of an attempt's requests.
pub(super) struct Hedging<'a> {
    pub(super) link: &'a Connection,
    pub(super) route: &'a Route,
    pub(super) state: &'a RouteState,
    pub(super) metrics: Option<&'a RouteMetrics>,
    pub(super) call: &'a CallContext,
    pub(super) message: Outgoing<'a>,
    /// The number of the attempt within the call, from 0.
    pub(super) repeat: u32,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
}

/// The outcome of an attempt.
pub(super) struct Outcome {
    pub(super) reply: Result<Message, RequestError>,
    /// Whether another request of it is still open, and may be executed.
    pub(super) open: bool,
}

type Flight<'a> = Pin<Box<dyn Future<Output = (Instant, bool, Result<Message, RequestError>)> + Send + 'a>>;

impl<'a> Hedging<'a> {
    /// Sends the request, and waits for the reply. `again`: whether this request may be sent twice; called before a
    /// hedge.
    pub(super) async fn ask(&self, span: &Span, again: impl Fn() -> bool) -> Outcome {
        let mut first = pin!(self.send(self.begun, span));
        let may = self.route.repeatable && self.route.retries > 0;
        // All hedges fit into the attempt, however slow the route has become.
        let share = self.deadline.saturating_duration_since(self.begun) / (latency::MOST + 2);
        let patience = self.metrics.filter(|_| may).and_then(|metrics| metrics.usual.patience());
        let patience = patience.map(|patience| patience.min(share).max(latency::FLOOR));
        let look = patience.map_or(self.deadline, |patience| self.deadline.min(self.begun + patience));
        let reply = match timeout_at(look, first.as_mut()).await {
            Ok(reply) => reply,
            Err(_) => match patience.filter(|_| look < self.deadline) {
                // Boxed, because it is large and rarely needed.
                Some(patience) if again() => return Box::pin(self.hedge(first, patience)).await,
                _ => timeout_at(self.deadline, first).await.unwrap_or(Err(RequestError::Timeout)),
            },
        };
        self.note(self.begun, &reply);
        Outcome { reply, open: false }
    }

    async fn hedge(
        &self,
        first: Pin<&mut (impl Future<Output = Result<Message, RequestError>> + Send)>,
        patience: Duration,
    ) -> Outcome {
        let mut flights: Vec<Flight<'_>> = vec![Box::pin(async { (self.begun, false, first.await) })];
        let (mut trouble, mut refused) = (None, None);
        let (mut hedges, mut sent) = (0, self.begun);
        loop {
            let now = Instant::now();
            let mut look = self.deadline;
            if hedges < latency::MOST {
                let again = self.again(sent, now, patience);
                if again {
                    (hedges, sent) = (hedges + 1, now);
                    flights.push(Box::pin(self.another(hedges)));
                }
                look = look.min(now + if again { patience } else { patience / 2 });
            }
            while let Ok(landed) = timeout_at(look, select_all(&mut flights)).await {
                let ((sent, hedge, reply), index, _) = landed;
                drop(flights.swap_remove(index));
                match reply {
                    // Another instance may answer the other requests soon, perhaps successfully.
                    Ok(message) if turned_away(&message) && !flights.is_empty() => {
                        if refused.replace(message).is_none() {
                            look = self.deadline.min(Instant::now() + OTHERS);
                        }
                    }
                    Ok(_) => {
                        self.note(sent, &reply);
                        if hedge {
                            self.metrics.inspect(|metrics| metrics.hedges_won.increment());
                            self.state.hedge_won();
                        }
                        return Outcome { reply, open: !flights.is_empty() };
                    }
                    // The others may still be answered.
                    Err(why) => {
                        if hedge && matches!(why, RequestError::Lost | RequestError::Disconnected) {
                            self.state.hedge_lost();
                        }
                        trouble = Some(worse(trouble, why));
                    }
                }
                if flights.is_empty() {
                    break;
                }
            }
            if let Some(message) = refused {
                let lost = matches!(trouble, Some(RequestError::Timeout | RequestError::Lost));
                return Outcome { reply: Ok(message), open: lost || !flights.is_empty() };
            }
            if flights.is_empty() || look >= self.deadline {
                break;
            }
        }
        let ended = flights.is_empty();
        let trouble = trouble.filter(|_| ended).unwrap_or(RequestError::Timeout);
        Outcome { reply: Err(trouble), open: false }
    }

    /// Whether another request is worthwhile; if so, it is charged to the retry budget.
    fn again(&self, sent: Instant, now: Instant, patience: Duration) -> bool {
        let metrics = self.metrics.filter(|metrics| metrics.signs.worth(sent, now, patience));
        let again = metrics.filter(|_| self.state.retry());
        again.inspect(|metrics| metrics.hedges.increment()).is_some()
    }

    /// Sends a hedge.
    async fn another(&self, number: u32) -> (Instant, bool, Result<Message, RequestError>) {
        let (sent, span) = (Instant::now(), trace(self.route, self.call, self.repeat, number));
        (sent, true, self.send(sent, &span).await)
    }

    /// Sends one request, with the attempt's deadline in its headers; the caller applies the timeout.
    fn send<'s>(
        &'s self,
        now: Instant,
        span: &Span,
    ) -> impl Future<Output = Result<Message, RequestError>> + Send + use<'s, 'a> {
        let left = self.deadline.saturating_duration_since(now);
        let mut headers = header::of(self.route, self.call, span, self.link.clock().wall(), left);
        self.metrics.inspect(|metrics| metrics.attempts.increment());
        let Outgoing { subject, payload, control } = self.message.clone();
        if let Some(control) = control {
            control.announce(&mut headers, false);
        }
        self.link.exchange(subject, headers, payload)
    }

    /// Records the reply. Only answers contribute to the usual time; refusals and missing replies do not.
    fn note(&self, sent: Instant, reply: &Result<Message, RequestError>) {
        let (Ok(message), Some(metrics)) = (reply, self.metrics) else { return };
        let now = Instant::now();
        metrics.times.observe_time(now - self.begun);
        if !turned_away(message) {
            metrics.usual.took(now - sent);
            metrics.signs.answered(sent);
        }
    }
}

/// The span of one request: the first of an attempt, or a hedge.
pub(super) fn trace(route: &Route, call: &CallContext, repeat: u32, hedge: u32) -> Span {
    if !call.span.traced() {
        return Span::default();
    }
    let span = call.span.child(format!("send {}", route.subject), SpanRole::Client);
    span.say("messaging.system", "nats");
    span.say("messaging.operation.type", "send");
    span.say("messaging.destination.name", route.subject.to_string());
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

/// Whether a service replies, per ADR-32, that it is unavailable or overloaded.
fn turned_away(message: &Message) -> bool {
    let code = message.headers.as_ref().and_then(|headers| headers.get(wire::header::SERVICE_ERROR_CODE));
    code.is_some_and(|code| ["503", "429"].contains(&code.as_str()))
}

/// Of two errors, the one that leaves the outcome unknown, otherwise the later.
fn worse(before: Option<RequestError>, trouble: RequestError) -> RequestError {
    match before {
        Some(open @ (RequestError::Timeout | RequestError::Lost)) => open,
        _ => trouble,
    }
}
