//! One connection with a reply inbox of its own: requests that end at their deadline, leave nothing behind, and fail
//! at once while there is no connection. (The client library's own requests do none of the three.)

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, PublishErrorKind, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::options::{ConnectError, Options};

/// A connection. Clones share it. To be used on the runtime that made it.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    inbox: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
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
        let client = options.connect(name).await?;
        let inbox = client.new_inbox();
        let replies = client.subscribe(format!("{inbox}.*")).await?;
        let shared =
            Arc::new(Shared { client, inbox, next: AtomicU64::new(0), waiting: Mutex::new(HashMap::new()) });
        tokio::spawn(deliver(replies, Arc::downgrade(&shared)));
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

    /// How many requests wait for a reply.
    pub fn waiting(&self) -> usize {
        self.shared.waiting().len()
    }

    /// Sends a request and waits for its reply until the deadline.
    pub async fn request(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, Trouble> {
        if !self.connected() {
            return Err(Trouble::Disconnected);
        }
        let (size, limit) = (payload.len(), self.shared.client.max_payload());
        let subject = subject.into();
        let exchange = async {
            let mut ticket = Ticket::take(&self.shared);
            let reply = Subject::from(format!("{}.{}", self.shared.inbox, ticket.number));
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
            // The sender lives in the map until the reply comes, or the ticket is dropped.
            (&mut ticket.reply).await.map_err(|_| Trouble::Timeout)
        };
        let message = tokio::time::timeout_at(deadline, exchange).await.map_err(|_| Trouble::Timeout)??;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Trouble::NoResponders);
        }
        Ok(message)
    }
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
        // Nothing panics while it is held, so the map is whole whatever happened elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the map of waiting requests, given back on drop.
struct Ticket<'a> {
    shared: &'a Shared,
    number: u64,
    reply: oneshot::Receiver<Message>,
}

impl Ticket<'_> {
    fn take(shared: &Shared) -> Ticket<'_> {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        shared.waiting().insert(number, sender);
        Ticket { shared, number, reply }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.number);
    }
}

/// Hands replies out until the last link is gone.
async fn deliver(mut replies: async_nats::Subscriber, shared: std::sync::Weak<Shared>) {
    while let Some(message) = replies.next().await {
        let Some(shared) = shared.upgrade() else { return };
        let number = message.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        let sender = number.and_then(|number| shared.waiting().remove(&number));
        if let Some(sender) = sender {
            // An error says that the request ended meanwhile.
            let _ = sender.send(message);
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
