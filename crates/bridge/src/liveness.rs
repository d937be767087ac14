//! The liveness of a route: whether it has responders, with hysteresis. Time is an argument. Must not depend on how
//! this is observed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Misses in a row after which the route is down.
const MISSES: u32 = 2;
/// Misses closer together than this count as one: a burst of calls during a restart is no more evidence than one call.
const APART: Duration = Duration::from_millis(250);

/// Whether there are responders. Initially nothing is known, which counts as down.
#[derive(Debug, Default)]
pub struct Liveness {
    /// Up and without a miss: the fast path.
    calm: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    alive: bool,
    /// It was seen to be up or down.
    known: bool,
    misses: u32,
    last_miss: Option<Instant>,
}

impl Liveness {
    /// A service answered.
    pub fn up(&self) {
        if self.calm.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        *state = State { alive: true, known: true, ..State::default() };
        self.calm.store(true, Ordering::Relaxed);
    }

    /// There were no responders.
    pub fn down(&self, now: Instant) {
        let mut state = self.state();
        if state.last_miss.is_some_and(|last| now.saturating_duration_since(last) < APART) {
            return;
        }
        state.last_miss = Some(now);
        state.misses = state.misses.saturating_add(1);
        state.alive &= state.misses < MISSES;
        state.known |= state.misses >= MISSES;
        self.calm.store(false, Ordering::Relaxed);
    }

    /// Marks the route as up if its last miss is older than this. For routes that only calls can observe: while such a
    /// route is down, no calls may arrive.
    pub fn decay(&self, now: Instant, after: Duration) {
        let last = self.state().last_miss;
        if last.is_some_and(|last| now.saturating_duration_since(last) >= after) {
            self.up();
        }
    }

    /// Knows nothing of a route that is down any more if its last miss is older than this.
    pub fn forget(&self, now: Instant, after: Duration) {
        let mut state = self.state();
        if !state.alive && state.last_miss.is_some_and(|last| now.saturating_duration_since(last) >= after) {
            *state = State::default();
        }
    }

    /// Whether the route was seen to be up or down.
    pub fn known(&self) -> bool {
        self.state().known
    }

    /// Whether the route is up.
    pub fn alive(&self) -> bool {
        self.state().alive
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_beat_brings_it_to_life_and_two_misses_end_it() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        assert!(!liveness.alive());
        liveness.up();
        assert!(liveness.alive());
        liveness.down(start);
        assert!(liveness.alive());
        liveness.down(start + APART);
        assert!(!liveness.alive());
        liveness.up();
        assert!(liveness.alive());
    }

    #[test]
    fn a_beat_between_misses_forgives() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        liveness.up();
        for number in 0..10 {
            liveness.down(start + APART * number);
            liveness.up();
        }
        assert!(liveness.alive());
    }

    #[test]
    fn a_burst_of_misses_is_one() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        liveness.up();
        (0..1_000).for_each(|micros| liveness.down(start + Duration::from_micros(micros)));
        assert!(liveness.alive());
    }

    #[test]
    fn old_misses_can_be_forgiven() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        liveness.up();
        liveness.down(start);
        liveness.down(start + APART);
        liveness.decay(start + APART * 2, APART * 4);
        assert!(!liveness.alive());
        liveness.decay(start + APART * 5, APART * 4);
        assert!(liveness.alive());
    }
}
