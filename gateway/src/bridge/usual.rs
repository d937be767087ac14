//! How long a route usually takes to answer, how long a request may go unanswered before another one is worth sending, and
//! whether it is then. One of each per thread and route: four plain accesses to memory for an answer, one for a request. Must
//! never know what is asked; time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

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

/// What tells a request that is lost from one that waits with all the others. Where nothing is answered, hedges would be in
/// vain, and the budget for them gone before somebody answers again.
#[derive(Debug)]
pub(super) struct Signs {
    begin: Instant,
    /// When the newest of those that were answered was sent, in microseconds since the beginning.
    answered: AtomicU64,
    /// When a request was last sent again without such a sign.
    probed: AtomicU64,
}

impl Signs {
    pub(super) fn new(begin: Instant) -> Signs {
        Signs { begin, answered: AtomicU64::new(0), probed: AtomicU64::new(0) }
    }

    /// A request that was sent then was answered.
    pub(super) fn answered(&self, sent: Instant) {
        let sent = self.micros(sent);
        if sent > self.answered.load(Ordering::Relaxed) {
            self.answered.store(sent, Ordering::Relaxed);
        }
    }

    /// Whether a request that was sent then, and is not answered, is worth another one: later ones were answered. Without
    /// that, one of all is sent in the time of a patience, to find out.
    pub(super) fn worth(&self, sent: Instant, now: Instant, patience: Duration) -> bool {
        if self.answered.load(Ordering::Relaxed) > self.micros(sent) {
            return true;
        }
        let (now, probed) = (self.micros(now), self.probed.load(Ordering::Relaxed));
        let due = probed == 0 || u128::from(now.saturating_sub(probed)) >= patience.as_micros();
        due && self.probed.compare_exchange(probed, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begin).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_nobody_answers_one_is_sent_again_and_all_when_later_ones_are_answered() {
        let (begin, patience) = (Instant::now(), Duration::from_millis(200));
        let at = |millis| begin + Duration::from_millis(millis);
        let signs = Signs::new(begin);
        signs.answered(at(0));
        let again = |now| (1..=20).filter(|sent| signs.worth(at(*sent), at(now), patience)).count();
        assert_eq!([again(300), again(400), again(500), again(650)], [1, 0, 1, 0]);
        signs.answered(at(15));
        assert_eq!(again(660), 14);
    }

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
