//! Reservations that ended without an order are released, in the background, a few at a time, by every worker: the
//! tombstone's compare-and-set makes that safe.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use link::inbox::jitter;
use link::{Link, Store, streams};
use telemetry::{Count, Page, Source};
use tokio::time::Instant;
use uuid::Uuid;

use crate::events::Floor;
use crate::ledger::Ledger;
use crate::release::{Fate, Releaser};
use crate::waits::EVENT;

/// Reservations of one sweep.
const SWEEP: usize = 1_000;
/// Releases at the same time.
const AT_ONCE: usize = 16;
/// A reservation that cannot be settled now is looked at again after this, so that it is in nobody's way.
const LATER: Duration = Duration::from_secs(30);
/// Reservations that are remembered as such.
const POSTPONED: usize = 100_000;

/// Sweeps until it is dropped.
pub struct Expiry {
    ledger: Ledger,
    releaser: Releaser,
    dead_letters: Store,
    floor: Arc<Floor>,
    pause: Duration,
    postponed: HashMap<Uuid, Instant>,
    ends: Arc<Ends>,
}

/// What expiry came to.
#[derive(Debug, Default)]
pub struct Ends {
    expired: Count,
    /// Due, and not to be settled now.
    stuck: AtomicUsize,
}

impl Source for Ends {
    fn tell(&self, page: &mut Page) {
        let help = "Reservations that this worker's expiry has settled.";
        page.count("inventory_reservations_expired_total", help, &[], self.expired.get());
        let help = "Reservations that are due and cannot be settled now.";
        let stuck = self.stuck.load(Ordering::Relaxed) as f64;
        page.level("inventory_reservations_stuck", help, &[], stuck);
    }
}

impl Expiry {
    /// Sweeps a ledger every `pause`.
    pub fn new(link: Link, ledger: Ledger, releaser: Releaser, floor: Arc<Floor>, pause: Duration) -> Expiry {
        let dead_letters = Store::new(link, streams::DEAD_LETTERS);
        Expiry {
            ledger,
            releaser,
            dead_letters,
            floor,
            pause,
            postponed: HashMap::new(),
            ends: Arc::default(),
        }
    }

    /// What it came to.
    pub fn figures(&self) -> Arc<Ends> {
        self.ends.clone()
    }

    /// Sweeps for ever.
    pub async fn run(mut self) {
        loop {
            // Workers that sweep at the same time only get in each other's way.
            let spread = u64::try_from(self.pause.as_millis()).unwrap_or(1_000);
            tokio::time::sleep(self.pause / 2 + Duration::from_millis(jitter(spread))).await;
            self.sweep().await;
        }
    }

    async fn sweep(&mut self) {
        let now = Instant::now();
        self.postponed.retain(|_, until| *until > now);
        self.ends.stuck.store(self.postponed.len(), Ordering::Relaxed);
        let waits = |order: &Uuid| self.postponed.contains_key(order);
        let due: Vec<Uuid> = self
            .ledger
            .stock()
            .expired(self.ledger.clock().unix_ms())
            .filter(|order| !waits(order))
            .take(SWEEP)
            .collect();
        if due.is_empty() {
            return;
        }
        // Read before the dead letters are: what was given up as one of those is stored before the floor passes it.
        let floor = self.floor.read().await.unwrap_or(0);
        let this = &*self;
        let settled: Vec<(Uuid, bool)> = stream::iter(due)
            .map(|order| async move { (order, this.expire(order, floor).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let released = settled.iter().filter(|(_, done)| *done).count();
        self.ends.expired.add(released as u64);
        tracing::debug!(released, "reservations expired");
        let left = settled.into_iter().filter(|(_, done)| !done).map(|(order, _)| (order, now + LATER));
        self.postponed.extend(left.take(POSTPONED.saturating_sub(self.postponed.len())));
    }

    /// Whether the reservation was dealt with; if not, a later sweep finds it again.
    async fn expire(&self, order: Uuid, floor: u64) -> bool {
        let deadline = Instant::now() + EVENT;
        // An event of the order that could not be worked off is an operator's (MODEL.md, C5).
        match self.dead_letters.last(&format!("{}.{order}", streams::DEAD_LETTER_PREFIX), deadline).await {
            Ok(None) => {}
            Ok(Some(letter)) => {
                tracing::warn!(order_id = %order, dead_letter = letter.sequence, "an expired reservation waits for its dead letter");
                return false;
            }
            Err(error) => {
                tracing::warn!(order_id = %order, %error, "a reservation could not be expired now");
                return false;
            }
        }
        let settled = match self.releaser.release(order, deadline).await {
            Ok(Fate::Gone | Fate::Settled) => Ok(true),
            Ok(Fate::Living(status, event)) => {
                self.releaser.settle(order, status, event, floor, deadline).await
            }
            Err(failure) => Err(failure),
        };
        settled.unwrap_or_else(|failure| {
            tracing::warn!(order_id = %order, error = failure.logged(), "a reservation could not be expired now");
            false
        })
    }
}
