//! The budget of memory that requests may hold while they are read and worked on: of the whole process, of one
//! connection and of one caller. Each byte is charged when it comes and given back when its call no longer holds it. Must
//! never know what a request is.

mod tally;
mod unread;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use contract::failure::Detail;
use contract::{Delivered, Failure, Reason};
use telemetry::{Page, Source};

pub use tally::Tally;

use crate::answer::Periods;

/// When to come back: a request is worked on for some milliseconds.
const RETRY: Duration = Duration::from_millis(250);
/// When to come back with one stream too many: they are open for long.
const RETRY_STREAM: Duration = Duration::from_secs(5);
/// The whole budget has room for so many connections and callers that take all they may.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 4;
/// A part of the whole that only small requests may take: whoever fills the rest with large ones shuts nobody out who
/// calls as most do.
const RESERVED: usize = 8;
const SMALL: usize = 32 << 10;
/// And so many times what those who are not known may take together, where callers have to be known.
const UNKNOWN: usize = 8;
/// Of which one connection has a quarter: requests that are half sent on it leave room for others'.
const UNKNOWN_CONNECTION: usize = 4 * UNKNOWN;

/// What somebody holds of a bound, and of the one on answers that are not read.
#[derive(Debug, Default)]
pub struct Share {
    held: AtomicUsize,
    unread: AtomicUsize,
}

impl Share {
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

/// A bound, and what is held of it.
#[derive(Debug)]
struct Bound {
    most: usize,
    share: Share,
    refused: AtomicU64,
}

impl Bound {
    fn of(most: usize) -> Bound {
        Bound { most, share: Share::default(), refused: AtomicU64::new(0) }
    }

    fn take(&self, more: usize) -> bool {
        self.within(more, self.most)
    }

    /// The same for whoever may not take all of it.
    fn within(&self, more: usize, most: usize) -> bool {
        let fits = self.share.take(more, most);
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
}

/// Streams that are open for as long as a client likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Health watches.
    Watch,
    /// Reflection.
    Reflection,
}

impl Stream {
    const ALL: [Stream; 2] = [Stream::Watch, Stream::Reflection];

    const fn name(self) -> &'static str {
        match self {
            Stream::Watch => "health watches",
            Stream::Reflection => "reflection streams",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Stream::Watch => "health_watch",
            Stream::Reflection => "reflection",
        }
    }
}

/// How large the budget is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Bytes of all requests.
    pub all: usize,
    /// Bytes that one request may hold: each share has room for one.
    pub request: usize,
    /// Bytes of all answers that are not read; one more call is refused then.
    pub answers: usize,
    /// Bytes of the largest answer: each share has room for one.
    pub answer: usize,
    /// Health watches and reflection streams of all connections, each.
    pub streams: [usize; 2],
    /// The same of one connection.
    pub connection_streams: [usize; 2],
}

/// The budget of a process. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    size: Size,
    bytes: Bound,
    streams: [Bound; 2],
    /// What those hold who call without a credential.
    unknown: Arc<Share>,
    /// Refused for a connection's share, and for a caller's.
    connections: AtomicU64,
    callers: AtomicU64,
}

/// One connection's part.
#[derive(Debug)]
pub struct Connection {
    budget: Budget,
    bytes: Share,
    /// What those hold on it who call without a credential.
    unknown: Share,
    streams: [Share; 2],
    tally: Tally,
    periods: Periods,
}

/// What one request holds. Given back on drop.
#[derive(Debug)]
pub struct Charge {
    connection: Arc<Connection>,
    owner: OnceLock<Owner>,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Owner {
    share: Arc<Share>,
    most: usize,
    /// What the connection may hold of it, if that is bounded.
    connection: Option<usize>,
}

/// An open stream's place. Given back on drop.
#[derive(Debug)]
pub struct Place {
    connection: Arc<Connection>,
    stream: Stream,
}

impl Budget {
    /// A budget of this size.
    pub fn new(size: Size) -> Budget {
        Budget(Arc::new(Inner {
            size,
            bytes: Bound::of(size.all),
            streams: size.streams.map(Bound::of),
            unknown: Arc::default(),
            connections: AtomicU64::new(0),
            callers: AtomicU64::new(0),
        }))
    }

    /// The part of a new connection.
    pub fn connection(&self) -> Arc<Connection> {
        self.counting(Tally::default())
    }

    /// The same, with its requests counted here.
    pub fn counting(&self, tally: Tally) -> Arc<Connection> {
        Arc::new(Connection {
            budget: self.clone(),
            bytes: Share::default(),
            unknown: Share::default(),
            streams: Default::default(),
            tally,
            periods: Periods::default(),
        })
    }

    /// What a request that holds so much may fill: a large one leaves something, but has room for itself.
    fn room(&self, held: usize) -> usize {
        let Size { all, request, .. } = self.0.size;
        if held <= SMALL { all } else { (all - all / RESERVED).max(request.min(all)) }
    }

