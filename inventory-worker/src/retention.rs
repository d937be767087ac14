//! Retention: drops finished ids after the horizon, by a fact, so that replay gives the same state everywhere.

use std::sync::Arc;
use std::time::Duration;

use nats::Clock;
use tokio::time::Instant;

use crate::events::Floor;
use crate::ledger::Ledger;
use crate::stock::bounds::LimitKind;
use crate::stock::{Amounts, Command, Horizon};

/// Pause between two checks.
const PAUSE: Duration = Duration::from_secs(600);
/// The same while a bound is near.
const SOON: Duration = Duration::from_secs(60);
/// Fewer ids are not worth an entry, unless they are a tenth of a bound.
const WORTH: usize = 1_000;
/// From this percentage of a bound on, each id is worth an entry.
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
            Ok(_) => tracing::info!(count, "finished ids were forgotten"),
            Err(denial) => tracing::warn!(?denial, "finished ids could not be forgotten now"),
        }
    }
}

/// The bounded kinds whose ids are forgotten.
const KINDS: [LimitKind; 2] = [LimitKind::Adjustments, LimitKind::Reservations];

/// The pause until the next check.
fn pause(amounts: Amounts, bounds: Amounts) -> Duration {
    if near(amounts, bounds) { SOON } else { PAUSE }
}

/// How many ids are worth an entry. One if a bound is near: ids that could be forgotten must not cause refusals.
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

/// What may be forgotten now, by JetStream's time, as facts are: a worker whose clock is ahead forgets nothing early,
/// and one whose clock is behind keeps nothing for ever.
fn due(clock: &Clock, horizon: Duration, floor: u64) -> Horizon {
    let horizon = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
    Horizon { before: clock.unix_ms().saturating_sub(horizon), floor }
}

#[cfg(test)]
mod tests {
    use nats::WallClock;

    use super::*;

    #[test]
    fn what_can_be_forgotten_is_before_a_bound_refuses_new_ones() {
        for bound in [1, 7, 60, 500, 9_999, 400_000] {
            for kind in KINDS {
                let mut bounds = Amounts { products: 1, adjustments: 400_000, reservations: 400_000 };
                let mut amounts = Amounts { products: 1, ..Amounts::default() };
                let (bound_of, there) = match kind {
                    LimitKind::Adjustments => (&mut bounds.adjustments, &mut amounts.adjustments),
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
        let now = WallClock::default().unix_ms();
        for wall in [WallClock::ahead(hours(25)), WallClock::behind(hours(25))] {
            let clock = Clock::new(wall);
            clock.tell(order_streams::INVENTORY, now, Instant::now());
            assert_eq!(due(&clock, hours(24), 7), Horizon { before: now - 24 * 3_600_000, floor: 7 });
        }
    }
}
