//! One connection with a reply inbox of its own: requests that end at their deadline, leave nothing behind, and fail
//! at once while there is no connection. (The client library's own requests do none of the three.)

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, PublishErrorKind, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use telemetry::{Page, Source};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::denied::Denied;
use crate::node::Node;
use crate::options::{ConnectError, Options};
use crate::waiting::{End, Waiting};

/// A connection. Clones share it. To be used on the runtime that made it.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    client: Client,
    inbox: String,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    clock: Arc<Clock>,
}

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is no connection; nothing was sent.
    #[error("there is no connection to NATS")]
    Disconnected,
    /// Nobody subscribes to the subject; nothing was delivered.
    #[error("nobody subscribes to the subject")]
    NoResponders,
    /// No reply by the deadline; it may have been delivered.
    #[error("no reply by the deadline")]
    Timeout,
    /// The connection was lost while the reply was awaited; it may have been delivered.
    #[error("the connection to NATS was lost before the reply")]
    Lost,
    /// The server does not let us publish to the subject; nothing was delivered.
    #[error("NATS does not permit us to publish to the subject")]
    NotPermitted,
    /// Over the server's max_payload; nothing was sent.
    #[error("{size} bytes are over the limit of {limit}")]
    TooLarge {
        /// Bytes, headers included.
        size: usize,
        /// The server's max_payload.
        limit: usize,
    },
    /// The client refused to send it: a fault of ours.
    #[error("cannot be sent: {0}")]
    Unsendable(#[source] async_nats::PublishError),
}

impl Link {
    /// Connects, and subscribes to the inbox.
    pub async fn connect(options: &Options, name: &str) -> Result<Link, ConnectError> {
        let waiting = Arc::new(Waiting::default());
        let node = Arc::new(Node::new(name, options.shown()));
        let client = options.connect(name, node.clone(), waiting.clone()).await?;
        let inbox = client.new_inbox();
        let replies = client.subscribe(format!("{inbox}.*")).await?;
        let (name, next, clock) = (name.to_owned(), AtomicU64::new(0), Clock::new(options.wall));
        let shared = Arc::new(Shared { name, client, inbox, next, waiting, clock });
        tokio::spawn(deliver(replies, Arc::downgrade(&shared)));
        let asked = Arc::downgrade(&shared);
        node.ask(move || asked.upgrade()?.client.try_server_info());
        Ok(Link { shared })
    }

    /// The client, for subscriptions and consumers.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Whether there is a connection now.
    pub fn connected(&self) -> bool {
        self.shared.client.connection_state() == State::Connected
    }

    /// Why there is no connection, in words for an operator.
    pub fn absence(&self) -> String {
        match self.shared.waiting.why() {
            Some(why) => format!("there is no connection to NATS: {why}"),
            None => "there is no connection to NATS".to_owned(),
        }
    }

    /// The time of day, as JetStream tells it over this connection.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.shared.clock
    }

    /// How many requests wait for a reply.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.count()
    }

    /// Does this work, unless the server does not permit something to this connection meanwhile, or has not before. For
    /// starts: where one thing is not permitted, waiting for the rest only hides what is wrong.
    pub async fn permitted<T>(&self, work: impl Future<Output = T>) -> Result<T, Denied> {
        let mut denied = self.shared.waiting.denied.subscribe();
        // The sender lives in `self`.
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
    pub async fn request(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, Trouble> {
        let exchange = self.exchange(subject, headers, payload);
        tokio::time::timeout_at(deadline, exchange).await.unwrap_or(Err(Trouble::Timeout))
    }

    /// Sends a request and waits for its reply, for whoever keeps the deadline: nothing is left of it when it is dropped.
    pub async fn exchange(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, Trouble> {
        if !self.connected() {
            return Err(Trouble::Disconnected);
        }
        let (size, limit) = (payload.len(), self.shared.client.max_payload());
        let subject = subject.into();
        let mut ticket = Ticket::take(&self.shared, subject.clone());
        let reply = self.shared.reply(ticket.number);
        let client = &self.shared.client;
        let sent = if headers.is_empty() {
            client.publish_with_reply(subject, reply, payload).await
        } else {
            client.publish_with_reply_and_headers(subject, reply, headers, payload).await
        };
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Trouble::TooLarge { size, limit },
            PublishErrorKind::Send => Trouble::Disconnected,
            PublishErrorKind::InvalidSubject => Trouble::Unsendable(error),
        })?;
        let message = ticket.wait().await?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Trouble::NoResponders);
        }
        Ok(message)
    }
}

impl Source for Link {
    fn tell(&self, page: &mut Page) {
        let Shared { name, waiting, .. } = &*self.shared;
        let connection = [("connection", name.as_str())];
        page.flag("nats_connected", "Whether there is a connection to NATS.", &connection, self.connected());
        let reconnects = waiting.connects.get().saturating_sub(1);
        page.count(
            "nats_reconnects_total",
            "How often the connection was made again.",
            &connection,
            reconnects,
        );
        let help = "How often messages from NATS were dropped because we were too slow.";
        page.count("nats_slow_consumers_total", help, &connection, waiting.slow.get());
        let waits = waiting.count() as f64;
        page.level("nats_requests_waiting", "Requests that wait for their reply.", &connection, waits);
        self.shared.clock.page(page, name);
    }
}

impl Shared {
    /// The subject for the reply of this request.
    fn reply(&self, number: u64) -> Subject {
        let mut digits = itoa::Buffer::new();
        Subject::from([&self.inbox, ".", digits.format(number)].concat())
    }
}

/// A place in the map of waiting requests, given back on drop.
struct Ticket<'a> {
    shared: &'a Shared,
    number: u64,
    end: oneshot::Receiver<End>,
    ended: bool,
}

impl Ticket<'_> {
    fn take(shared: &Shared, subject: Subject) -> Ticket<'_> {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        Ticket { shared, number, end: shared.waiting.hold(number, subject), ended: false }
    }

    async fn wait(&mut self) -> End {
        // The sender lives in the map until the reply comes, or the ticket is dropped.
        let end = (&mut self.end).await.unwrap_or(Err(Trouble::Timeout));
        self.ended = true;
        end
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.waiting.forget(self.number);
        }
    }
}

/// Hands replies out until the last link is gone.
async fn deliver(mut replies: async_nats::Subscriber, shared: std::sync::Weak<Shared>) {
    while let Some(message) = replies.next().await {
        let Some(shared) = shared.upgrade() else { return };
        let number = message.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        if let Some(number) = number {
            shared.waiting.answer(number, message);
        }
    }
}

/// A random number from 0 to `ceiling`, for waits that must not fall together.
pub fn jitter(ceiling: u64) -> u64 {
    RandomState::new().hash_one(0_u8) % (ceiling + 1)
}

/// Full jitter under a doubling ceiling: what to wait before attempt `attempt` (0 is the first repeat).
pub fn backoff(base: Duration, attempt: u32, most: Duration) -> Duration {
    let ceiling = base.saturating_mul(1 << attempt.min(16)).min(most);
    Duration::from_micros(jitter(u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX - 1)))
}
