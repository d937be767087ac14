//! What listing and watching live on: one reader of the record per gateway for its recent entries, and one more until
//! the index of its history is built, however many clients there are. Owns the tasks; must never write, and never
//! decide what an order may do.

mod credit;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod index;
mod live;
pub mod register;
mod replay;
mod ring;
mod slots;
#[cfg(test)]
pub(crate) mod stage;
mod tail;
#[cfg(test)]
mod tests;
pub mod token;
mod watcher;

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use contract::orders::v1 as pb;
use contract::{Delivered, Failure, Reason};
use futures_util::Stream;
use link::streams::ORDERS;
use link::{Link, Store, StoreError};
use telemetry::{Count, Page, Source};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::gate::Full;
use crate::order::damage::Damage;
use crate::order::request::Whose;
use crate::share::{Hold, Shares, Slot, exceeded};
use index::{Filter, Index};
use ring::Ring;
use token::Tokens;
use watcher::Watcher;

/// How long the start may take.
const START: Duration = Duration::from_secs(10);
/// When to come back while the index is built, or a place is missing.
const LATER: Duration = Duration::from_secs(1);

/// Limits of a feed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Recent entries that are kept for watchers: a watcher that is further behind is too slow.
    pub entries: usize,
    /// Bytes that they may take, with the orders that are read from them.
    pub bytes: usize,
    /// Entries before the start that are kept too, so that clients which come back after a restart go on at once.
    pub preload: usize,
    /// Watches at once.
    pub watches: usize,
    /// Watches at once that read the history, because they resume behind the recent entries.
    pub replays: usize,
    /// Reads of the record at once, for lists and for watches that begin. The server queues 10,000 requests of all its
    /// clients at the most, and drops all of them beyond.
    pub reads: usize,
}

/// Ends when a watch's client has to go elsewhere.
pub type Leave = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A place of a watch, within its caller's share.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    hold: Option<Hold>,
}

impl Place {
    /// One more of a bound, if there is one for whoever holds `shares`.
    fn take(bound: &Arc<Semaphore>, slot: Slot, shares: Option<&Arc<Shares>>) -> Result<Place, Full> {
        let permit = Arc::clone(bound).try_acquire_owned().map_err(|_| Full::Gate)?;
        // Counted with this one among what is free: the last may be anybody's first.
        let hold = match shares {
            Some(shares) => {
                Some(shares.take_fairly(slot, bound.available_permits() + 1).ok_or(Full::by(shares))?)
            }
            None => None,
        };
        Ok(Place { _permit: permit, hold })
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 32_768, bytes: 32 << 20, preload: 4_096, watches: 16_384, replays: 16, reads: 256 }
    }
}

/// The feed of one gateway. Its tasks end when it is dropped.
pub struct Feed {
    shared: Arc<Shared>,
    /// Where its own tasks run, and with them the connection.
    _tasks: JoinSet<()>,
}

/// What the tasks, the watchers and the lists share.
struct Shared {
    link: Link,
    runtime: Handle,
    ring: Ring,
    index: RwLock<Index>,
    /// The last sequence that the index includes.
    applied: watch::Sender<u64>,
    /// The record's last sequence at the start.
    begin: u64,
    tokens: Tokens,
    limits: Limits,
    watches: Arc<Semaphore>,
    /// Watches that were ended for being too slow.
    slow: Count,
    damage: Arc<Damage>,
    replays: Arc<Semaphore>,
    reads: Semaphore,
    end: CancellationToken,
}

/// A change of an order, for people.
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
    fn tell(&self, page: &mut Page) {
        let Shared { watches, limits, slow, ring, damage, .. } = &*self.shared;
        let open = limits.watches.saturating_sub(watches.available_permits()) as f64;
        page.level("gateway_watches", "Watches that are open.", &[], open);
        let help = "Watches that ended because their client was too slow.";
        page.count("gateway_watches_slow_total", help, &[], slow.get());
        let help = "Times that an entry of the record of orders was met that cannot be read.";
        page.count("gateway_record_unreadable_total", help, &[], damage.met());
        let orders = self.shared.index().orders() as f64;
        page.level("gateway_index_orders", "Orders in the index that lists are read from.", &[], orders);
        let lag = ring.head().borrow().saturating_sub(self.known()) as f64;
        page.level("gateway_index_lag", "Entries of the record that the index has not yet.", &[], lag);
    }
}

impl Feed {
    /// Starts to read the record: on this runtime, over this connection of the same runtime. `identity` is the
    /// stream's.
    pub async fn start(link: Link, identity: String, limits: Limits) -> Result<Arc<Feed>, StoreError> {
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
            slow: Count::default(),
            damage: Arc::default(),
            replays: Arc::new(Semaphore::new(limits.replays)),
            reads: Semaphore::new(limits.reads),
            end: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(live::fill_ring(Arc::clone(&shared), oldest + 1));
        tasks.spawn(live::fill_index(Arc::clone(&shared), before));
        Ok(Arc::new(Feed { shared, _tasks: tasks }))
    }

