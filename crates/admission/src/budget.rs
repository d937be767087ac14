//! The memory budget of requests while they are read and processed: of the process, of each connection and of each
//! caller. Each byte is charged on arrival and released when its call no longer holds it. Must not depend on what a
//! request is.

mod exposition;
mod stream;
mod tally;
mod unread;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wire::failure::Detail;
use wire::{Delivered, Failure, Reason};

pub(crate) use stream::StreamKind;
pub use tally::ConnectionMetrics;

use crate::unsent::Periods;

/// The retry delay: a request is processed within milliseconds.
const RETRY: Duration = Duration::from_millis(250);
/// The retry delay when the stream limit is reached: streams are open for long.
const RETRY_STREAM: Duration = Duration::from_secs(5);
/// The number of connections, and of callers, that may use their full share at the same time.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 4;
/// The fraction (1/8) of the budget reserved for small requests: clients that fill the rest with large requests do not
/// shut out the others.
const RESERVED: usize = 8;
const SMALL: usize = 32 << 10;
/// The fraction (1/8) of the budget for all calls without credentials, where credentials are required.
const UNKNOWN: usize = 8;
/// The fraction of the budget for such calls on one connection, a quarter of theirs: it leaves room for other
/// connections'.
const UNKNOWN_CONNECTION: usize = 4 * UNKNOWN;

/// The bytes held of a limit, and those of unread responses.
#[derive(Debug, Default)]
pub struct CallerShare {
    held: AtomicUsize,
    unread: AtomicUsize,
}

impl CallerShare {
    fn take(&self, more: usize, most: usize) -> bool {
        let fits = self.held.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= most;
        if !fits {
            self.give(more);
        }
        fits
    }

    fn give(&self, less: usize) {
        self.held.fetch_sub(less, Ordering::Relaxed);
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// A limit, and the bytes held of it.
#[derive(Debug)]
struct Bound {
    most: usize,
    share: CallerShare,
    refused: AtomicU64,
}

impl Bound {
    fn of(most: usize) -> Bound {
        Bound { most, share: CallerShare::default(), refused: AtomicU64::new(0) }
    }

    fn take(&self, more: usize) -> bool {
        self.within(more, self.most)
    }

    /// The same, for a request that may not use the whole limit.
    fn within(&self, more: usize, most: usize) -> bool {
        let fits = self.share.take(more, most);
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
}

/// The size of the budget.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Maximum bytes of all requests.
    pub all: usize,
    /// Maximum bytes of one request: each share has room for one.
    pub request: usize,
    /// Maximum bytes of all unread responses; beyond it, new calls are refused.
    pub answers: usize,
    /// Maximum bytes of one response: each share has room for one.
    pub answer: usize,
    /// Maximum health watches, and reflection streams, of all connections.
    pub streams: [usize; 2],
    /// The same limits for one connection; 0: such streams are not served.
    pub connection_streams: [usize; 2],
}

/// The budget of the process. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    size: Size,
    bytes: Bound,
    streams: [Bound; 2],
    /// Bytes held by calls without credentials.
    unknown: Arc<CallerShare>,
    /// Requests refused by the limit of a connection, and of a caller.
    connections: AtomicU64,
    callers: AtomicU64,
}

/// One connection's share of the budget.
#[derive(Debug)]
pub struct ConnectionBudget {
    budget: MemoryBudget,
    bytes: CallerShare,
    /// Bytes held on it by calls without credentials.
    unknown: CallerShare,
    streams: [CallerShare; 2],
    tally: ConnectionMetrics,
    periods: Periods,
}

/// The bytes that one request holds, released on drop.
#[derive(Debug)]
pub struct Charge {
    connection: Arc<ConnectionBudget>,
    owner: OnceLock<Owner>,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Owner {
    share: Arc<CallerShare>,
    most: usize,
    /// The connection's limit within the share, if it has one.
    connection: Option<usize>,
}

/// The permit of an open stream, released on drop.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    connection: Arc<ConnectionBudget>,
    stream: StreamKind,
}

impl MemoryBudget {
    /// A budget of this size.
    pub fn new(size: Size) -> MemoryBudget {
        MemoryBudget(Arc::new(Inner {
            size,
            bytes: Bound::of(size.all),
            streams: size.streams.map(Bound::of),
            unknown: Arc::default(),
            connections: AtomicU64::new(0),
            callers: AtomicU64::new(0),
        }))
    }

