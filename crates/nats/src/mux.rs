//! One connection with its own reply inbox (request multiplexer): requests end at their deadline, leave nothing behind,
//! and fail at once while disconnected. (The client library's own requests do none of the three.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, PublishErrorKind, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use telemetry::{Exposition, Source};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::node::Node;
use crate::options::{ConnectError, Options};
pub use crate::pending::RequestError;
use crate::pending::{End, Pending};
use crate::permissions::PermissionViolation;
use crate::subscriptions::LiveSubscriptions;

/// The most messages without a reply that are handed over at once: fewer than the client library's queue of events has
/// room for.
const TURNS: usize = 64;

/// A connection to NATS. Clones share it. Use it on the runtime that created it.
///
/// ```no_run
/// use async_nats::HeaderMap;
/// use nats::{Connection, Options, RequestError};
/// use tokio::time::{Duration, Instant};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connection = Connection::connect(&Options::at("nats://127.0.0.1:4222"), "bookstore").await?;
/// let deadline = Instant::now() + Duration::from_secs(2);
/// match connection.request("books.get", HeaderMap::new(), r#"{"bookId":"b-7"}"#.into(), deadline).await {
///     Ok(reply) => println!("{}", String::from_utf8_lossy(&reply.payload)),
///     Err(error @ (RequestError::Timeout | RequestError::Lost)) => println!("maybe delivered: {error}"),
///     Err(error) => println!("not delivered: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    name: String,
    pub(crate) client: Client,
    inbox: String,
    next: AtomicU64,
    waiting: Arc<Pending>,
    /// Messages without a reply that are handed over at once.
    pub(crate) turns: Semaphore,
    clock: Arc<Clock>,
    /// Closed when replies are no longer delivered.
    closed: watch::Receiver<()>,
}

impl Connection {
    /// Connects, and subscribes to the inbox. A connection that is lost later is made again by itself.
    ///
    /// # Errors
    ///
    /// The options are invalid, a file that they name cannot be used, or no server accepts the connection: it rejects the
    /// credentials, has a certificate that is not trusted, or does not answer within `nats_connect_timeout`.
    pub async fn connect(options: &Options, name: &str) -> Result<Connection, ConnectError> {
        let waiting = Arc::new(Pending::default());
        let node = Arc::new(Node::new(name, options.shown()));
        let client = options.connect(name, node.clone(), waiting.clone()).await?;
        let inbox = client.new_inbox();
        let replies = client.subscribe(format!("{inbox}.*")).await?;
        let (name, next, clock) = (name.to_owned(), AtomicU64::new(0), Clock::new(options.wall));
        let (delivers, closed) = watch::channel(());
        let turns = Semaphore::new(TURNS);
        let shared = Arc::new(Shared { name, client, inbox, next, waiting, turns, clock, closed });
        let task = deliver(replies, Arc::downgrade(&shared));
        tokio::spawn(async move {
            // Dropped when the task ends, also by a panic.
            let _delivers = delivers;
            task.await;
        });
        let asked = Arc::downgrade(&shared);
        node.ask(move || asked.upgrade()?.client.try_server_info());
        Ok(Connection { shared })
    }

    /// The client, for subscriptions and consumers.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Its name, as servers list it.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Whether both are clones of one.
    pub fn is_same(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether there is a connection now.
    pub fn connected(&self) -> bool {
        self.shared.client.connection_state() == State::Connected
    }

    /// Returns when replies are no longer delivered: the client was closed, or the task that delivers them has ended.
    /// Does not keep the connection open.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.shared.closed.clone();
        // The sender never sends; it is only dropped.
        async move { while closed.changed().await.is_ok() {} }
    }

    /// Why there is no connection, as a text for an operator.
    pub fn absence(&self) -> String {
        match self.shared.waiting.why() {
            Some(why) => format!("not connected to NATS: {why}"),
            None => "not connected to NATS".to_owned(),
        }
    }

