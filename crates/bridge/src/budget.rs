//! The retry budget: limits retries in proportion to calls, so that an outage does not cause a retry storm. Must not
//! depend on what is retried.

use std::sync::atomic::{AtomicU32, Ordering};

/// A retry costs the tokens of six calls: attempts grow to 1.17 × calls, and with the savings from quiet times they
/// stay below 1.2 × calls from 300 calls on.
const COST: u32 = 6;
/// The maximum of saved tokens, also the initial value: ten retries.
const MOST: u32 = 10 * COST;

/// Tokens that calls earn and retries spend.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: AtomicU32,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { tokens: AtomicU32::new(MOST) }
    }
}

impl RetryBudget {
    /// A full budget.
    pub fn new() -> RetryBudget {
        RetryBudget::default()
    }

    /// A call begins.
    pub fn earn(&self) {
        let more = |tokens: u32| (tokens < MOST).then_some(tokens + 1);
        // An error means that it is full.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// A hedge was answered first: its cost is refunded three times. If every second request is lost, hedges pay for
    /// themselves; if all requests are late, as in an overload, hedges win nothing, and cost as much as retries.
    pub(crate) fn refund(&self) {
        self.add(3 * COST);
    }

    /// A hedge was lost with its connection. Its cost is refunded, because retries of lost requests are free.
    pub(crate) fn return_lost(&self) {
        self.add(COST);
    }

    fn add(&self, tokens: u32) {
        let more = |before: u32| Some((before + tokens).min(MOST));
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Spends the cost of a retry, if the budget allows it.
    pub fn spend(&self) -> bool {
        let less = |tokens: u32| tokens.checked_sub(COST);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every call fails, and would be retried three times.
    fn attempts_in_an_outage(calls: u32) -> u32 {
        let budget = RetryBudget::new();
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

    /// How many hedges are sent, and how many calls still fail, if `lost` percent of all requests are lost.
    fn hedged(calls: u32, lost: u64) -> (u32, u32) {
        let (budget, mut random, mut hedges, mut failed) = (RetryBudget::new(), 1_u64, 0, 0);
        let mut answered = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % 100 >= lost
        };
        for _ in 0..calls {
            budget.earn();
            let mut done = answered();
            for _ in 0..6 {
                if done || !budget.spend() {
                    break;
                }
                hedges += 1;
                done = answered();
                if done {
                    budget.refund();
                }
            }
            failed += u32::from(!done);
        }
        (hedges, failed)
    }

    #[test]
    fn hedges_pay_for_themselves_where_half_of_the_requests_are_lost_and_not_where_nearly_all_are() {
        let (hedges, failed) = hedged(10_000, 50);
        assert!(failed < 300 && (9_000..11_000).contains(&hedges), "{hedges} hedges, {failed} failed");
        let (hedges, _) = hedged(10_000, 100);
        assert!(hedges <= 10_000 / 6 + 10, "{hedges} hedges");
        let (hedges, _) = hedged(10_000, 90);
        assert!(hedges <= 10_000 / 4, "{hedges} hedges");
    }

    #[test]
    fn quiet_times_refill_the_savings_and_no_more() {
        let budget = RetryBudget::new();
        while budget.spend() {}
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).take_while(|_| budget.spend()).count(), 10);
    }
}
