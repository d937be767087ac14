//! Concurrency limits: how many calls of one kind may be in flight. The limit shrinks while calls are late: calls
//! beyond what can be done in time are refused at once, instead of making all calls late. Must not depend on what a
//! call does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use wire::failure::Code;
use wire::{Failure, Reason};

use crate::share::{Share, ShareKind, Shares, exceeded};

/// The initial limit; it doubles while calls end in time.
const FIRST: f64 = 256.0;
/// The limit never shrinks below this.
const LEAST: f64 = 64.0;
/// A late call that took less than this is ignored: its caller's deadline may just be short.
const PATIENT: Duration = Duration::from_millis(250);
/// Late calls closer together than this count as one.
const APART: Duration = Duration::from_millis(200);
/// A late call multiplies the limit by this.
const CUT: f64 = 0.8;
/// Above the last limit that was too large, as many calls in time as the limit raise it by this much.
const STEP: f64 = 8.0;

/// A concurrency limit, which adapts between 64 and its maximum.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    /// The slot in which callers' shares of it are counted.
    slot: ShareKind,
    inside: AtomicUsize,
    /// The current limit, rounded down, which is all that most calls need.
    room: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    most: f64,
    /// It stays what it is, but for a change of the maximum.
    fixed: bool,
    size: f64,
    /// Below this the limit grows quickly.
    careful: f64,
    last_cut: Option<Instant>,
}

/// A permit for one call. Released on drop.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<ConcurrencyLimit>,
    since: Instant,
    _share: Option<Share>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saturated {
    /// The concurrency limit is reached.
    Gate,
    /// This caller has reached its share of it.
    Share,
}

impl ConcurrencyLimit {
    /// A limit with this maximum.
    pub fn new(most: usize, slot: ShareKind) -> Arc<ConcurrencyLimit> {
        let most = most as f64;
        let state = State { most, fixed: false, size: most.min(FIRST), careful: most, last_cut: None };
        let room = AtomicUsize::new(state.size as usize);
        Arc::new(ConcurrencyLimit { slot, inside: AtomicUsize::new(0), room, state: Mutex::new(state) })
    }

    /// Changes the maximum. What was learned below it stays, and calls in flight keep their permits: while they are more
    /// than the limit, no other is let in.
    pub fn resize(&self, most: usize) {
        let most = most as f64;
        let mut state = self.state();
        if state.most == most {
            return;
        }
        // Nothing was too large so far: nothing is known against the new maximum either.
        if state.careful >= state.most {
            state.careful = most;
            state.size = if state.fixed { most } else { state.size.max(most.min(FIRST)) };
        }
        state.careful = state.careful.min(most);
        state.size = state.size.min(most);
        state.most = most;
        self.room.store(state.size as usize, Ordering::Relaxed);
    }

    /// A limit that stays what it is, for calls that last: how long they take says nothing of a queue.
    pub fn fixed(most: usize, slot: ShareKind) -> Arc<ConcurrencyLimit> {
        let (inside, room) = (AtomicUsize::new(0), AtomicUsize::new(most));
        let most = most as f64;
        let state = State { most, fixed: true, size: most, careful: most, last_cut: None };
        Arc::new(ConcurrencyLimit { slot, inside, room, state: Mutex::new(state) })
    }

    /// A permit, if one is free, within the caller's share if the caller is known.
    ///
    /// # Errors
    /// If all permits, or all of the caller's share, are taken.
    pub fn enter(self: &Arc<Self>, shares: Option<&Arc<Shares>>) -> Result<Permit, Saturated> {
        let room = self.size();
        let free = room.saturating_sub(self.inside());
        if free == 0 {
            return Err(Saturated::Gate);
        }
        let share = match shares {
            Some(shares) => Some(shares.take_fairly(self.slot, free).ok_or(Saturated::by(shares))?),
            None => None,
        };
        let one_more = |inside: usize| (inside < room).then_some(inside + 1);
        let entered = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.map_err(|_| Saturated::Gate)?;
        Ok(Permit { gate: self.clone(), since: Instant::now(), _share: share })
    }

    /// The current limit.
    pub fn size(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    /// Calls in flight.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    fn open(&self) {
        // A limit that is not used up does not need to grow.
        let full = |size: f64| self.inside() as f64 * 2.0 >= size;
        if !full(self.size() as f64) {
            return;
        }
        let mut state = self.state();
        if state.size < state.most && full(state.size) {
            let more = if state.size < state.careful { 1.0 } else { STEP / state.size };
            state.size = (state.size + more).min(state.most);
            self.room.store(state.size as usize, Ordering::Relaxed);
        }
    }

