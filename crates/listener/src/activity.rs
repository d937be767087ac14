//! The state of a connection: waiting for a request, or with a request in flight, and since when. Must not depend on
//! what the request is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::credit::CallCredit;

/// Interval between two checks of the time.
const LOOK: Duration = Duration::from_millis(250);

/// A connection that has waited for less may be about to send a request.
const NEW: Duration = Duration::from_millis(500);

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until its first request begins.
    pub first: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// From the first byte of a request to the last byte of its response; `None` for no limit.
    pub request: Option<Duration>,
}

/// The state of one connection. Its holder can ask the connection to close.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    pub(crate) leave: CancellationToken,
    pub(crate) toll: Arc<CallCredit>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
    /// Requests begun.
    requests: u64,
    /// Requests in flight.
    in_hand: u32,
    /// Complete calls when it was last seen with a call in flight.
    whole: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a request.
    Waiting,
    /// A request has begun, but its head is incomplete.
    Reading,
    /// A request is in flight.
    Busy,
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It was evicted for a new connection.
    Evicted,
    /// No request arrived in time.
    Idle,
    /// A request took too long, or the client did not read the response.
    Slow,
}

impl Activity {
    pub(crate) fn new() -> Activity {
        let state = State { phase: Phase::Waiting, since: Instant::now(), requests: 0, in_hand: 0, whole: 0 };
        Activity { state: Mutex::new(state), leave: CancellationToken::new(), toll: Arc::default() }
    }

    /// Records an admitted call: it pays for its frames.
    pub fn called(&self) {
        self.toll.called();
    }

    /// Records a call that was refused unread: it pays for no frames, and costs.
    pub fn refused(&self) {
        self.toll.refused();
    }

    /// Records that a call was read: refused calls on the same connection must not block such calls.
    pub fn good(&self) {
        self.toll.good();
    }

    /// The counter of calls whose request arrived completely: each may be reset at no cost.
    pub fn whole(&self) -> &Arc<AtomicU64> {
        self.toll.whole()
    }

    /// The counter of bytes of requests that were refused before they were complete: these bytes cost.
    pub fn wasted(&self) -> &Arc<AtomicU64> {
        self.toll.wasted()
    }

    /// Records that bytes were received.
    pub(crate) fn bytes(&self) {
        let mut state = self.state();
        if state.phase == Phase::Waiting {
            (state.phase, state.since) = (Phase::Reading, Instant::now());
        }
    }

    /// Records a complete request head.
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

    /// Records that a response's last byte is ready to be sent.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.in_hand = state.in_hand.saturating_sub(1);
    }

    /// Records that all ready bytes were sent.
    pub(crate) fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Busy && state.in_hand == 0 {
            (state.phase, state.since) = (Phase::Waiting, Instant::now());
        }
    }

    /// The eviction order, smallest first: connections that keep waiting, then the oldest of the rest. A new connection
    /// does not count as waiting, or it could be closed before its request is read.
    pub(crate) fn rank(&self) -> (bool, Instant) {
        let state = self.state();
        let waits = state.phase != Phase::Busy && state.since.elapsed() >= NEW;
        (!waits, state.since)
    }

    /// Called now and then by the server with whether a call is in flight. Returns for how long there has been none,
    /// with none arriving.
    pub fn seen(&self, busy: bool) -> Duration {
        let whole = self.toll.whole().load(Ordering::Relaxed);
        let mut state = self.state();
        if busy || state.whole != whole {
            (state.since, state.whole) = (Instant::now(), whole);
        }
        state.since.elapsed()
    }

    /// For how long it has had no call; zero if one has arrived since it was last seen.
    pub(crate) fn idle(&self) -> Duration {
        let state = self.state();
        let whole = self.toll.whole().load(Ordering::Relaxed);
        if state.whole == whole { state.since.elapsed() } else { Duration::ZERO }
    }

    /// Waits until the connection is evicted.
    pub async fn evicted(&self) {
        self.leave.cancelled().await;
    }

    /// Evicts the connection.
    pub(crate) fn evict(&self) {
        self.leave.cancel();
    }

    /// Waits until a time limit is over or the connection is evicted.
    pub(crate) async fn over(&self, timeouts: Timeouts) -> CloseReason {
        let time = async {
            loop {
                if let Some(over) = self.late(timeouts) {
                    return over;
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = self.evicted() => CloseReason::Evicted,
            over = time => over,
        }
    }

    fn late(&self, timeouts: Timeouts) -> Option<CloseReason> {
        let State { phase, since, requests, .. } = *self.state();
        let (limit, over) = match phase {
            Phase::Waiting if requests == 0 => (Some(timeouts.first), CloseReason::Idle),
            Phase::Waiting => (Some(timeouts.idle), CloseReason::Idle),
            Phase::Reading | Phase::Busy => (timeouts.request, CloseReason::Slow),
        };
        limit.is_some_and(|limit| since.elapsed() >= limit).then_some(over)
    }

    /// Locks the state, for a test.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> impl Sized + '_ {
        self.state()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
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
        assert_eq!(activity.late(TIMEOUTS), Some(CloseReason::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_in_do_not_lengthen_a_requests_time() {
        let activity = Activity::new();
        for _ in 0..3 {
            activity.bytes();
            assert_eq!(activity.late(TIMEOUTS), None);
            advance(SECOND).await;
        }
        assert_eq!(activity.late(TIMEOUTS), Some(CloseReason::Slow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_not_read_takes_the_requests_time_and_one_that_is_begins_a_pause() {
        let activity = Activity::new();
        activity.bytes();
        activity.begin();
        advance(2 * SECOND).await;
        activity.end();
        advance(SECOND).await;
        assert_eq!(activity.late(TIMEOUTS), Some(CloseReason::Slow));
        activity.flushed();
        assert_eq!(activity.late(TIMEOUTS), None);
        advance(5 * SECOND).await;
        assert_eq!(activity.late(TIMEOUTS), Some(CloseReason::Idle));
    }
}
