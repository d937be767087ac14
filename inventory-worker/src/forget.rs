//! Ids of what is finished are dropped after the horizon, by a fact: replay has to give the same state everywhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::unix_ms;
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
        let horizon = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        let Some(floor) = floor.read().await else { continue };
        let horizon = Horizon { before: unix_ms().saturating_sub(horizon), floor };
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
