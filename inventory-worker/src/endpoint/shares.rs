//! Each caller's share of what the stock keeps on request: what a caller added recently is compared with what is still
//! free. The ledger does not record who added an entry, so each worker counts the requests that it received since its
//! start. Must not depend on what is kept.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use wire::failure::Detail;
use wire::{Delivered, Failure, Reason};

use crate::ledger::Denial;
use crate::stock::Amounts;
use crate::stock::bounds::LimitKind;

/// The parts of the time for which additions count: the current one, and those before it within a horizon. Each part is
/// forgotten as a whole.
const PARTS: usize = 9;
/// The most callers that are counted. Beyond it, those that recently added least are forgotten.
const CALLERS: usize = 16_384;
/// How many are forgotten at once, as finding them takes time.
const ROOM: usize = CALLERS / 8;

/// What each caller added.
#[derive(Debug)]
pub struct Shares {
    bounds: Amounts,
    /// The length of a part in milliseconds.
    part: u64,
    callers: Mutex<HashMap<Box<str>, Added, RandomState>>,
}

/// What one caller added, by part of the time.
#[derive(Debug, Clone, Copy, Default)]
struct Added {
    /// The number of the newest part.
    now: u64,
    parts: [[u32; LimitKind::ALL.len()]; PARTS],
}

/// What a request is about to add. Subtracted on drop, unless it was kept.
#[derive(Debug)]
pub(super) struct Share<'a> {
    shares: &'a Shares,
    principal: &'a str,
    part: u64,
    more: Amounts,
}

impl Shares {
    /// Shares of these bounds; additions count for the time `within`.
    pub fn new(bounds: Amounts, within: Duration) -> Shares {
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        Shares { bounds, part: (millis / (PARTS as u64 - 1)).max(1), callers: Mutex::default() }
    }

    /// Counts what a request adds, given how much there is already.
    ///
    /// # Errors
    ///
    /// QUOTA_EXCEEDED if its caller would have added more than would be left; nothing is counted then. Unknown callers
    /// have no share, and the rules report a bound that is reached.
    pub(super) fn take<'a>(
        &'a self,
        principal: &'a str,
        more: Amounts,
        there: Amounts,
        now: u64,
    ) -> Result<Share<'a>, Failure> {
        let part = now / self.part;
        let share = |more| Share { shares: self, principal, part, more };
        if principal.is_empty() || more == Amounts::default() {
            return Ok(share(Amounts::default()));
        }
        let mut callers = self.callers();
        let mut added = callers.get(principal).copied().unwrap_or_default();
        added.turn(part);
        for kind in LimitKind::ALL {
            let (wanted, bound) = (more.of(kind), self.bounds.of(kind));
            let left = bound.checked_sub(there.of(kind).saturating_add(wanted));
            let mine = added.of(kind).saturating_add(wanted);
            if let Some(left) = left
                && wanted > 0
                && mine > left
            {
                return Err(exceeded(kind, mine, left, bound));
            }
        }
        added.change(part, more, u32::saturating_add);
        match callers.get_mut(principal) {
            Some(known) => *known = added,
            None => {
                if callers.len() >= CALLERS {
                    make_room(&mut callers, part);
                }
                callers.insert(principal.into(), added);
            }
        }
        Ok(share(more))
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<Box<str>, Added, RandomState>> {
        self.callers.lock()
    }
}

/// Forgets callers that added nothing recently, and if that is not enough, those that added least.
fn make_room(callers: &mut HashMap<Box<str>, Added, RandomState>, part: u64) {
    callers.retain(|_, added| {
        added.turn(part);
        added.all() > 0
    });
    let Some(more) = (callers.len() + ROOM).checked_sub(CALLERS).filter(|more| *more > 0) else { return };
    let mut all: Vec<(usize, Box<str>)> =
        callers.iter().map(|(name, added)| (added.all(), name.clone())).collect();
    all.select_nth_unstable(more - 1);
    all.truncate(more);
    for (_, name) in all {
        callers.remove(&name);
    }
}

impl Added {
    /// Forgets what is too old, and everything if the time has jumped back further than the horizon.
    fn turn(&mut self, part: u64) {
        if self.forgot(part) {
            *self = Added { now: part, ..Added::default() };
        }
        for passed in 1..=part.saturating_sub(self.now).min(PARTS as u64) {
            self.parts[((self.now + passed) % PARTS as u64) as usize] = Default::default();
        }
        self.now = self.now.max(part);
    }

    fn of(&self, kind: LimitKind) -> usize {
        self.parts.iter().map(|part| part[kind as usize] as usize).sum()
    }

    fn all(&self) -> usize {
        LimitKind::ALL.into_iter().map(|kind| self.of(kind)).sum()
    }

    /// Whether a part is too old to count.
    fn forgot(&self, part: u64) -> bool {
        part + PARTS as u64 <= self.now
    }

    /// Adds to a part, or subtracts from it.
    fn change(&mut self, part: u64, amounts: Amounts, change: fn(u32, u32) -> u32) {
        if self.forgot(part) {
            return;
        }
        for kind in LimitKind::ALL {
            let count = &mut self.parts[(part % PARTS as u64) as usize][kind as usize];
            *count = change(*count, u32::try_from(amounts.of(kind)).unwrap_or(u32::MAX));
        }
    }
}

