//! The deadline of a request. A request carries a deadline by its sender's clock, and how much time was left when it
//! was sent. Clocks may be wrong or be set, so only differences count: the queueing time of a request is how much
//! longer it took than the fastest one of its sender on this subject. Time is an argument. Must not depend on the
//! content of requests.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Message};
use contract::header;
use foldhash::fast::RandomState;
use nats::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::{Delivered, Failure, FieldViolation, Reason};

use crate::waits::RETURN;

/// Timeout of a request without a deadline.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest timeout of any request.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// Window of the fastest request (ms); that of the window before counts as well.
const WINDOW: i64 = 60_000;
/// Messages of one sender arrive in the order in which they were sent, within this tolerance (ms).
const SLACK: i64 = 250;
/// After this time at an even pace, an apparent queue is taken for a clock that was set (ms).
const CONFIRM: i64 = 250;
/// How long the last sender's clock is used to judge a new sender (ms): after a pause, nothing suggests a queue.
const HEARD: i64 = 1_000;
/// The most senders that are remembered. Others are trusted.
const SENDERS: usize = 4_096;

/// The deadlines of the requests of one endpoint.
#[derive(Default)]
pub(super) struct Deadlines {
    begun: Option<Instant>,
    senders: Mutex<Senders>,
}

impl Deadlines {
    pub(super) fn new() -> Deadlines {
        Deadlines { begun: Some(Instant::now()), ..Deadlines::default() }
    }

    /// Until when the answer to a request that has just arrived is useful. Requests that are too late are refused
    /// before work begins.
    pub(super) fn of(&self, message: &Message, clock: &Clock) -> Result<Instant, Failure> {
        let now = Instant::now();
        let headers = message.headers.as_ref();
        let [deadline, left] =
            [header::REQUEST_DEADLINE, header::REQUEST_TIMEOUT].map(|name| number(headers, name));
        let left = match (deadline?, left?) {
            (None, None) => PATIENCE,
            (None, Some(left)) => Duration::from_millis(left),
            // If a sender gives only the time of day, no more is known.
            (Some(deadline), None) => {
                Duration::from_millis(deadline.checked_sub(clock.unix_ms()).ok_or_else(late)?)
            }
            (Some(deadline), Some(left)) => {
                let begun = self.begun.unwrap_or(now);
                let arrived = i64::try_from((now - begun).as_millis()).unwrap_or(i64::MAX);
                let sent = i64::try_from(deadline.saturating_sub(left)).unwrap_or(i64::MAX);
                let waited = self.senders().waited(sender(message), sent, arrived);
                Duration::from_millis(left.checked_sub(waited).ok_or_else(late)?)
            }
        };
        let left = left.min(LONGEST);
        if left.is_zero() { Err(late()) } else { Ok(now + left.saturating_sub(RETURN.min(left / 10))) }
    }

    fn senders(&self) -> parking_lot::MutexGuard<'_, Senders> {
        self.senders.lock()
    }
}

fn number(headers: Option<&HeaderMap>, name: &'static str) -> Result<Option<u64>, Failure> {
    let value = headers.and_then(|headers| headers.get(name)).map(HeaderValue::as_str);
    value.map(|value| value.trim().parse()).transpose().map_err(|_| {
        let unit =
            if name == header::REQUEST_DEADLINE { "a Unix time in milliseconds" } else { "milliseconds" };
        Failure::invalid(vec![FieldViolation::new(name, format!("must be {unit}"))])
    })
}

fn late() -> Failure {
    Failure::new(Reason::Timeout, "the deadline passed before the work began").delivered(Delivered::No)
}

/// The sender of a message: a connection has one inbox, whose last token is the request's own.
fn sender(message: &Message) -> &str {
    let inbox = message.reply.as_deref().unwrap_or_default();
    inbox.rsplit_once('.').map_or(inbox, |(inbox, _)| inbox)
}

/// What is known of senders' clocks. All times are in milliseconds: `sent` by the sender's clock, `arrived` by ours,
/// which is never set.
#[derive(Debug, Default)]
struct Senders {
    known: HashMap<Box<str>, Sender, RandomState>,
    /// The last arrival of all, by which a new sender is judged.
    last: Option<Sender>,
}

#[derive(Debug, Clone, Copy)]
struct Sender {
    /// The least difference between arrival and sending, of this window and the one before.
    least: [i64; 2],
    /// When this window began.
    since: i64,
    /// The last arrival, and how long it had waited.
    arrived: i64,
    waited: i64,
    /// The first of the requests that seem to have waited: arrival, sending and difference.
    doubt: Option<[i64; 3]>,
}

impl Senders {
    /// How long a request certainly waited in queues.
    fn waited(&mut self, name: &str, sent: i64, arrived: i64) -> u64 {
        let took = arrived.saturating_sub(sent);
        let mut sender = match (self.known.get(name), self.last) {
            (Some(sender), _) => *sender,
            // A new sender's clock is assumed to equal the last one's, unless the result is impossible.
            (None, Some(last)) if arrived - last.arrived <= HEARD => Sender { doubt: None, ..last },
            (None, _) => Sender::new(took, arrived),
        };
        let waited = sender.take(took, sent, arrived);
        self.last = Some(sender);
        if let Some(known) = self.known.get_mut(name) {
            *known = sender;
        } else {
            if self.known.len() >= SENDERS {
                self.known.retain(|_, sender| arrived - sender.arrived < WINDOW);
            }
            if self.known.len() >= SENDERS {
                self.known.clear();
            }
            self.known.insert(name.into(), sender);
        }
        u64::try_from(waited).unwrap_or(0)
    }
}