    /// The share of a new connection.
    #[cfg(test)]
    pub(crate) fn connection(&self) -> Arc<ConnectionBudget> {
        self.counting(ConnectionMetrics::default())
    }

    /// The share of a new connection, whose requests are counted in `metrics`.
    pub fn counting(&self, metrics: ConnectionMetrics) -> Arc<ConnectionBudget> {
        Arc::new(ConnectionBudget {
            budget: self.clone(),
            bytes: CallerShare::default(),
            unknown: CallerShare::default(),
            streams: Default::default(),
            tally: metrics,
            periods: Periods::default(),
        })
    }

    /// How far a request that holds `held` bytes may fill the budget: a large request leaves the reserve, but has room
    /// for itself.
    fn room(&self, held: usize) -> usize {
        let Size { all, request, .. } = self.0.size;
        if held <= SMALL { all } else { (all - all / RESERVED).max(request.min(all)) }
    }

    /// The fraction 1/`of` of the budget, with room for at least one request.
    fn part(&self, of: usize) -> usize {
        (self.0.size.all / of).max(self.0.size.request)
    }
}

impl ConnectionBudget {
    /// Charges a new request.
    ///
    /// # Errors
    ///
    /// OVERLOADED, not delivered: the connection or the process has too many bytes of requests that are read or processed,
    /// or of responses that their clients have not read.
    pub(crate) fn begin(self: &Arc<Self>, bytes: usize) -> Result<Charge, Failure> {
        self.unread().inspect_err(|_| self.tally.refuse())?;
        let charge = Charge { connection: self.clone(), owner: OnceLock::new(), bytes: AtomicUsize::new(0) };
        charge.more(bytes).inspect_err(|_| self.tally.refuse()).map(|()| charge)
    }

    /// Whether such streams are served here at all; where they are not, the service answers, as to an unknown method.
    pub(crate) fn serves(&self, stream: StreamKind) -> bool {
        self.budget.0.size.connection_streams[stream as usize] > 0
    }

    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// OVERLOADED, not delivered: the connection or the process has as many of this kind as it may.
    pub(crate) fn open(self: &Arc<Self>, stream: StreamKind) -> Result<StreamPermit, Failure> {
        let Inner { size, streams, .. } = &*self.budget.0;
        let bound = &streams[stream as usize];
        let full = |subject: &str, most: usize| {
            self.tally.refuse();
            let limit = format!("{most} open {}", stream.name());
            Failure::overloaded(subject, &limit, RETRY_STREAM)
        };
        let (mine, most) = (&self.streams[stream as usize], size.connection_streams[stream as usize]);
        if !mine.take(1, most) {
            bound.refused.fetch_add(1, Ordering::Relaxed);
            return Err(full("the connection", most));
        }
        if !bound.take(1) {
            mine.give(1);
            return Err(full("the process", bound.most));
        }
        Ok(StreamPermit { connection: self.clone(), stream })
    }
}

impl Charge {
    /// Records a complete request.
    pub(crate) fn whole(&self) {
        self.connection.tally.complete();
    }

    /// Records a request refused after this many bytes.
    pub(crate) fn wasted(&self, bytes: usize) {
        self.connection.tally.waste(bytes);
    }