    /// A part of the whole, with room for one request at least.
    fn part(&self, of: usize) -> usize {
        (self.0.size.all / of).max(self.0.size.request)
    }
}

impl Connection {
    /// Charges a new request.
    pub fn begin(self: &Arc<Self>, bytes: usize) -> Result<Charge, Failure> {
        self.unread().inspect_err(|_| self.refused())?;
        let charge = Charge { connection: self.clone(), owner: OnceLock::new(), bytes: AtomicUsize::new(0) };
        charge.more(bytes).inspect_err(|_| self.refused()).map(|()| charge)
    }

    /// Opens a stream.
    pub fn open(self: &Arc<Self>, stream: Stream) -> Result<Place, Failure> {
        let Inner { size, streams, .. } = &*self.budget.0;
        let bound = &streams[stream as usize];
        let full = |subject: &str, most: usize| {
            self.refused();
            let limit = format!("{most} {} open", stream.name());
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
        Ok(Place { connection: self.clone(), stream })
    }
}

impl Charge {
    /// Charges more bytes of the same request.
    pub fn more(&self, bytes: usize) -> Result<(), Failure> {
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
            return Err(exceeded(format!("{most} bytes of one caller's requests held")));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The request is a known caller's.
    pub fn owned(&self, share: &Arc<Share>) -> Result<(), Failure> {
        let most = self.connection.budget.part(CALLERS);
        let owner = Owner { share: share.clone(), most, connection: None };
        if let Err(failure) = owner.unread(&self.connection) {
            self.connection.budget.0.callers.fetch_add(1, Ordering::Relaxed);
            return Err(failure);
        }
        self.own(owner)
    }

    /// The request is nobody's, where callers have to be known.
    pub fn unknown(&self) -> Result<(), Failure> {
        let budget = &self.connection.budget;
        let connection = Some(budget.part(UNKNOWN_CONNECTION));
        self.own(Owner { share: budget.0.unknown.clone(), most: budget.part(UNKNOWN), connection })
    }

    fn own(&self, owner: Owner) -> Result<(), Failure> {
        if let Err(most) = owner.take(&self.connection, self.bytes.load(Ordering::Relaxed)) {
            self.connection.budget.0.callers.fetch_add(1, Ordering::Relaxed);
            return Err(exceeded(format!("{most} bytes of one caller's requests held")));
        }
        // It is said once.
        self.owner.get_or_init(|| owner);
        Ok(())
    }
}

impl Owner {
    /// Takes so much, or says what bounds it.
    fn take(&self, connection: &Connection, bytes: usize) -> Result<(), usize> {
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

    fn give(&self, connection: &Connection, bytes: usize) {
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

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.streams[self.stream as usize].give(1);
        self.connection.budget.0.streams[self.stream as usize].share.give(1);
    }
}

fn held(subject: &str, most: usize) -> Failure {
    Failure::overloaded(subject, &format!("{most} bytes of requests held"), RETRY)
}

/// What a caller is told who has all of this share.
fn exceeded(limit: String) -> Failure {
    Failure::new(Reason::QuotaExceeded, format!("over the limit of {limit}"))
        .delivered(Delivered::No)
        .retry_after(RETRY)
        .detail(Detail::Quota { subject: "caller".to_owned(), description: limit })
}

impl Source for Budget {
    fn tell(&self, page: &mut Page) {
        let Inner { size, bytes, streams, connections, callers, .. } = &*self.0;
        let help =
            "Bytes that requests hold while they are read and worked on, with what each call takes besides.";
        page.level("gateway_request_bytes", help, &[], bytes.share.held() as f64);
        let help = "What gateway_request_bytes may be at the most (GW_MAX_BUFFERED_BYTES).";
        page.level("gateway_request_bytes_limit", help, &[], size.all as f64);
        let help = "Bytes of answers that their clients have not taken.";
        page.level("gateway_answer_bytes", help, &[], bytes.share.unread() as f64);
        let help = "What gateway_answer_bytes may be before no call is let in.";
        page.level("gateway_answer_bytes_limit", help, &[], size.answers as f64);
        let help = "Requests that were shed as there was no room for their bytes, by whose share was full.";
        for (share, count) in [("process", &bytes.refused), ("connection", connections), ("caller", callers)]
        {
            let count = count.load(Ordering::Relaxed);
            page.count("gateway_request_bytes_shed_total", help, &[("share", share)], count);
        }
        for stream in Stream::ALL {
            let (bound, label) = (&streams[stream as usize], [("kind", stream.label())]);
            let help = "Health watches and reflection streams that are open.";
            page.level("gateway_open_streams", help, &label, bound.share.held() as f64);
            let help = "Health watches and reflection streams that were refused.";
            let refused = bound.refused.load(Ordering::Relaxed);
            page.count("gateway_open_streams_refused_total", help, &label, refused);
        }
    }
}

#[cfg(test)]
mod tests;