    /// JetStream's time of day, as received over this connection.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.shared.clock
    }

    /// The number of requests waiting for a reply.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.count()
    }

    /// Runs this work, unless the server reports a permissions violation on this connection, now or earlier. For use at
    /// start: where one thing is not permitted, waiting for the rest only hides the cause.
    ///
    /// # Errors
    ///
    /// The violation, not necessarily of this work. The work is dropped where it waits: what it has sent may have been
    /// delivered.
    pub async fn permitted<T>(&self, work: impl Future<Output = T>) -> Result<T, PermissionViolation> {
        let mut denied = self.shared.waiting.denied.subscribe();
        // `self` owns the sender.
        let denied = async {
            match denied.wait_for(Option::is_some).await.ok().and_then(|denied| denied.clone()) {
                Some(denied) => denied,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            denied = denied => Err(denied),
            done = work => Ok(done),
        }
    }

    /// Sends a request and waits for its reply until the deadline.
    ///
    /// # Errors
    ///
    /// Why there is no reply. Maybe delivered: [`RequestError::Timeout`] and [`RequestError::Lost`]. All others mean that
    /// it was not delivered; without a connection, the error is returned at once.
    pub async fn request(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, RequestError> {
        let exchange = self.exchange(subject, headers, payload);
        tokio::time::timeout_at(deadline, exchange).await.unwrap_or(Err(RequestError::Timeout))
    }

    /// Sends a request and waits for its reply. The caller keeps the deadline: dropping the future leaves nothing
    /// behind, but the request may have been delivered.
    ///
    /// # Errors
    ///
    /// As for [`Connection::request`], but it waits for the reply as long as it is polled.
    pub async fn exchange(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, RequestError> {
        if !self.connected() {
            return Err(RequestError::Disconnected);
        }
        let subject = subject.into();
        let mut ticket = PendingGuard::take(&self.shared, subject.clone());
        self.publish_to(subject, self.shared.reply(ticket.number), headers, payload).await?;
        let message = ticket.wait().await?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(RequestError::NoResponders);
        }
        Ok(message)
    }
}

impl Connection {
    /// Publishes with a reply subject.
    pub(crate) async fn publish_to(
        &self,
        subject: Subject,
        reply: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), RequestError> {
        let client = &self.shared.client;
        let (size, limit) = (payload.len(), client.max_payload());
        let sent = if headers.is_empty() {
            client.publish_with_reply(subject, reply, payload).await
        } else {
            client.publish_with_reply_and_headers(subject, reply, headers, payload).await
        };
        sent.map_err(|error| unsent(error, size, limit))
    }

    /// Watches over something sent to this subject until it is forgotten: its end comes when the connection is lost, or
    /// when the server does not permit it.
    pub(crate) fn hold(&self, subject: Subject) -> (u64, oneshot::Receiver<End>) {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        (number, self.shared.waiting.hold(number, subject))
    }

    /// The reply subject of what is held under this number.
    pub(crate) fn reply_to(&self, number: u64) -> Subject {
        self.shared.reply(number)
    }

    /// A number that nothing else of this connection has.
    pub(crate) fn number(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How often messages of this connection were dropped, because this process is a slow consumer.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.waiting.slow.get()
    }

    /// The subscriptions that end with the connection.
    pub(crate) fn live(&self) -> &LiveSubscriptions {
        &self.shared.waiting.live
    }

    /// Ends [`Connection::hold`].
    pub(crate) fn forget(&self, number: u64) {
        self.shared.waiting.forget(number);
    }
}

pub(crate) fn unsent(error: async_nats::PublishError, size: usize, limit: usize) -> RequestError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => RequestError::TooLarge { size, limit },
        PublishErrorKind::Send => RequestError::Disconnected,
        PublishErrorKind::InvalidSubject => RequestError::Unsendable(error),
    }
}

impl Source for Connection {
    fn collect(&self, page: &mut Exposition) {
        let Shared { name, waiting, .. } = &*self.shared;
        let connection = [("connection", name.as_str())];
        page.flag("nats_connected", "Whether the connection to NATS is up.", &connection, self.connected());
        let reconnects = waiting.connects.get().saturating_sub(1);
        page.counter("nats_reconnects_total", "Reconnects to NATS.", &connection, reconnects);
        let help = "Times that NATS messages were dropped because this process is a slow consumer.";
        page.counter("nats_slow_consumers_total", help, &connection, waiting.slow.get());
        let waits = waiting.count() as f64;
        page.gauge("nats_requests_waiting", "Requests waiting for their reply.", &connection, waits);
        self.shared.clock.page(page, name);
    }
}

impl Shared {
    /// The reply subject of this request.
    pub(crate) fn reply(&self, number: u64) -> Subject {
        let mut digits = itoa::Buffer::new();
        Subject::from([&self.inbox, ".", digits.format(number)].concat())
    }
}

/// An entry in the map of pending requests, removed on drop.
pub(crate) struct PendingGuard<'a> {
    shared: &'a Shared,
    pub(crate) number: u64,
    end: oneshot::Receiver<End>,
    ended: bool,
}

impl PendingGuard<'_> {
    pub(crate) fn take(shared: &Shared, subject: Subject) -> PendingGuard<'_> {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        PendingGuard { shared, number, end: shared.waiting.hold(number, subject), ended: false }
    }

    /// An entry whose request goes to the own inbox.
    pub(crate) fn echo(shared: &Shared) -> PendingGuard<'_> {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let subject = shared.reply(number);
        PendingGuard { shared, number, end: shared.waiting.hold(number, subject), ended: false }
    }

    /// What has come so far.
    pub(crate) fn now(&mut self) -> Option<End> {
        let end = self.end.try_recv().ok()?;
        self.ended = true;
        Some(end)
    }

    pub(crate) async fn wait(&mut self) -> End {
        // The map owns the sender until the reply arrives or this entry is dropped.
        let end = (&mut self.end).await.unwrap_or(Err(RequestError::Timeout));
        self.ended = true;
        end
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.waiting.forget(self.number);
        }
    }
}

/// Delivers replies to their requests until the last clone of the connection is dropped.
async fn deliver(mut replies: async_nats::Subscriber, shared: std::sync::Weak<Shared>) {
    while let Some(message) = replies.next().await {
        let Some(shared) = shared.upgrade() else { return };
        let number = message.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        if let Some(number) = number {
            shared.waiting.answer(number, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_closed_once_it_delivers_no_replies() {
        let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let connection = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
        let mut closed = std::pin::pin!(connection.closed());
        assert!(futures_util::poll!(&mut closed).is_pending());
        connection.client().drain().await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), closed).await.expect("it is closed");
    }
}
