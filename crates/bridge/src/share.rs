//! Fair shares: how much one caller holds of each limit that all callers share, so that no caller can use up all of it.
//! Must not depend on who the caller is, nor on what a call does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wire::failure::Detail;
use wire::{Delivered, Failure, Reason};

/// Limits that are counted separately.
const SLOTS: usize = 64;
/// The first slot of services with code.
const SERVICES: usize = 2;
/// The first slot of routes; each route has two.
const ROUTES: usize = 16;
/// A known caller may hold as much of a limit as it leaves free: half of it if alone, a third beside another, and so
/// on.
const CALLER: usize = 1;
/// If callers are unknown, a connection may hold four times what it leaves free of what lasts long, and any number of
/// other calls, which end soon: a proxy's connection may carry all calls.
const CONNECTION: usize = 4;

/// Subscribers that read what was before they came.
pub(crate) const CATCHING_UP: ShareKind = ShareKind { slot: ROUTES - 1, lasts: true };

/// A limit that callers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareKind {
    slot: usize,
    lasts: bool,
}

impl ShareKind {
    /// Calls in flight.
    pub const CALLS: ShareKind = ShareKind { slot: 0, lasts: false };
    /// Calls that wait for the fetch of a token's key.
    pub const KEYS: ShareKind = ShareKind { slot: 1, lasts: false };

    /// A limit of a service with code; there are numbers below 13.
    pub const fn service(number: usize) -> ShareKind {
        ShareKind { slot: SERVICES + number % (ROUTES - 1 - SERVICES), lasts: false }
    }

    /// The same, of what lasts long, such as streams: a connection of unknown callers may not hold all of it.
    #[must_use]
    pub const fn lasting(self) -> ShareKind {
        ShareKind { lasts: true, ..self }
    }

    /// The slot of a route; `inner`: of the gateway's own calls. With very many routes some share a slot, which makes
    /// shares smaller, never larger.
    pub fn route(number: usize, inner: bool) -> ShareKind {
        ShareKind { slot: ROUTES + (2 * number + usize::from(inner)) % (SLOTS - ROUTES), lasts: false }
    }
}

/// What one caller holds, or one connection if callers are unknown.
#[derive(Debug)]
pub struct Shares {
    weight: usize,
    held: [AtomicUsize; SLOTS],
}

/// One unit of a limit. Released on drop.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    slot: ShareKind,
}

impl Shares {
    /// The shares of a known caller.
    pub fn of_caller() -> Arc<Shares> {
        Shares::new(CALLER)
    }

    /// The shares of a connection, if callers are unknown.
    pub fn of_connection() -> Arc<Shares> {
        Shares::new(CONNECTION)
    }

    fn new(weight: usize) -> Arc<Shares> {
        Arc::new(Shares { weight, held: [const { AtomicUsize::new(0) }; SLOTS] })
    }

    /// How much of a limit is held.
    pub fn held(&self, slot: ShareKind) -> usize {
        self.held.get(slot.slot).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    /// One more unit, if that makes no more than `most`.
    pub fn take(self: &Arc<Self>, slot: ShareKind, most: usize) -> Option<Share> {
        let held = self.held.get(slot.slot)?;
        let one_more = |held: usize| (held < most).then_some(held + 1);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Share { shares: self.clone(), slot })
    }

    /// One more unit of a limit of which `free` units are free, if it is within the share.
    pub fn take_fairly(self: &Arc<Self>, slot: ShareKind, free: usize) -> Option<Share> {
        let most = if self.known() || slot.lasts { self.weight.saturating_mul(free) } else { usize::MAX };
        self.take(slot, most)
    }

    /// Whether these are the shares of a known caller.
    pub fn known(&self) -> bool {
        self.weight == CALLER
    }
}

impl Share {
    /// The shares it counts against.
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(held) = self.shares.held.get(self.slot.slot) {
            held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The failure of a caller that has reached its share of a limit.
pub fn exceeded(limit: String, wait: Duration) -> Failure {
    Failure::new(Reason::QuotaExceeded, format!("over the limit of {limit}"))
        .delivered(Delivered::No)
        .retry_after(wait)
        .detail(Detail::Quota { subject: "caller".to_owned(), description: limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: ShareKind = ShareKind::service(0);
    const LIST: ShareKind = ShareKind::service(1).lasting();

    /// Callers that take as much as they can of a limit, in turns.
    fn greedy(callers: usize, bound: usize) -> (Vec<usize>, usize) {
        let shares: Vec<_> = (0..callers).map(|_| Shares::of_caller()).collect();
        let mut taken = Vec::new();
        for turn in 0..4 * bound * callers {
            let free = bound - taken.len();
            taken.extend(shares[turn % callers].take_fairly(LIST, free));
        }
        (shares.iter().map(|shares| shares.held(LIST)).collect(), bound - taken.len())
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
        let held = shares.take(ShareKind::CALLS, 1).unwrap();
        assert!(shares.take(ShareKind::CALLS, 1).is_none() && shares.take(LIST, 1).is_some());
        drop(held);
        assert!(shares.take(ShareKind::CALLS, 1).is_some());
    }

    #[test]
    fn a_connection_of_unknown_callers_has_more_and_not_all_of_what_lasts() {
        let shares = Shares::of_connection();
        let mut held = Vec::new();
        while let Some(hold) = shares.take_fairly(LIST, 128 - held.len()) {
            held.push(hold);
        }
        assert_eq!(held.len(), 103);
        assert!(shares.take_fairly(CREATE, 0).is_some());
    }
}
