//! The data behind ListOrders and WatchOrders: one reader of the record per gateway for recent entries, and one more
//! until the index of the history is built, regardless of the number of clients. Owns the reader tasks. Must not write,
//! and must not decide what an order may do.

#[cfg(test)]
pub(crate) mod fixture;
mod follow;
#[cfg(any(test, fuzzing, feature = "fuzz"))]
pub mod fuzz;
pub mod index;
mod replay;
mod ring;
pub mod scan;
mod shared;
mod slots;
#[cfg(test)]
mod tests;
pub mod token;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use contract::OrderReason;
use contract::orders::v1 as pb;
use futures_util::Stream;
use nats::{Connection, Store, StoreError};
use order_streams::ORDERS;
use parking_lot::RwLock;
use telemetry::{Counter, Exposition, Source};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::{Delivered, Failure, Reason};

use crate::order::damage::Damage;
use crate::order::request::Whose;
use crate::share::WATCHES;
use bridge::call::CallContext;
use index::{Filter, Index};
use ring::Ring;
use server::supervisor::Supervisor;
use shared::{LATER, Shared, refused};
pub use shared::{Leave, Limits, WatchPermit};
use token::Tokens;
use watcher::Watcher;

/// How long the start may take.
const START: Duration = Duration::from_secs(10);

/// The feed of one gateway. Its tasks end when it is dropped.
pub struct Feed {
    shared: Arc<Shared>,
    /// The reader tasks; dropping them ends them.
    _tasks: JoinSet<()>,
}

/// A change of an order, for the console.
#[derive(Debug, Clone)]
pub struct Change {
    /// The event's sequence.
    pub sequence: u64,
    /// What happened.
    pub kind: pb::OrderEvent,
    /// The order after it; none if it cannot be read.
    pub order: Option<pb::Order>,
}

impl Change {
    fn of(event: &ring::Event, damage: &Damage) -> Change {
        Change { sequence: event.sequence, kind: event.kind(), order: event.order(damage).cloned() }
    }
}

impl Source for Feed {
    fn collect(&self, page: &mut Exposition) {
        let Shared { watches, limits, slow, ring, damage, .. } = &*self.shared;
        let open = limits.watches.saturating_sub(watches.available_permits()) as f64;
        page.gauge("gateway_watches", "Open watches.", &[], open);
        let help = "Watches that ended because their client was too slow.";
        page.counter("gateway_watches_slow_total", help, &[], slow.get());
        let help = "Reads of entries of the record of orders that cannot be decoded.";
        page.counter("gateway_record_unreadable_total", help, &[], damage.met());
        let orders = self.shared.index().orders() as f64;
        page.gauge("gateway_index_orders", "Orders in the index that serves ListOrders.", &[], orders);
        let lag = ring.head().borrow().saturating_sub(self.known()) as f64;
        page.gauge(
            "gateway_index_lag",
            "Entries of the record that the index has not applied yet.",
            &[],
            lag,
        );
    }
}