impl Share<'_> {
    /// Handles the outcome of the request: what it may have added stays counted.
    pub(super) fn settle<T>(mut self, end: &Result<T, Denial>) {
        let added = match end {
            Ok(_) => true,
            Err(Denial::Refused(_)) => false,
            Err(Denial::Failed(failure)) => failure.certainty() != Delivered::No,
        };
        if added {
            self.more = Amounts::default();
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.more != Amounts::default()
            && let Some(added) = self.shares.callers().get_mut(self.principal)
        {
            added.change(self.part, self.more, u32::saturating_sub);
        }
    }
}

fn exceeded(kind: LimitKind, mine: usize, left: usize, bound: usize) -> Failure {
    let description = format!("as many {kind} as are left of {bound}");
    let message = format!(
        "over the caller's share: with this request it would have added {mine} {kind} within GW_ID_HORIZON, and {left} of \
         {bound} would be left; a caller may add at most as many as it leaves; {} raises the limit",
        kind.variable()
    );
    Failure::new(Reason::QuotaExceeded, message)
        .with("left", left.to_string())
        .with("of", kind.noun())
        .delivered(Delivered::No)
        .detail(Detail::Quota { subject: "caller".to_owned(), description })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const BOUNDS: Amounts = Amounts { products: 10, adjustments: 100, reservations: 100 };
    const ONE: Amounts = Amounts { products: 0, adjustments: 1, reservations: 0 };

    fn shares() -> Shares {
        Shares::new(BOUNDS, Duration::from_millis(24 * HOUR))
    }

    fn there(adjustments: usize) -> Amounts {
        Amounts { adjustments, ..Amounts::default() }
    }

    /// Adds until it is refused.
    fn fill(shares: &Shares, principal: &str, from: usize, now: u64) -> usize {
        let mut added = 0;
        while let Ok(share) = shares.take(principal, ONE, there(from + added), now) {
            share.settle(&Ok::<(), Denial>(()));
            added += 1;
            assert!(added <= 100);
        }
        added
    }

    #[test]
    fn one_caller_takes_half_and_the_next_half_of_the_rest() {
        let shares = shares();
        assert_eq!((fill(&shares, "ann", 0, 0), fill(&shares, "bob", 50, 0)), (50, 25));
        let failure = shares.take("ann", ONE, there(75), 0).unwrap_err();
        assert!(
            failure.is(Reason::QuotaExceeded) && failure.message.contains("GW_MAX_ADJUSTMENTS"),
            "{failure}"
        );
        assert_eq!((&*failure.metadata["of"], failure.certainty().name()), ("remembered adjustments", "no"));
    }

    #[test]
    fn what_was_there_before_is_nobodys_and_who_is_not_known_has_no_share() {
        let shares = shares();
        assert_eq!(fill(&shares, "ann", 90, 0), 5);
        assert!(shares.take("", ONE, there(99), 0).is_ok());
        assert!(shares.take("bob", ONE, there(100), 0).is_ok(), "the rules say that the bound is reached");
    }

    #[test]
    fn what_was_refused_does_not_count_and_what_may_have_been_done_does() {
        let shares = shares();
        let failed = |delivered| Failure::new(Reason::StorageUnavailable, "x").delivered(delivered);
        for (end, left) in [
            (Denial::Failed(failed(Delivered::No)), 50),
            (Denial::Refused(crate::stock::Refusal::Reused), 50),
            (Denial::Failed(failed(Delivered::Unknown)), 0),
        ] {
            for _ in 0..50 {
                shares.take("ann", ONE, there(0), 0).unwrap().settle(&Err::<(), _>(end.clone()));
            }
            assert_eq!(fill(&shares, "ann", 50 - left, 0) > 0, left > 0, "{end:?}");
            shares.callers().clear();
        }
    }

    #[test]
    fn what_a_caller_added_before_the_horizon_no_longer_counts() {
        let shares = shares();
        assert_eq!(fill(&shares, "ann", 0, HOUR), 50);
        assert_eq!(fill(&shares, "ann", 50, 25 * HOUR), 0);
        assert_eq!(fill(&shares, "ann", 50, 28 * HOUR), 25);
    }

    #[test]
    fn a_clock_that_was_far_ahead_leaves_nothing_behind() {
        let shares = shares();
        assert_eq!(fill(&shares, "ann", 0, 900 * HOUR), 50);
        drop(shares.take("ann", ONE, there(0), HOUR).unwrap());
        assert_eq!((fill(&shares, "ann", 0, HOUR), fill(&shares, "ann", 50, 28 * HOUR)), (50, 25));
    }

    #[test]
    fn of_more_callers_than_are_counted_those_who_added_least_are_forgotten() {
        let shares = shares();
        assert_eq!(fill(&shares, "ann", 0, 0), 50);
        for number in 0..CALLERS + 9 {
            shares.take(&number.to_string(), ONE, there(50), 0).unwrap().settle(&Ok::<(), Denial>(()));
        }
        assert_eq!(shares.callers().len(), CALLERS - ROOM + 9 + 1);
        assert!(shares.take("ann", ONE, there(50), 0).is_err());
        // A day later, only callers that add something are counted.
        for number in 0..CALLERS {
            shares
                .take(&number.to_string(), ONE, there(50), 30 * HOUR)
                .unwrap()
                .settle(&Ok::<(), Denial>(()));
        }
        assert!(!shares.callers().contains_key("ann"));
    }
}
