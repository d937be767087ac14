//! Ids of what is finished are dropped after the horizon, by a fact: replay has to give the same state everywhere.

use std::sync::Arc;
use std::time::Duration;

use link::Clock;
use tokio::time::Instant;

use crate::events::Floor;
use crate::ledger::Ledger;
use crate::stock::bounds::Kind;
use crate::stock::{Amounts, Command, Horizon};

/// Between two looks…
const PAUSE: Duration = Duration::from_secs(600);
/// …and while a bound is near.
const SOON: Duration = Duration::from_secs(60);
/// Fewer are not worth an entry, nor are they a tenth of any bound.
const WORTH: usize = 1_000;
/// From this share of a bound on, in percent, each is worth an entry.
const NEAR: usize = 80;
const LIMIT: Duration = Duration::from_secs(10);

/// Looks for ids to drop, for ever.
pub(crate) async fn run(ledger: Ledger, floor: Arc<Floor>, horizon: Duration) {
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(SOON).await;
        let amounts = ledger.stock().amounts();
        if looked.elapsed() < pause(amounts, ledger.bounds()) {
            continue;
        }
        looked = Instant::now();
        let Some(floor) = floor.read().await else { continue };
        let horizon = due(ledger.clock(), horizon, floor);
        let count = ledger.stock().forgettable(horizon);
        if count < worth(amounts, ledger.bounds()) {
            continue;
        }
        match ledger.submit(Command::Forget(horizon), Instant::now() + LIMIT).await {
            Ok(_) => tracing::info!(count, "ids were forgotten"),
            Err(denial) => tracing::warn!(?denial, "ids could not be forgotten now"),
        }
    }
}

/// What is forgotten in time, of what is bounded.
const KINDS: [Kind; 2] = [Kind::Adjustments, Kind::Reservations];

/// How long after a look there is to be another.
fn pause(amounts: Amounts, bounds: Amounts) -> Duration {
    if near(amounts, bounds) { SOON } else { PAUSE }
}

/// How many are worth an entry. One, where new ones are refused soon: what could be forgotten must refuse nothing.
fn worth(amounts: Amounts, bounds: Amounts) -> usize {
    let least = KINDS.into_iter().map(|kind| bounds.of(kind) / 10).min().unwrap_or(WORTH);
    if near(amounts, bounds) { 1 } else { WORTH.min(least).max(1) }
}

fn near(amounts: Amounts, bounds: Amounts) -> bool {
    KINDS.into_iter().any(|kind| share(amounts.of(kind), bounds.of(kind)) >= NEAR)
}

fn share(there: usize, bound: usize) -> usize {
    there.saturating_mul(100).checked_div(bound).unwrap_or(100)
}

/// What may be forgotten now. By JetStream's time, as facts are: a worker whose clock is ahead forgets nothing early, and
/// one that is behind keeps nothing for ever.
fn due(clock: &Clock, horizon: Duration, floor: u64) -> Horizon {
    let horizon = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
    Horizon { before: clock.unix_ms().saturating_sub(horizon), floor }
}

#[cfg(test)]
mod tests {
    use link::Wall;

    use super::*;

    #[test]
    fn what_can_be_forgotten_is_before_a_bound_refuses_new_ones() {
        for bound in [1, 7, 60, 500, 9_999, 400_000] {
            for kind in KINDS {
                let mut bounds = Amounts { products: 1, adjustments: 400_000, reservations: 400_000 };
                let mut amounts = Amounts { products: 1, ..Amounts::default() };
                let (bound_of, there) = match kind {
                    Kind::Adjustments => (&mut bounds.adjustments, &mut amounts.adjustments),
                    _ => (&mut bounds.reservations, &mut amounts.reservations),
                };
                (*bound_of, *there) = (bound, bound - bound / 10);
                assert_eq!((worth(amounts, bounds), pause(amounts, bounds)), (1, SOON), "{bound} {kind}");
                let few = worth(Amounts::default(), bounds);
                assert!(few <= (bound / 10).max(1) && few <= WORTH, "{bound} {kind}: {few}");
                assert_eq!(pause(Amounts::default(), bounds), PAUSE, "{bound} {kind}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_off_moves_no_horizon() {
        let hours = |hours: u64| Duration::from_secs(3_600 * hours);
        let now = Wall::default().unix_ms();
        for wall in [Wall::ahead(hours(25)), Wall::behind(hours(25))] {
            let clock = Clock::new(wall);
            clock.tell(link::streams::INVENTORY, now, Instant::now());
            assert_eq!(due(&clock, hours(24), 7), Horizon { before: now - 24 * 3_600_000, floor: 7 });
        }
    }
}
