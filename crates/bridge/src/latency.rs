//! The usual response time of a route: how long a request may be unanswered before a hedge is worthwhile, and whether
//! it is then. One per thread and route: four plain memory accesses per answer, one per request. Must not depend on
//! requests; time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Minimum time before a hedge: however fast a route usually is, a garbage collection or a disk sync may take this long
/// once.
pub(super) const FLOOR: Duration = Duration::from_millis(150);
/// Maximum number of hedges of one attempt. If half of the requests go to a frozen server, one attempt in 128 still has
/// no answer.
pub(super) const MOST: u32 = 6;
/// A request that takes this many times the usual time is probably lost, not just slow.
const FAR: u64 = 4;
/// A slower answer moves the estimate by a quarter of the difference, a faster one by a sixteenth: the estimate stays
/// near the slowest normal answers, and recovers soon after an outlier.
const UP: u64 = 4;
const DOWN: u64 = 16;

/// The usual response time of a route, in microseconds; 0 before the first answer.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

impl Latency {
    /// Records an answer's time. Concurrent updates may be lost, which is harmless.
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

    /// How long a request may be unanswered before a hedge. None before the first answer: then nothing is hedged.
    pub(super) fn patience(&self) -> Option<Duration> {
        let usual = self.0.load(Ordering::Relaxed);
        (usual > 0).then(|| Duration::from_micros(usual.saturating_mul(FAR)).max(FLOOR))
    }
}

/// Evidence that distinguishes a lost request from one that waits like all others. If nothing is answered, hedges are
/// useless, and would use up the budget before services answer again.
#[derive(Debug)]
pub(super) struct HedgeEvidence {
    begin: Instant,
    /// When the newest answered request was sent, in microseconds since `begin`.
    answered: AtomicU64,
    /// When a hedge was last sent without such evidence.
    probed: AtomicU64,
}

impl HedgeEvidence {
    pub(super) fn new(begin: Instant) -> HedgeEvidence {
        HedgeEvidence { begin, answered: AtomicU64::new(0), probed: AtomicU64::new(0) }
    }

    /// Records that a request sent at this time was answered.
    pub(super) fn answered(&self, sent: Instant) {
        let sent = self.micros(sent);
        if sent > self.answered.load(Ordering::Relaxed) {
            self.answered.store(sent, Ordering::Relaxed);
        }
    }

    /// Whether an unanswered request that was sent at this time should be hedged: if later requests were answered.
    /// Otherwise one hedge per `patience` is sent for the whole route, as a probe.
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
        let signs = HedgeEvidence::new(begin);
        signs.answered(at(0));
        let again = |now| (1..=20).filter(|sent| signs.worth(at(*sent), at(now), patience)).count();
        assert_eq!([again(300), again(400), again(500), again(650)], [1, 0, 1, 0]);
        signs.answered(at(15));
        assert_eq!(again(660), 14);
    }

    fn after(answers: impl IntoIterator<Item = u64>) -> Duration {
        let usual = Latency::default();
        answers.into_iter().for_each(|millis| usual.took(Duration::from_millis(millis)));
        usual.patience().unwrap()
    }

    #[test]
    fn nothing_is_hedged_before_anything_was_answered() {
        assert_eq!(Latency::default().patience(), None);
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
        let usual = Latency::default();
        usual.took(Duration::MAX);
        assert!(usual.patience() > Some(FLOOR));
        (0..2_000).for_each(|_| usual.took(Duration::ZERO));
        assert_eq!(usual.patience(), Some(FLOOR));
    }
}