    fn cut(&self, now: Instant) {
        let mut state = self.state();
        if state.last_cut.is_some_and(|last| now.saturating_duration_since(last) < APART) {
            return;
        }
        state.last_cut = Some(now);
        // The calls in flight were too many, even if more were allowed.
        let used = state.size.min(self.inside() as f64);
        state.size = (used * CUT).max(LEAST.min(state.most));
        state.careful = state.size;
        self.room.store(state.size as usize, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Permit {
    /// Records the outcome of a call with this deadline, and returns it. A call that took more than half of its time
    /// counts as late: it indicates a growing queue.
    ///
    /// # Errors
    /// The outcome, if it is one.
    pub fn record_outcome<T>(&self, deadline: Instant, end: Result<T, Failure>) -> Result<T, Failure> {
        let now = Instant::now();
        let (took, rest) = (now - self.since, deadline.saturating_duration_since(now));
        match &end {
            Err(failure) if failure.code == Code::DeadlineExceeded || failure.is(Reason::OutcomeUnknown) => {
                self.late(now);
            }
            // There were no responders.
            Err(failure) if failure.code == Code::Unavailable => {}
            Ok(_) | Err(_) if took > rest => self.late(now),
            Ok(_) | Err(_) => self.gate.open(),
        }
        end
    }

    fn late(&self, now: Instant) {
        if now.saturating_duration_since(self.since) >= PATIENT {
            self.gate.cut(now);
        }
    }
}

impl Saturated {
    /// The kind of a refusal by a share: a connection's share, used if callers are unknown, is reported as the whole
    /// limit.
    pub fn by(shares: &Shares) -> Saturated {
        if shares.known() { Saturated::Share } else { Saturated::Gate }
    }

    /// The refusal of a call.
    pub fn failure(self, subject: &str, wait: Duration) -> Failure {
        match self {
            Saturated::Gate => {
                Failure::overloaded(subject, "concurrency limit reached (calls in flight)", wait)
            }
            Saturated::Share => {
                exceeded(format!("one caller's fair share of the calls in flight of {subject}"), wait)
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: ShareKind = ShareKind::service(0);

    fn fill(gate: &Arc<ConcurrencyLimit>) -> Vec<Permit> {
        std::iter::from_fn(|| gate.enter(None).ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_lets_in_as_many_as_fit_and_one_for_each_that_leaves() {
        let gate = ConcurrencyLimit::new(3, GET);
        let mut inside = fill(&gate);
        assert_eq!(inside.len(), 3);
        inside.pop();
        assert!(gate.enter(None).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_most_of_its_time_closes_it_and_a_quick_one_opens_it() {
        let gate = ConcurrencyLimit::new(1_000, GET);
        let inside = fill(&gate);
        assert_eq!(inside.len(), 256);
        let deadline = Instant::now() + PATIENT * 4;
        inside[0].record_outcome(deadline, Ok(())).unwrap();
        assert_eq!(gate.size(), 257);
        tokio::time::advance(PATIENT * 3).await;
        inside[0].record_outcome(deadline, Ok(())).unwrap();
        assert!(gate.size() < 256);
    }

    #[tokio::test(start_paused = true)]
    async fn late_calls_close_it_and_calls_in_time_open_it_again() {
        let gate = ConcurrencyLimit::new(300, GET);
        let inside = fill(&gate);
        tokio::time::advance(PATIENT).await;
        inside[0].late(Instant::now());
        assert_eq!(gate.size(), 204);
        drop(inside);
        for _ in 0..10_000 {
            let inside = fill(&gate);
            gate.open();
            drop(inside);
            if gate.size() == 300 {
                return;
            }
        }
        panic!("it stays at {}", gate.size());
    }

    #[tokio::test(start_paused = true)]
    async fn an_impatient_caller_and_a_burst_close_nothing_more() {
        let gate = ConcurrencyLimit::new(100, GET);
        let inside = fill(&gate);
        inside[0].late(Instant::now());
        assert_eq!(gate.size(), 100);
        tokio::time::advance(PATIENT).await;
        inside.iter().for_each(|place| place.late(Instant::now()));
        assert_eq!(gate.size(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_leaves_half_of_it_and_is_told_that_it_is_his_share() {
        let gate = ConcurrencyLimit::new(100, GET);
        let (one, two) = (Shares::of_caller(), Shares::of_caller());
        let inside: Vec<Permit> = std::iter::from_fn(|| gate.enter(Some(&one)).ok()).collect();
        assert_eq!((inside.len(), gate.enter(Some(&one)).err()), (50, Some(Saturated::Share)));
        assert!(gate.enter(Some(&two)).is_ok());
        drop(inside);
        assert_eq!((gate.inside(), one.held(GET)), (0, 0));
        let _all = fill(&gate);
        assert_eq!(gate.enter(Some(&two)).err(), Some(Saturated::Gate));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_maximum_keeps_the_calls_in_flight_and_what_was_learned() {
        let gate = ConcurrencyLimit::new(100, GET);
        let mut inside = fill(&gate);
        gate.resize(40);
        assert_eq!((gate.size(), gate.inside(), gate.enter(None).err()), (40, 100, Some(Saturated::Gate)));
        inside.truncate(39);
        inside.extend(gate.enter(None).ok());
        assert_eq!((inside.len(), gate.enter(None).err()), (40, Some(Saturated::Gate)));
        gate.resize(200);
        assert_eq!(gate.size(), 200, "nothing was too large so far");
        inside.extend(fill(&gate));
        tokio::time::advance(PATIENT).await;
        inside[199].late(Instant::now());
        assert_eq!(gate.size(), 160);
        gate.resize(300);
        assert_eq!(gate.size(), 160, "200 were too many, whatever the maximum is");
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_closes_altogether() {
        let gate = ConcurrencyLimit::new(100, GET);
        for _ in 0..100 {
            let inside = fill(&gate);
            tokio::time::advance(PATIENT).await;
            inside[0].late(Instant::now());
        }
        assert_eq!(gate.size(), 64);
    }
}
