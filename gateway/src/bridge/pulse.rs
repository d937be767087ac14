//! The pulse of a route: whether somebody answers there, with hysteresis. Time is an argument. Must never know how
//! it was found out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many misses in a row, and it is dead.
const MISSES: u32 = 2;
/// Misses closer together than this are one: a burst of calls that meets a restart says no more than one call.
const APART: Duration = Duration::from_millis(250);

/// Whether somebody answers. It begins dead.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Alive and without a miss: what nearly every beat finds.
    calm: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    alive: bool,
    misses: u32,
    last_miss: Option<Instant>,
}

impl Pulse {
    /// Somebody answered.
    pub fn beat(&self) {
        if self.calm.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        *state = State { alive: true, ..State::default() };
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Nobody was there.
    pub fn miss(&self, now: Instant) {
        let mut state = self.state();
        if state.last_miss.is_some_and(|last| now.saturating_duration_since(last) < APART) {
            return;
        }
        state.last_miss = Some(now);
        state.misses = state.misses.saturating_add(1);
        state.alive &= state.misses < MISSES;
        self.calm.store(false, Ordering::Relaxed);
    }

    /// Forgets misses that are older than this, where only calls find out: as long as it is dead, none may come.
    pub fn forgive(&self, now: Instant, after: Duration) {
        let last = self.state().last_miss;
        if last.is_some_and(|last| now.saturating_duration_since(last) >= after) {
            self.beat();
        }
    }

    /// Whether somebody answers.
    pub fn alive(&self) -> bool {
        self.state().alive
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_beat_brings_it_to_life_and_two_misses_end_it() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        assert!(!pulse.alive());
        pulse.beat();
        assert!(pulse.alive());
        pulse.miss(start);
        assert!(pulse.alive());
        pulse.miss(start + APART);
        assert!(!pulse.alive());
        pulse.beat();
        assert!(pulse.alive());
    }

    #[test]
    fn a_beat_between_misses_forgives() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        pulse.beat();
        for number in 0..10 {
            pulse.miss(start + APART * number);
            pulse.beat();
        }
        assert!(pulse.alive());
    }

    #[test]
    fn a_burst_of_misses_is_one() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        pulse.beat();
        (0..1_000).for_each(|micros| pulse.miss(start + Duration::from_micros(micros)));
        assert!(pulse.alive());
    }

    #[test]
    fn old_misses_can_be_forgiven() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        pulse.beat();
        pulse.miss(start);
        pulse.miss(start + APART);
        pulse.forgive(start + APART * 2, APART * 4);
        assert!(!pulse.alive());
        pulse.forgive(start + APART * 5, APART * 4);
        assert!(pulse.alive());
    }
}
