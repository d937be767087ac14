//! How long a route usually takes to answer, and how long a request may go unanswered before another one is worth sending.
//! One estimate per thread and route: two plain accesses to memory for an answer, one for a request. Must never know what is
//! asked, nor what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// No request is hedged sooner: whatever a route usually takes, a worker that collects garbage, or a disk that syncs, may
/// take this long once.
pub(super) const FLOOR: Duration = Duration::from_millis(150);
/// Hedges of one attempt. Where half of the requests go to a server that is frozen, one attempt in 128 has no answer then.
pub(super) const MOST: u32 = 6;
/// A request that takes this many times what is usual is not only slow.
const FAR: u64 = 4;
/// An answer that took longer than usual moves the estimate by a fourth of the difference, one that took less by a
/// sixteenth: it stays near the slowest answers of all days, and is back soon after a bad one.
const UP: u64 = 4;
const DOWN: u64 = 16;

/// What a route usually takes, in microseconds; 0 until something was answered.
#[derive(Debug, Default)]
pub(super) struct Usual(AtomicU64);

impl Usual {
    /// An answer took so long. Answers at the same moment on two threads may count as one.
    pub(super) fn took(&self, time: Duration) {
        let took = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let usual = self.0.load(Ordering::Relaxed);
        let next = match usual {
            0 => took,
            _ if took > usual => usual + (took - usual).div_ceil(UP),
            _ => usual - (usual - took) / DOWN,
        };
        self.0.store(next, Ordering::Relaxed);
    }

    /// How long a request may go unanswered. Without an answer yet nobody knows, and nothing is hedged.
    pub(super) fn patience(&self) -> Option<Duration> {
        let usual = self.0.load(Ordering::Relaxed);
        (usual > 0).then(|| Duration::from_micros(usual.saturating_mul(FAR)).max(FLOOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: impl IntoIterator<Item = u64>) -> Duration {
        let usual = Usual::default();
        answers.into_iter().for_each(|millis| usual.took(Duration::from_millis(millis)));
        usual.patience().unwrap()
    }

    #[test]
    fn nothing_is_hedged_before_anything_was_answered() {
        assert_eq!(Usual::default().patience(), None);
    }

    #[test]
    fn a_quick_route_has_the_floor_whatever_one_answer_in_a_hundred_takes() {
        assert_eq!(after([5; 100]), FLOOR);
        assert_eq!(after((0..1_000).map(|number| if number % 100 == 50 { 100 } else { 3 })), FLOOR);
    }

    #[test]
    fn a_slow_route_is_given_a_multiple_of_what_it_takes() {
        let patience = after([400; 10]).as_millis();
        assert_eq!(patience, 1_600);
    }

    #[test]
    fn an_overload_is_followed_within_a_few_answers_and_forgotten_within_a_hundred() {
        let overloaded = after([5; 100].into_iter().chain([500; 4]));
        assert!(overloaded > Duration::from_millis(500), "{overloaded:?}");
        assert_eq!(after([500; 100].into_iter().chain([5; 100])), FLOOR);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let usual = Usual::default();
        usual.took(Duration::MAX);
        assert!(usual.patience() > Some(FLOOR));
        (0..2_000).for_each(|_| usual.took(Duration::ZERO));
        assert_eq!(usual.patience(), Some(FLOOR));
    }
}
