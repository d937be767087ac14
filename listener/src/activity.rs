//! What a connection does: it waits for a request, or a request is in hand, and since when. Must never know what the
//! request is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::toll::Toll;

/// Between two looks at the time.
const LOOK: Duration = Duration::from_millis(250);

/// One that has waited for less may be about to speak.
const NEW: Duration = Duration::from_millis(500);

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until its first request begins.
    pub first: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// From the first byte of a request to the last of its response; none: as long as it takes.
    pub request: Option<Duration>,
}

/// What one connection does. Whoever holds it may ask the connection to leave.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    pub(crate) leave: CancellationToken,
    pub(crate) toll: Arc<Toll>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
    /// Requests that were begun.
    requests: u64,
    /// Requests in hand.
    in_hand: u32,
    /// Calls that had come whole when it was last seen with one.
    whole: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for a request.
    Waiting,
    /// A request was begun, but its head is not complete.
    Reading,
    /// A request is in hand.
    Busy,
}

/// Why a connection's time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It made room for another.
    Evicted,
    /// No request came.
    Idle,
    /// A request took too long, or its answer was not taken.
    Slow,
}

impl Activity {
    pub(crate) fn new() -> Activity {
        let state = State { phase: Phase::Waiting, since: Instant::now(), requests: 0, in_hand: 0, whole: 0 };
        Activity { state: Mutex::new(state), leave: CancellationToken::new(), toll: Arc::default() }
    }

    /// A call was let in: it pays for its frames.
    pub fn called(&self) {
        self.toll.called();
    }

    /// A call was refused without being looked at: it pays for nothing, and costs.
    pub fn refused(&self) {
        self.toll.refused();
    }

    /// A call was looked at: those that are refused beside it must not stop others.
    pub fn good(&self) {
        self.toll.good();
    }

    /// Where calls whose request came whole are to be counted: each may be given up at no cost.
    pub fn whole(&self) -> &Arc<AtomicU64> {
        self.toll.whole()
    }

    /// Where the bytes of requests that were refused before they were whole are to be counted: they cost.
    pub fn wasted(&self) -> &Arc<AtomicU64> {
        self.toll.wasted()
    }

    /// Bytes came.
    pub(crate) fn bytes(&self) {
        let mut state = self.state();
        if state.phase == Phase::Waiting {
            (state.phase, state.since) = (Phase::Reading, Instant::now());
        }
    }

    /// A request's head came.
    pub(crate) fn begin(&self) {
        self.called();
        let mut state = self.state();
        state.requests += 1;
        state.in_hand += 1;
        if state.phase == Phase::Waiting {
            state.since = Instant::now();
        }
        state.phase = Phase::Busy;
    }

    /// A response's last byte is ready to be sent.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.in_hand = state.in_hand.saturating_sub(1);
    }

    /// All that was ready to be sent is sent.
    pub(crate) fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Busy && state.in_hand == 0 {
            (state.phase, state.since) = (Phase::Waiting, Instant::now());
        }
    }

    /// The smaller, the sooner it makes room for another: first those that keep waiting, and of the rest the oldest. One
    /// that has just come is not taken for waiting, or it could be closed before its request is read.
    pub(crate) fn rank(&self) -> (bool, Instant) {
        let state = self.state();
        let waits = state.phase != Phase::Busy && state.since.elapsed() >= NEW;
        (!waits, state.since)
    }

    /// Whoever serves it says now and then whether a call is in hand; returns for how long none has been, and none has
    /// come.
    pub fn seen(&self, busy: bool) -> Duration {
        let whole = self.toll.whole().load(Ordering::Relaxed);
        let mut state = self.state();
        if busy || state.whole != whole {
            (state.since, state.whole) = (Instant::now(), whole);
        }
        state.since.elapsed()
    }

    /// For how long it has had no call; not at all, if one has come since it was last seen.
    pub(crate) fn idle(&self) -> Duration {
        let state = self.state();
        let whole = self.toll.whole().load(Ordering::Relaxed);
        if state.whole == whole { state.since.elapsed() } else { Duration::ZERO }
    }

    /// Waits until it has to make room for another.
    pub async fn evicted(&self) {
        self.leave.cancelled().await;
    }

    /// Makes room for another.
    pub(crate) fn evict(&self) {
        self.leave.cancel();
    }

    /// Waits until its time is over.
    pub(crate) async fn over(&self, timeouts: Timeouts) -> Over {
        let time = async {
            loop {
                if let Some(over) = self.late(timeouts) {
                    return over;
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = self.evicted() => Over::Evicted,
            over = time => over,
        }
    }

    fn late(&self, timeouts: Timeouts) -> Option<Over> {
        let State { phase, since, requests, .. } = *self.state();
        let (limit, over) = match phase {
            Phase::Waiting if requests == 0 => (Some(timeouts.first), Over::Idle),
            Phase::Waiting => (Some(timeouts.idle), Over::Idle),
            Phase::Reading | Phase::Busy => (timeouts.request, Over::Slow),
        };
        limit.is_some_and(|limit| since.elapsed() >= limit).then_some(over)
    }

    /// Keeps others from looking at it.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> impl Sized + '_ {
        self.state()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUTS: Timeouts =
        Timeouts { first: SECOND, idle: Duration::from_secs(5), request: Some(Duration::from_secs(3)) };

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends_first() {
        let activity = Activity::new();
        assert_eq!(activity.late(TIMEOUTS), None);
        advance(SECOND).await;
        assert_eq!(activity.late(TIMEOUTS), Some(Over::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_in_do_not_lengthen_a_requests_time() {
        let activity = Activity::new();
        for _ in 0..3 {
            activity.bytes();
            assert_eq!(activity.late(TIMEOUTS), None);
            advance(SECOND).await;
        }
        assert_eq!(activity.late(TIMEOUTS), Some(Over::Slow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_not_read_takes_the_requests_time_and_one_that_is_begins_a_pause() {
        let activity = Activity::new();
        activity.bytes();
        activity.begin();
        advance(2 * SECOND).await;
        activity.end();
        advance(SECOND).await;
        assert_eq!(activity.late(TIMEOUTS), Some(Over::Slow));
        activity.flushed();
        assert_eq!(activity.late(TIMEOUTS), None);
        advance(5 * SECOND).await;
        assert_eq!(activity.late(TIMEOUTS), Some(Over::Idle));
    }
}
