//! One attempt's request, and the hedges that follow where it goes unanswered far longer than the route usually takes: the
//! same request again, under a reply subject of its own, while those before it stay open. The first answer counts. Must
//! never hedge what may not be done twice, nor answer an overload with more requests.

use std::pin::{Pin, pin};
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use contract::{Route, header as wire};
use futures_util::future::select_all;
use link::{Link, Trouble};
use telemetry::Span;
use tokio::time::{Instant, timeout_at};

use super::lane::Lane;
use super::tally::Tally;
use super::{header, trace, usual};
use crate::call::Call;

/// After a refusal that says nothing was done, the other requests are waited for so long: what they come to is part of it.
const OTHERS: Duration = Duration::from_secs(1);

/// What every request of an attempt has.
pub(super) struct Hedging<'a> {
    pub(super) link: &'a Link,
    pub(super) route: &'static Route,
    pub(super) lane: &'a Lane,
    pub(super) tally: Option<&'a Tally>,
    pub(super) call: &'a Call,
    pub(super) payload: Bytes,
    /// Which attempt of the call it is, from 0 on.
    pub(super) repeat: u32,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
}

/// What came of an attempt.
pub(super) struct Outcome {
    pub(super) reply: Result<Message, Trouble>,
    /// Whether another request of it is on its way, and may be done.
    pub(super) open: bool,
}

type Flight<'a> = Pin<Box<dyn Future<Output = (Instant, bool, Result<Message, Trouble>)> + Send + 'a>>;

impl<'a> Hedging<'a> {
    /// Sends the request, and waits. `again`: whether this request may be sent twice; asked when it is to be.
    pub(super) async fn ask(&self, span: &Span, again: impl Fn() -> bool) -> Outcome {
        let mut first = pin!(self.send(self.begun, span));
        let may = self.route.repeatable && self.route.retries > 0;
        // All of them fit into the attempt, however slow the route has become.
        let share = self.deadline.saturating_duration_since(self.begun) / (usual::MOST + 2);
        let patience = self.tally.filter(|_| may).and_then(|tally| tally.usual.patience());
        let patience = patience.map(|patience| patience.min(share).max(usual::FLOOR));
        let look = patience.map_or(self.deadline, |patience| self.deadline.min(self.begun + patience));
        let reply = match timeout_at(look, first.as_mut()).await {
            Ok(reply) => reply,
            Err(_) => match patience.filter(|_| look < self.deadline) {
                // In a box: it is rarely needed, and large.
                Some(patience) if again() => return Box::pin(self.hedge(first, patience)).await,
                _ => timeout_at(self.deadline, first).await.unwrap_or(Err(Trouble::Timeout)),
            },
        };
        self.note(self.begun, &reply);
        Outcome { reply, open: false }
    }

    async fn hedge(
        &self,
        first: Pin<&mut (impl Future<Output = Result<Message, Trouble>> + Send)>,
        patience: Duration,
    ) -> Outcome {
        let mut flights: Vec<Flight<'_>> = vec![Box::pin(async { (self.begun, false, first.await) })];
        let (mut trouble, mut refused) = (None, None);
        let (mut hedges, mut sent) = (0, self.begun);
        loop {
            let now = Instant::now();
            let mut look = self.deadline;
            if hedges < usual::MOST {
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
                    // The others, which somebody else may have, are soon answered as well, or better.
                    Ok(message) if turned_away(&message) && !flights.is_empty() => {
                        if refused.replace(message).is_none() {
                            look = self.deadline.min(Instant::now() + OTHERS);
                        }
                    }
                    Ok(_) => {
                        self.note(sent, &reply);
                        if hedge {
                            self.tally.inspect(|tally| tally.hedges_won.one());
                            self.lane.hedge_won();
                        }
                        return Outcome { reply, open: !flights.is_empty() };
                    }
                    // The others may be answered yet.
                    Err(why) => {
                        if hedge && matches!(why, Trouble::Lost | Trouble::Disconnected) {
                            self.lane.hedge_lost();
                        }
                        trouble = Some(worse(trouble, why));
                    }
                }
                if flights.is_empty() {
                    break;
                }
            }
            if let Some(message) = refused {
                let lost = matches!(trouble, Some(Trouble::Timeout | Trouble::Lost));
                return Outcome { reply: Ok(message), open: lost || !flights.is_empty() };
            }
            if flights.is_empty() || look >= self.deadline {
                break;
            }
        }
        let ended = flights.is_empty();
        let trouble = trouble.filter(|_| ended).unwrap_or(Trouble::Timeout);
        Outcome { reply: Err(trouble), open: false }
    }

    /// Whether another request is worth it, and the budget allows it; it is paid then.
    fn again(&self, sent: Instant, now: Instant, patience: Duration) -> bool {
        let tally = self.tally.filter(|tally| tally.signs.worth(sent, now, patience));
        let again = tally.filter(|_| self.lane.retry());
        again.inspect(|tally| tally.hedges.one()).is_some()
    }

    /// A hedge.
    async fn another(&self, number: u32) -> (Instant, bool, Result<Message, Trouble>) {
        let (sent, span) = (Instant::now(), trace(self.route, self.call, self.repeat, number));
        (sent, true, self.send(sent, &span).await)
    }

    /// One request, until the attempt's deadline as the headers have it; who waits for it ends it then.
    fn send<'s>(
        &'s self,
        now: Instant,
        span: &Span,
    ) -> impl Future<Output = Result<Message, Trouble>> + Send + use<'s, 'a> {
        let left = self.deadline.saturating_duration_since(now);
        let headers = header::of(self.route, self.call, span, self.link.clock().wall(), left);
        self.tally.inspect(|tally| tally.attempts.one());
        let subject = Subject::from_static(self.route.subject);
        self.link.exchange(subject, headers, self.payload.clone())
    }

    /// What was answered is part of what is usual; what was turned away or not answered is not.
    fn note(&self, sent: Instant, reply: &Result<Message, Trouble>) {
        let (Ok(message), Some(tally)) = (reply, self.tally) else { return };
        let now = Instant::now();
        tally.times.took(now - self.begun);
        if !turned_away(message) {
            tally.usual.took(now - sent);
            tally.signs.answered(sent);
        }
    }
}

/// Whether somebody answers, by ADR-32, that it cannot serve now, or has too much to do.
fn turned_away(message: &Message) -> bool {
    let code = message.headers.as_ref().and_then(|headers| headers.get(wire::SERVICE_ERROR_CODE));
    code.is_some_and(|code| ["503", "429"].contains(&code.as_str()))
}

/// Of two troubles, one that leaves open what was done, or else the later.
fn worse(before: Option<Trouble>, trouble: Trouble) -> Trouble {
    match before {
        Some(open @ (Trouble::Timeout | Trouble::Lost)) => open,
        _ => trouble,
    }
}