    /// Charges more bytes of the same request.
    ///
    /// # Errors
    ///
    /// Not delivered, and nothing was charged: OVERLOADED where the share of the connection or of the process is used up,
    /// QUOTA_EXCEEDED where that of the caller is.
    pub(crate) fn more(&self, bytes: usize) -> Result<(), Failure> {
        let budget = &self.connection.budget;
        let Inner { bytes: all, connections, callers, .. } = &*budget.0;
        let most = budget.part(CONNECTIONS);
        if !self.connection.bytes.take(bytes, most) {
            connections.fetch_add(1, Ordering::Relaxed);
            return Err(held("the connection", most));
        }
        let room = budget.room(self.bytes.load(Ordering::Relaxed).saturating_add(bytes));
        if !all.within(bytes, room) {
            self.connection.bytes.give(bytes);
            return Err(held("the process", room));
        }
        if let Some(Err(most)) = self.owner.get().map(|owner| owner.take(&self.connection, bytes)) {
            self.connection.bytes.give(bytes);
            all.share.give(bytes);
            callers.fetch_add(1, Ordering::Relaxed);
            return Err(exceeded(format!("{most} bytes of one caller's buffered requests")));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Charges the request to a known caller.
    ///
    /// # Errors
    ///
    /// QUOTA_EXCEEDED, not delivered: the caller has too many bytes of requests, or of responses that it has not read.
    pub fn owned(&self, share: &Arc<CallerShare>) -> Result<(), Failure> {
        let most = self.connection.budget.part(CALLERS);
        let owner = Owner { share: share.clone(), most, connection: None };
        if let Err(failure) = owner.unread(&self.connection) {
            self.connection.budget.0.callers.fetch_add(1, Ordering::Relaxed);
            return Err(failure);
        }
        self.own(owner)
    }

    /// Charges the request to the share of calls without credentials, where credentials are required.
    ///
    /// # Errors
    ///
    /// QUOTA_EXCEEDED, not delivered: that share, or this connection's part of it, is used up.
    pub fn unknown(&self) -> Result<(), Failure> {
        let budget = &self.connection.budget;
        let connection = Some(budget.part(UNKNOWN_CONNECTION));
        self.own(Owner { share: budget.0.unknown.clone(), most: budget.part(UNKNOWN), connection })
    }

    fn own(&self, owner: Owner) -> Result<(), Failure> {
        if let Err(most) = owner.take(&self.connection, self.bytes.load(Ordering::Relaxed)) {
            self.connection.budget.0.callers.fetch_add(1, Ordering::Relaxed);
            return Err(exceeded(format!("{most} bytes of one caller's buffered requests")));
        }
        // It is set once.
        self.owner.get_or_init(|| owner);
        Ok(())
    }
}

impl Owner {
    /// Takes `bytes`, or returns the limit that prevents it.
    fn take(&self, connection: &ConnectionBudget, bytes: usize) -> Result<(), usize> {
        if let Some(most) = self.connection
            && !connection.unknown.take(bytes, most)
        {
            return Err(most);
        }
        if self.share.take(bytes, self.most) {
            return Ok(());
        }
        if self.connection.is_some() {
            connection.unknown.give(bytes);
        }
        Err(self.most)
    }

    fn give(&self, connection: &ConnectionBudget, bytes: usize) {
        self.share.give(bytes);
        if self.connection.is_some() {
            connection.unknown.give(bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.connection.bytes.give(bytes);
        self.connection.budget.0.bytes.share.give(bytes);
        if let Some(owner) = self.owner.get() {
            owner.give(&self.connection, bytes);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.connection.streams[self.stream as usize].give(1);
        self.connection.budget.0.streams[self.stream as usize].share.give(1);
    }
}

fn held(subject: &str, most: usize) -> Failure {
    Failure::overloaded(subject, &format!("limit of {most} bytes of buffered requests"), RETRY)
}

/// The failure for a caller that has used its whole share.
fn exceeded(limit: String) -> Failure {
    Failure::new(Reason::QuotaExceeded, format!("over the limit of {limit}"))
        .delivered(Delivered::No)
        .retry_after(RETRY)
        .detail(Detail::Quota { subject: "caller".to_owned(), description: limit })
}

#[cfg(test)]
mod tests;
