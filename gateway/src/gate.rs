//! Gates: how many calls of one kind may be in hand. A gate closes further while calls end late: what is more than can
//! be done in time is turned away at once, instead of making everything late. Must never know what a call does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::failure::Code;
use contract::{Failure, Reason};
use tokio::time::Instant;

use crate::share::{Hold, Shares, Slot, exceeded};

/// A gate begins with this size, and doubles while calls end in time.
const FIRST: f64 = 256.0;
/// No gate closes further than this by itself.
const LEAST: f64 = 64.0;
/// A call that took less than this says nothing when it is late: its caller may just be impatient.
const PATIENT: Duration = Duration::from_millis(250);
/// Late calls closer together than this are one sign.
const APART: Duration = Duration::from_millis(200);
/// What a sign leaves.
const CUT: f64 = 0.8;
/// What so many calls in time bring back, beyond the size that was too large last.
const STEP: f64 = 8.0;

/// A gate. Its size is between 64 and its limit.
#[derive(Debug)]
pub struct Gate {
    most: f64,
    /// Where callers' shares of it are counted.
    slot: Slot,
    inside: AtomicUsize,
    /// The state's size in whole places: what nearly every call needs to know of it.
    room: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    size: f64,
    /// Below this it opens quickly.
    careful: f64,
    last_cut: Option<Instant>,
}

/// A place behind a gate. Given back on drop.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    since: Instant,
    _share: Option<Hold>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All are taken.
    Gate,
    /// This caller has his share of them.
    Share,
}

impl Gate {
    /// A gate for at most so many.
    pub fn new(most: usize, slot: Slot) -> Arc<Gate> {
        let most = most as f64;
        let state = State { size: most.min(FIRST), careful: most, last_cut: None };
        let room = AtomicUsize::new(state.size as usize);
        Arc::new(Gate { most, slot, inside: AtomicUsize::new(0), room, state: Mutex::new(state) })
    }

    /// A place, if there is one, within the caller's share where the caller has one.
    pub fn enter(self: &Arc<Self>, shares: Option<&Arc<Shares>>) -> Result<Place, Full> {
        let room = self.size();
        let free = room.saturating_sub(self.inside());
        if free == 0 {
            return Err(Full::Gate);
        }
        let share = match shares {
            Some(shares) => Some(shares.take_fairly(self.slot, free).ok_or(Full::by(shares))?),
            None => None,
        };
        let one_more = |inside: usize| (inside < room).then_some(inside + 1);
        let entered = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.map_err(|_| Full::Gate)?;
        Ok(Place { gate: self.clone(), since: Instant::now(), _share: share })
    }

    /// How many may be inside now.
    pub fn size(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    /// How many are inside now.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    fn open(&self) {
        // A gate that nobody stands before needs no more room.
        let full = |size: f64| size < self.most && self.inside() as f64 * 2.0 >= size;
        if !full(self.size() as f64) {
            return;
        }
        let mut state = self.state();
        if full(state.size) {
            let more = if state.size < state.careful { 1.0 } else { STEP / state.size };
            state.size = (state.size + more).min(self.most);
            self.room.store(state.size as usize, Ordering::Relaxed);
        }
    }

    fn cut(&self, now: Instant) {
        let mut state = self.state();
        if state.last_cut.is_some_and(|last| now.saturating_duration_since(last) < APART) {
            return;
        }
        state.last_cut = Some(now);
        // What is inside was too much, whatever would have been allowed.
        let used = state.size.min(self.inside() as f64);
        state.size = (used * CUT).max(LEAST.min(self.most));
        state.careful = state.size;
        self.room.store(state.size as usize, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Learns from how the call ended that had to by this deadline, and returns that end. One that took more than half
    /// of its time is as good as late: behind it, a queue grows.
    pub fn judge<T>(&self, deadline: Instant, end: Result<T, Failure>) -> Result<T, Failure> {
        let now = Instant::now();
        let (took, rest) = (now - self.since, deadline.saturating_duration_since(now));
        match &end {
            Err(failure) if failure.code == Code::DeadlineExceeded || failure.is(Reason::OutcomeUnknown) => {
                self.late(now);
            }
            // Nobody was there.
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

impl Full {
    /// What is full when a share is: a connection's, where callers are not known, is told as the whole.
    pub fn by(shares: &Shares) -> Full {
        if shares.known() { Full::Share } else { Full::Gate }
    }

    /// The refusal of a call.
    pub fn failure(self, subject: &str, wait: Duration) -> Failure {
        match self {
            Full::Gate => Failure::overloaded(subject, "as many calls in flight as end in time", wait),
            Full::Share => exceeded(format!("one caller's share of the calls of {subject} in flight"), wait),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(gate: &Arc<Gate>) -> Vec<Place> {
        std::iter::from_fn(|| gate.enter(None).ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_lets_in_as_many_as_fit_and_one_for_each_that_leaves() {
        let gate = Gate::new(3, Slot::GET);
        let mut inside = fill(&gate);
        assert_eq!(inside.len(), 3);
        inside.pop();
        assert!(gate.enter(None).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_most_of_its_time_closes_it_and_a_quick_one_opens_it() {
        let gate = Gate::new(1_000, Slot::GET);
        let inside = fill(&gate);
        assert_eq!(inside.len(), 256);
        let deadline = Instant::now() + PATIENT * 4;
        inside[0].judge(deadline, Ok(())).unwrap();
        assert_eq!(gate.size(), 257);
        tokio::time::advance(PATIENT * 3).await;
        inside[0].judge(deadline, Ok(())).unwrap();
        assert!(gate.size() < 256);
    }

    #[tokio::test(start_paused = true)]
    async fn late_calls_close_it_and_calls_in_time_open_it_again() {
        let gate = Gate::new(300, Slot::GET);
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
        let gate = Gate::new(100, Slot::GET);
        let inside = fill(&gate);
        inside[0].late(Instant::now());
        assert_eq!(gate.size(), 100);
        tokio::time::advance(PATIENT).await;
        inside.iter().for_each(|place| place.late(Instant::now()));
        assert_eq!(gate.size(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_leaves_half_of_it_and_is_told_that_it_is_his_share() {
        let gate = Gate::new(100, Slot::GET);
        let (one, two) = (Shares::of_caller(), Shares::of_caller());
        let inside: Vec<Place> = std::iter::from_fn(|| gate.enter(Some(&one)).ok()).collect();
        assert_eq!((inside.len(), gate.enter(Some(&one)).err()), (50, Some(Full::Share)));
        assert!(gate.enter(Some(&two)).is_ok());
        drop(inside);
        assert_eq!((gate.inside(), one.held(Slot::GET)), (0, 0));
        let _all = fill(&gate);
        assert_eq!(gate.enter(Some(&two)).err(), Some(Full::Gate));
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_closes_altogether() {
        let gate = Gate::new(100, Slot::GET);
        for _ in 0..100 {
            let inside = fill(&gate);
            tokio::time::advance(PATIENT).await;
            inside[0].late(Instant::now());
        }
        assert_eq!(gate.size(), 64);
    }
}