    /// The last sequence that is known.
    pub fn known(&self) -> u64 {
        *self.shared.applied.borrow()
    }

    /// Waits until the index has all that was on the record when the feed was started.
    pub async fn caught_up(&self) {
        // The sender lives in `self`.
        let _ = self.shared.applied.subscribe().wait_for(|applied| *applied >= self.shared.begin).await;
    }

    /// The last changes of orders, the newest first, at most so many.
    pub fn latest(&self, most: u64) -> Vec<Change> {
        let head = *self.shared.ring.head().borrow();
        let events = self.shared.ring.behind(head.saturating_sub(most), most).unwrap_or_default();
        events.iter().rev().flatten().map(|event| Change::of(event, &self.shared.damage)).collect()
    }

    /// Where entries that cannot be read are noted.
    pub fn damage(&self) -> Arc<Damage> {
        Arc::clone(&self.shared.damage)
    }

    /// The stream's tokens.
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
        call: &Call,
    ) -> Result<index::Page, Failure> {
        let mut applied = self.shared.applied.subscribe();
        timeout_at(call.deadline, applied.wait_for(|applied| *applied >= reached))
            .await
            .map_err(|_| call.late(Delivered::No))?
            .map_err(|_| Failure::new(Reason::Draining, "the gateway ends").delivered(Delivered::No))?;
        Ok(self.shared.index().page(filter, before, size))
    }

    /// Waits for one's turn to read the record, which lasts until it is dropped. All threads share the turns.
    pub async fn turn(&self, call: &Call) -> Result<SemaphorePermit<'_>, Failure> {
        timeout_at(call.deadline, self.shared.reads.acquire())
            .await
            .map_err(|_| call.late(Delivered::No))?
            .map_err(|_| Failure::new(Reason::Draining, "the gateway ends").delivered(Delivered::No))
    }

    /// A list cannot be had yet.
    pub fn building() -> Failure {
        Failure::new(Reason::IndexBuilding, "the gateway has just started, and still reads the history")
            .delivered(Delivered::No)
            .retry_after(LATER)
    }

    /// A place for a watch: to be taken before anything is read for it.
    pub fn enter(&self, call: &Call) -> Result<Place, Failure> {
        let place = Place::take(&self.shared.watches, Slot::WATCHES, call.shares());
        place.map_err(|full| refused(full, "watches that are open"))
    }

    /// Follows orders: a bookmark first, then every change after the sequence `from`.
    pub fn watch(
        &self,
        whose: Whose,
        from: u64,
        place: Place,
    ) -> Result<impl Stream<Item = Result<pb::WatchOrdersResponse, Failure>> + Send + use<>, Failure> {
        self.watch_until(Box::pin(std::future::pending()), whose, from, place)
    }

    /// The same, until its client has to go elsewhere: then it ends with a resume token.
    pub fn watch_until(
        &self,
        leave: Leave,
        whose: Whose,
        from: u64,
        place: Place,
    ) -> Result<impl Stream<Item = Result<pb::WatchOrdersResponse, Failure>> + Send + use<>, Failure> {
        let shared = &self.shared;
        if shared.end.is_cancelled() {
            return Err(shared.draining(from));
        }
        let watcher = Watcher::new(Arc::clone(shared), whose, from, place, leave);
        Ok(futures_util::stream::unfold(watcher, Watcher::step))
    }

    /// The process ends: every watch ends with a resume token.
    pub fn end(&self) {
        self.shared.end.cancel();
    }
}

impl Shared {
    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        // Nothing panics while it is held for writing.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn draining(&self, cursor: u64) -> Failure {
        self.ended(Reason::Draining, "the gateway ends; go on with the resume_token", cursor)
    }

    fn moved(&self, cursor: u64) -> Failure {
        let message = "the connection has come of age; go on with the resume_token on another";
        self.ended(Reason::Draining, message, cursor)
    }

    /// A watch that ends and can go on.
    fn ended(&self, reason: Reason, message: &str, cursor: u64) -> Failure {
        Failure::new(reason, message)
            .delivered(Delivered::No)
            .retry_after(link::failure::RETRY)
            .with("resume_token", self.tokens.resume(cursor))
    }
}

fn refused(full: Full, bound: &str) -> Failure {
    match full {
        Full::Gate => {
            Failure::overloaded("/orders.v1.OrderService/WatchOrders", &format!("all {bound}"), LATER)
        }
        Full::Share => exceeded(format!("one caller's share of the {bound}"), LATER),
    }
}
