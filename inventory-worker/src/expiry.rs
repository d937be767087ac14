//! Releases expired reservations without an order, in the background, a few at a time. Every worker does so: the
//! tombstone's compare-and-set makes that safe.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use nats::backoff::jitter;
use nats::{Connection, Store};
use telemetry::{Counter, Exposition, Source};
use tokio::time::Instant;
use uuid::Uuid;

use crate::events::Floor;
use crate::ledger::Ledger;
use crate::release::{ReleaseOutcome, Releaser};
use crate::waits::EVENT;

/// The most reservations of one sweep.
const SWEEP: usize = 1_000;
/// Concurrent releases.
const AT_ONCE: usize = 16;
/// A reservation that cannot be released now is tried again after this, so that it does not block others.
const LATER: Duration = Duration::from_secs(30);
/// The most postponed reservations that are remembered.
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

/// The metrics of expiry.
#[derive(Debug, Default)]
pub struct Ends {
    expired: Counter,
    /// Due, but postponed.
    stuck: AtomicUsize,
}

impl Source for Ends {
    fn collect(&self, page: &mut Exposition) {
        let help = "Expired reservations that this worker has handled.";
        page.counter("inventory_reservations_expired_total", help, &[], self.expired.get());
        let help = "Expired reservations that cannot be released now.";
        let stuck = self.stuck.load(Ordering::Relaxed) as f64;
        page.gauge("inventory_reservations_stuck", help, &[], stuck);
    }
}

impl Expiry {
    /// Sweeps a ledger every `pause`.
    pub fn new(
        link: Connection,
        ledger: Ledger,
        releaser: Releaser,
        floor: Arc<Floor>,
        pause: Duration,
    ) -> Expiry {
        let dead_letters = Store::new(link, order_streams::DEAD_LETTERS);
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

    /// Its metrics.
    pub fn metrics(&self) -> Arc<Ends> {
        self.ends.clone()
    }

    /// Sweeps for ever.
    pub async fn run(mut self) {
        loop {
            // Jitter, as workers that sweep at the same time only conflict.
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
        // Read before the dead letters: a dead letter is stored before the floor passes its event.
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

    /// Whether the reservation was handled; if not, a later sweep finds it again.
    async fn expire(&self, order: Uuid, floor: u64) -> bool {
        let deadline = Instant::now() + EVENT;
        // An order with a dead letter is left to the operator (docs/protocol.md#c5).
        match self
            .dead_letters
            .last(&format!("{}.{order}", order_streams::DEAD_LETTER_PREFIX), deadline)
            .await
        {
            Ok(None) => {}
            Ok(Some(letter)) => {
                tracing::warn!(order_id = %order, dead_letter = letter.sequence, "an expired reservation waits until its dead letter is replayed or discarded");
                return false;
            }
            Err(error) => {
                tracing::warn!(order_id = %order, %error, "a reservation could not be expired now");
                return false;
            }
        }
        let settled = match self.releaser.release(order, deadline).await {
            Ok(ReleaseOutcome::Gone | ReleaseOutcome::Settled) => Ok(true),
            Ok(ReleaseOutcome::Living(status, event)) => {
                self.releaser.apply_status(order, status, event, floor, deadline).await
            }
            Err(failure) => Err(failure),
        };
        settled.unwrap_or_else(|failure| {
            tracing::warn!(order_id = %order, error = failure.logged(), "a reservation could not be expired now");
            false
        })
    }
}