impl Feed {
    /// Starts to read the record on the current runtime, over a connection of the same runtime. `identity` is the
    /// stream's.
    pub async fn start(
        link: Connection,
        identity: String,
        limits: Limits,
        supervisor: &Supervisor,
    ) -> Result<Arc<Feed>, StoreError> {
        let store = Store::new(link.clone(), ORDERS);
        let range = store.range(Instant::now() + START).await?;
        let before = range.first.max(1) - 1;
        let preload = limits.preload.min(limits.entries) as u64;
        let oldest = range.last.saturating_sub(preload).max(before);
        let shared = Arc::new(Shared {
            link,
            runtime: Handle::current(),
            ring: Ring::after(oldest, limits.entries, limits.bytes),
            index: RwLock::new(Index::after(before)),
            applied: watch::Sender::new(before),
            begin: range.last,
            tokens: Tokens::new(identity),
            limits,
            watches: Arc::new(Semaphore::new(limits.watches)),
            slow: Counter::default(),
            damage: Arc::default(),
            replays: Arc::new(Semaphore::new(limits.replays)),
            reads: Semaphore::new(limits.reads),
            end: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        let ring = follow::fill_ring(Arc::clone(&shared), oldest + 1);
        tasks.spawn(supervisor.watch("reader of ORDERS", ring));
        let index = follow::fill_index(Arc::clone(&shared), before);
        tasks.spawn(supervisor.watch("index of orders", index));
        Ok(Arc::new(Feed { shared, _tasks: tasks }))
    }

    /// The last sequence that the index includes.
    pub fn known(&self) -> u64 {
        *self.shared.applied.borrow()
    }

    /// Waits until the index includes all that was on the record when the feed started.
    pub async fn caught_up(&self) {
        // The sender lives in `self`.
        let _ = self.shared.applied.subscribe().wait_for(|applied| *applied >= self.shared.begin).await;
    }

    /// The latest changes of orders, newest first, at most `most`.
    pub fn latest(&self, most: u64) -> Vec<Change> {
        let head = *self.shared.ring.head().borrow();
        let events = self.shared.ring.behind(head.saturating_sub(most), most).unwrap_or_default();
        events.iter().rev().flatten().map(|event| Change::of(event, &self.shared.damage)).collect()
    }

    /// The counter of entries that cannot be read.
    pub fn damage(&self) -> Arc<Damage> {
        Arc::clone(&self.shared.damage)
    }

    /// The stream's page and resume tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.shared.tokens
    }

    /// A page of a list that includes everything up to the sequence `reached`.
    pub async fn page(
        &self,
        filter: &Filter<'_>,
        before: Option<u64>,
        size: usize,
        reached: u64,
        call: &CallContext,
    ) -> Result<index::Page, Failure> {
        let mut applied = self.shared.applied.subscribe();
        timeout_at(call.deadline, applied.wait_for(|applied| *applied >= reached))
            .await
            .map_err(|_| call.late(Delivered::No))?
            .map_err(|_| {
                Failure::new(Reason::Draining, "the gateway is shutting down").delivered(Delivered::No)
            })?;
        Ok(self.shared.index().page(filter, before, size))
    }

    /// Waits for a permit to read the record, held until it is dropped. All threads share the permits.
    pub async fn turn(&self, call: &CallContext) -> Result<SemaphorePermit<'_>, Failure> {
        timeout_at(call.deadline, self.shared.reads.acquire())
            .await
            .map_err(|_| call.late(Delivered::No))?
            .map_err(|_| {
                Failure::new(Reason::Draining, "the gateway is shutting down").delivered(Delivered::No)
            })
    }

    /// The error of a list while the index is built.
    pub fn building() -> Failure {
        Failure::new(
            OrderReason::IndexBuilding,
            "the gateway has just started and is still building its index",
        )
        .delivered(Delivered::No)
        .retry_after(LATER)
    }

    /// A permit for a watch; to be taken before anything is read for it.
    pub fn enter(&self, call: &CallContext) -> Result<WatchPermit, Failure> {
        let place = WatchPermit::take(&self.shared.watches, WATCHES, call.shares());
        place.map_err(|full| refused(full, "open watches"))
    }

    /// Follows orders: a bookmark first, then every change after the sequence `from`.
    pub fn watch(
        &self,
        whose: Whose,
        from: u64,
        place: WatchPermit,
    ) -> Result<impl Stream<Item = Result<pb::WatchOrdersResponse, Failure>> + Send + use<>, Failure> {
        self.watch_until(Box::pin(std::future::pending()), whose, from, place)
    }

    /// The same, until `leave` completes: then the watch ends with a resume token.
    pub fn watch_until(
        &self,
        leave: Leave,
        whose: Whose,
        from: u64,
        place: WatchPermit,
    ) -> Result<impl Stream<Item = Result<pb::WatchOrdersResponse, Failure>> + Send + use<>, Failure> {
        let shared = &self.shared;
        if shared.end.is_cancelled() {
            return Err(shared.draining(from));
        }
        let watcher = Watcher::new(Arc::clone(shared), whose, from, place, leave);
        Ok(futures_util::stream::unfold(watcher, Watcher::step))
    }

    /// Ends every watch with a resume token, as the process shuts down.
    pub fn end(&self) {
        self.shared.end.cancel();
    }
}
