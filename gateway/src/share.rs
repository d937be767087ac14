//! Shares: what one caller holds of each bound that all callers share, so that no caller ever takes all of it. Must
//! never know who the caller is, nor what a call does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::failure::Detail;
use contract::{Delivered, Failure, Reason};

/// Bounds that are counted apart.
const SLOTS: usize = 64;
/// The first slot of routes: two for each.
const ROUTES: usize = 16;
/// A known caller may have as much of a bound as it leaves free: half of it alone, a third beside another, and so on.
const CALLER: usize = 1;
/// Where callers are not known, a connection may have four times what it leaves free of lists and watches; of other calls,
/// which end soon, any number: behind a proxy it may carry all there are.
const CONNECTION: usize = 4;

/// A bound that callers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

impl Slot {
    /// Calls in hand.
    pub const CALLS: Slot = Slot(0);
    /// CreateOrder.
    pub const CREATE: Slot = Slot(1);
    /// GetOrder.
    pub const GET: Slot = Slot(2);
    /// UpdateOrderStatus.
    pub const UPDATE: Slot = Slot(3);
    /// ListOrders.
    pub const LIST: Slot = Slot(4);
    /// Watches.
    pub const WATCHES: Slot = Slot(5);
    /// Watches that read the history.
    pub const REPLAYS: Slot = Slot(6);
    /// Calls that wait for a token's key to be fetched.
    pub const KEYS: Slot = Slot(7);

    /// A route, and whether the gateway itself calls it. With very many routes some share a slot, which makes shares
    /// smaller, never larger.
    pub fn route(number: usize, inner: bool) -> Slot {
        Slot(ROUTES + (2 * number + usize::from(inner)) % (SLOTS - ROUTES))
    }
}

/// What one caller holds, or one connection where callers are not known.
#[derive(Debug)]
pub struct Shares {
    weight: usize,
    held: [AtomicUsize; SLOTS],
}

/// A part of a bound that is held. Given back on drop.
#[derive(Debug)]
pub struct Hold {
    shares: Arc<Shares>,
    slot: Slot,
}

impl Shares {
    /// Those of a known caller.
    pub fn of_caller() -> Arc<Shares> {
        Shares::new(CALLER)
    }

    /// Those of a connection, where callers are not known.
    pub fn of_connection() -> Arc<Shares> {
        Shares::new(CONNECTION)
    }

    fn new(weight: usize) -> Arc<Shares> {
        Arc::new(Shares { weight, held: [const { AtomicUsize::new(0) }; SLOTS] })
    }

    /// How much of a bound is held.
    pub fn held(&self, slot: Slot) -> usize {
        self.held.get(slot.0).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    /// One more, if that makes no more than `most`.
    pub fn take(self: &Arc<Self>, slot: Slot, most: usize) -> Option<Hold> {
        let held = self.held.get(slot.0)?;
        let one_more = |held: usize| (held < most).then_some(held + 1);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Hold { shares: self.clone(), slot })
    }

    /// One more of a bound of which so much is free, if it is within the share.
    pub fn take_fairly(self: &Arc<Self>, slot: Slot, free: usize) -> Option<Hold> {
        let lasts = [Slot::LIST, Slot::WATCHES, Slot::REPLAYS].contains(&slot);
        let most = if self.known() || lasts { self.weight.saturating_mul(free) } else { usize::MAX };
        self.take(slot, most)
    }

    /// Whether they are a known caller's.
    pub fn known(&self) -> bool {
        self.weight == CALLER
    }
}

impl Hold {
    /// Whose.
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(held) = self.shares.held.get(self.slot.0) {
            held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A caller has as much of a bound as it may.
pub fn exceeded(limit: String, wait: Duration) -> Failure {
    Failure::new(Reason::QuotaExceeded, format!("over the limit of {limit}"))
        .delivered(Delivered::No)
        .retry_after(wait)
        .detail(Detail::Quota { subject: "caller".to_owned(), description: limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers who take as much as they can of a bound, in turns.
    fn greedy(callers: usize, bound: usize) -> (Vec<usize>, usize) {
        let shares: Vec<_> = (0..callers).map(|_| Shares::of_caller()).collect();
        let mut taken = Vec::new();
        for turn in 0..4 * bound * callers {
            let free = bound - taken.len();
            taken.extend(shares[turn % callers].take_fairly(Slot::LIST, free));
        }
        (shares.iter().map(|shares| shares.held(Slot::LIST)).collect(), bound - taken.len())
    }

    #[test]
    fn one_caller_never_takes_all_and_many_leave_something() {
        assert_eq!(greedy(1, 128), (vec![64], 64));
        for callers in [2, 7, 15] {
            let (held, free) = greedy(callers, 128);
            assert!(free >= 128 / (callers + 1), "{callers} leave {free}");
            assert!(held.iter().all(|held| held.abs_diff(128 / (callers + 1)) <= 1), "{held:?}");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_bounds_are_counted_apart() {
        let shares = Shares::of_caller();
        let held = shares.take(Slot::CALLS, 1).unwrap();
        assert!(shares.take(Slot::CALLS, 1).is_none() && shares.take(Slot::LIST, 1).is_some());
        drop(held);
        assert!(shares.take(Slot::CALLS, 1).is_some());
    }

    #[test]
    fn a_connection_of_unknown_callers_has_more_and_not_all_of_what_lasts() {
        let shares = Shares::of_connection();
        let mut held = Vec::new();
        while let Some(hold) = shares.take_fairly(Slot::LIST, 128 - held.len()) {
            held.push(hold);
        }
        assert_eq!(held.len(), 103);
        assert!(shares.take_fairly(Slot::CREATE, 0).is_some());
    }
}
