//! Ids of what is finished are dropped after the horizon, by a fact: replay has to give the same state everywhere.

use std::sync::Arc;
use std::time::Duration;

use link::Clock;
use tokio::time::Instant;

use crate::events::Floor;
use crate::ledger::Ledger;
use crate::stock::{Command, Horizon};

const PAUSE: Duration = Duration::from_secs(600);
/// Fewer are not worth an entry.
const WORTH: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(10);

/// Looks for ids to drop, for ever.
pub(crate) async fn run(ledger: Ledger, floor: Arc<Floor>, horizon: Duration) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(floor) = floor.read().await else { continue };
        let horizon = due(ledger.clock(), horizon, floor);
        let count = ledger.stock().forgettable(horizon);
        if count < WORTH {
            continue;
        }
        match ledger.submit(Command::Forget(horizon), Instant::now() + LIMIT).await {
            Ok(_) => tracing::info!(count, "ids were forgotten"),
            Err(denial) => tracing::warn!(?denial, "ids could not be forgotten now"),
        }
    }
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

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_off_moves_no_horizon() {
        let hours = |hours: u64| Duration::from_secs(3_600 * hours);
        let now = Wall::default().unix_ms();
        for wall in [Wall::ahead(hours(25)), Wall::behind(hours(25))] {
            let clock = Clock::new(wall);
            clock.tell(now, Instant::now());
            assert_eq!(due(&clock, hours(24), 7), Horizon { before: now - 24 * 3_600_000, floor: 7 });
        }
    }
}