impl Sender {
    fn new(took: i64, arrived: i64) -> Sender {
        Sender { least: [took; 2], since: arrived, arrived, waited: 0, doubt: None }
    }

    /// Adds a message, and returns how long it waited.
    fn take(&mut self, took: i64, sent: i64, arrived: i64) -> i64 {
        if arrived - self.since >= WINDOW {
            let before = if self.least[0] == i64::MAX { self.least[1] } else { self.least[0] };
            (self.least, self.since) = ([i64::MAX, before], arrived);
        }
        let waited = took.saturating_sub(self.least[0].min(self.least[1])).max(0);
        // It was sent after the previous message, so it cannot have waited longer than since then.
        let most = (arrived - self.arrived).saturating_add(self.waited).saturating_add(SLACK);
        if waited > most || self.is_even(waited, sent, arrived) {
            // A clock was set.
            *self = Sender::new(took, arrived);
            return 0;
        }
        self.least[0] = self.least[0].min(took);
        (self.arrived, self.waited) = (arrived, waited);
        self.doubt = if waited > SLACK { self.doubt.or(Some([arrived, sent, waited])) } else { None };
        waited
    }

    /// Whether messages arrive at the pace at which they are sent, all equally late: then they do not come out of a
    /// queue, which would drain faster than it grew.
    fn is_even(&self, waited: i64, sent: i64, arrived: i64) -> bool {
        let Some([began, first, so_long]) = self.doubt else { return false };
        let (here, there) = (arrived - began, sent.saturating_sub(first));
        here >= CONFIRM && there >= here / 2 && there <= here + here / 2 && waited + SLACK >= so_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends every 20 ms from `from` to `to` with a clock that is `ahead`; each takes `way`. Returns how long the last
    /// one seems to have waited, and how many seem to have waited more than 100 ms.
    fn send(senders: &mut Senders, name: &str, [from, to]: [i64; 2], ahead: i64, way: i64) -> (u64, usize) {
        let waits = (from..to).step_by(20).map(|at| senders.waited(name, at + ahead, at + way));
        let waits: Vec<u64> = waits.collect();
        (*waits.last().unwrap(), waits.iter().filter(|wait| **wait > 100).count())
    }

    #[test]
    fn a_clock_that_is_off_is_no_queue() {
        for ahead in [-90_000_000, -10_000, 0, 10_000, 90_000_000] {
            let mut senders = Senders::default();
            assert_eq!(send(&mut senders, "a", [0, 200_000], ahead, 3), (0, 0));
        }
    }

    #[test]
    fn what_lay_in_a_queue_is_known_to_have_although_the_clock_is_off() {
        for ahead in [-10_000, 0, 10_000] {
            let mut senders = Senders::default();
            send(&mut senders, "a", [0, 1_000], ahead, 3);
            // Nothing gets through for 5 s, and then all at once.
            let waits: Vec<u64> = (1_000..6_000)
                .step_by(10)
                .map(|at| senders.waited("a", at + ahead, 6_010 + at / 1_000))
                .collect();
            let wrong = (1_000..6_000)
                .step_by(10)
                .zip(&waits)
                .filter(|(at, wait)| i64::abs_diff(6_010 - at, **wait as i64) > 20);
            assert_eq!(wrong.count(), 0, "{waits:?}");
            assert_eq!(send(&mut senders, "a", [6_100, 7_000], ahead, 3), (0, 0));
        }
    }

    #[test]
    fn gateways_with_different_clocks_are_told_apart() {
        let mut senders = Senders::default();
        for at in (0..200_000).step_by(50) {
            for (name, ahead) in [("right", 0), ("ahead", 60_000), ("behind", -3_600_000)] {
                assert_eq!(senders.waited(name, at + ahead, at + 2), 0, "{name} at {at}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_costs_little() {
        for step in [-10_000, 10_000] {
            let mut senders = Senders::default();
            send(&mut senders, "a", [0, 5_000], 0, 3);
            assert_eq!(send(&mut senders, "a", [5_000, 10_000], step, 3), (0, 0), "while requests come");
            // After a pause that a queue of this length could explain.
            let (last, wrong) = send(&mut senders, "a", [40_000, 45_000], 2 * step, 3);
            assert!(last == 0 && wrong * 20 <= CONFIRM as usize + 20, "{wrong}");
        }
    }

    #[test]
    fn a_new_gateway_is_believed_at_once_where_others_are_heard_from() {
        let mut senders = Senders::default();
        send(&mut senders, "a", [0, 5_000], 0, 3);
        assert_eq!(send(&mut senders, "b", [5_000, 9_000], -10_000, 3), (0, 0));
        let mut quiet = Senders::default();
        send(&mut quiet, "a", [0, 5_000], 0, 3);
        assert_eq!(send(&mut quiet, "b", [60_000, 65_000], -10_000, 3), (0, 0));
        // What it sent while nothing got through is recognised as late.
        let mut held = Senders::default();
        send(&mut held, "a", [0, 5_000], 0, 3);
        assert_eq!(held.waited("new", 5_100, 5_600), 497);
        assert_eq!(held.waited("new", 5_200, 5_601), 398);
    }

    #[test]
    fn clocks_that_drift_are_followed_and_senders_are_bounded() {
        let mut senders = Senders::default();
        for at in (0..3_600_000_i64).step_by(500) {
            // 100 ppm.
            assert!(senders.waited("a", at - at / 10_000, at) <= 13, "{at}");
        }
        for number in 0..3 * SENDERS {
            senders.waited(&number.to_string(), 0, 3_600_000 + number as i64);
            assert!(senders.known.len() <= SENDERS);
        }
    }
}
