//! The retry budget: how many attempts may follow first attempts over time, so that an outage is not answered with a
//! storm. Must never know what is attempted.

use std::sync::atomic::{AtomicU32, Ordering};

/// A repeat costs what six calls bring in: attempts grow to 1.17 × calls, and with the savings from quiet times they
/// stay below 1.2 × calls from 300 calls on.
const COST: u32 = 6;
/// The savings: ten repeats. A budget starts with them.
const MOST: u32 = 10 * COST;

/// Tokens that calls bring in and repeats take out.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: AtomicU32,
}

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget { tokens: AtomicU32::new(MOST) }
    }

    /// A call begins.
    pub(crate) fn earn(&self) {
        let more = |tokens: u32| (tokens < MOST).then_some(tokens + 1);
        // An error says that it is full.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether a repeat is affordable; it is paid then.
    pub(crate) fn spend(&self) -> bool {
        let less = |tokens: u32| tokens.checked_sub(COST);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every call fails and would be repeated three times.
    fn attempts_in_an_outage(calls: u32) -> u32 {
        let budget = Budget::new();
        (0..calls)
            .map(|_| {
                budget.earn();
                1 + u32::try_from((0..3).take_while(|_| budget.spend()).count()).unwrap()
            })
            .sum()
    }

    #[test]
    fn an_outage_costs_at_most_a_fifth_more_attempts_than_calls() {
        for calls in [300, 3_000, 100_000] {
            let attempts = attempts_in_an_outage(calls);
            assert!(attempts * 10 <= calls * 12, "{attempts} attempts for {calls} calls");
        }
    }

    #[test]
    fn a_single_call_has_all_its_repeats() {
        assert_eq!(attempts_in_an_outage(1), 4);
    }

    #[test]
    fn quiet_times_refill_the_savings_and_no_more() {
        let budget = Budget::new();
        while budget.spend() {}
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).take_while(|_| budget.spend()).count(), 10);
    }
}
