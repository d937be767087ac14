//! Messages that a client streams and a JetStream stream stores, one behind the other: a bounded number is sent ahead of
//! the acknowledgements, and what may be stored is found out before anything is said. Must not read the client.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Durable, Kind, Route};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use nats::{Conditions, PendingAck, PubAck, RequestError, StoreError};
use tokio::time::Instant;
use uuid::Uuid;
use wire::failure::Detail;
use wire::{Delivered, Failure, Reason};

use super::message::DurableMessage;
use super::outcomes::Outcomes;
use super::{no_stream, receipt, refused};
use crate::call::CallContext;
use crate::concurrency::Permit;
use crate::hedge::trace;
use crate::route_state::RouteState;
use crate::{BACKOFF, BACKOFF_MOST, Bridge, header, streams_only};

/// The most messages without an acknowledgement.
const MESSAGES: usize = 64;
/// The most bytes of them, if there are several.
const BYTES: usize = 256 << 10;

/// How often it is asked again how long the stream knows ids, and the pause before.
const LOOKUPS: u32 = 8;
const LOOKUP_PAUSE: Duration = Duration::from_millis(250);

/// A stream of messages that are being stored. Dropping it sends no more; what was sent may be stored.
pub struct Upload {
    bridge: Bridge,
    route: Arc<Route>,
    durable: Durable,
    call: CallContext,
    /// What the ids begin with that the gateway makes.
    id: String,
    /// How many were sent.
    sent: u64,
    /// What is waited for, as it was sent.
    acks: VecDeque<BoxFuture<'static, Acknowledged>>,
    /// Those that are not known to be stored, by their number.
    open: BTreeMap<u64, Open>,
    bytes: usize,
    outcomes: Outcomes,
    /// Why no more are sent.
    failure: Option<Failure>,
    _permit: Permit,
}

/// A message that was sent.
struct Open {
    message: DurableMessage,
    sent: Instant,
    /// Dropped when it is stored.
    _held: Box<dyn Any + Send>,
}

type Answer = Result<Result<PubAck, StoreError>, RequestError>;
/// The number of a message, and what was answered.
type Acknowledged = (u64, Answer);

impl Bridge {
    /// Begins to store the messages of a client.
    ///
    /// # Errors
    ///
    /// Nothing was sent: no connection, no place within the limits, or the route is of another kind.
    pub fn upload(&self, route: &Arc<Route>, call: CallContext) -> Result<Upload, Failure> {
        let durable = match &route.kind {
            Kind::EmitDurable(durable) if durable.streams => durable.clone(),
            _ => return Err(streams_only(route)),
        };
        let (_, permit) = self.enter(route, &call, RouteState::enter)?;
        self.look_up_storage(route, &durable);
        Ok(Upload {
            bridge: self.clone(),
            route: route.clone(),
            durable,
            call,
            id: Uuid::new_v4().simple().to_string(),
            sent: 0,
            acks: VecDeque::new(),
            open: BTreeMap::new(),
            bytes: 0,
            outcomes: Outcomes::default(),
            failure: None,
            _permit: permit,
        })
    }
}

impl Upload {
    /// Sends the next message, in the protobuf encoding of a request, when there is room. `held` is kept until it is stored.
    /// Cancelled, it has not been sent.
    ///
    /// # Errors
    ///
    /// Why this one, or one before, is not stored or may not be: to be given to [`Upload::abort`].
    pub async fn put(&mut self, request: &[u8], held: impl Send + 'static) -> Result<(), Failure> {
        let number = self.sent + 1;
        let read = self.bridge.states().of(&self.route).and_then(|state| {
            let made = |_| format!("{} {number}", self.id);
            DurableMessage::read(&self.route, state, &self.durable, request, &self.call, made)
        });
        let message = read.map_err(|failure| Failure {
            message: format!("message {number} of the stream: {}", failure.message),
            ..failure
        })?;
        self.room(message.payload.len()).await?;
        let mut tries = 0;
        let sent = Instant::now();
        let deadline = self.call.deadline.min(sent + self.route.timeout);
        let pending = loop {
            match self.publish(&message).await {
                Ok(pending) => break pending,
                // The connection may be back soon. What was sent before comes first.
                Err(RequestError::Disconnected) if tries < self.route.retries => {
                    tokio::time::sleep(nats::backoff::backoff(BACKOFF, tries, BACKOFF_MOST)).await;
                    self.settle().await?;
                    tries += 1;
                }
                Err(trouble) => return Err(self.unsent(&trouble)),
            }
        };
        self.sent = number;
        self.bytes += message.payload.len();
        self.open.insert(number, Open { message, sent, _held: Box::new(held) });
        self.acks.push_back(pending.wait(deadline).map(move |answer| (number, answer)).boxed());
        Ok(())
    }

    /// Returns when a message was not stored, or may not have been and cannot be. Cancel-safe.
    pub async fn failed(&mut self) -> Failure {
        loop {
            match self.acknowledged().await {
                Some(acknowledged) => self.note(acknowledged),
                None => std::future::pending().await,
            }
            if let Err(failure) = self.check().await {
                return failure;
            }
        }
    }

    /// Waits until all are stored, and returns the reply in the protobuf encoding.
    ///
    /// # Errors
    ///
    /// Why not all are stored; the metadata says how many are.
    pub async fn finish(mut self) -> Result<Vec<u8>, Failure> {
        match self.settle().await {
            Ok(()) => {
                Ok(receipt::stream(&self.durable.receipt, self.outcomes.stored(), self.outcomes.last()))
            }
            Err(failure) => Err(self.tell(failure)),
        }
    }

    /// Ends the stream early: finds out what is stored of it, and adds that to the failure.
    pub async fn abort(mut self, failure: Failure) -> Failure {
        // A failure of this is not why it ends, and what is unknown is told.
        let _ = self.settle().await;
        self.tell(failure)
    }

    fn tell(&self, failure: Failure) -> Failure {
        let mut failure = self.outcomes.tell(failure);
        if self.durable.message_id.is_none() && failure.certainty() != Delivered::No {
            // Sent again as it is, the part that is stored would be stored twice.
            failure.details.retain(|detail| !matches!(detail, Detail::Retry(_)));
        }
        failure
    }

    /// Waits until there is room for a message of this size.
    async fn room(&mut self, bytes: usize) -> Result<(), Failure> {
        while let Some(Some(acknowledged)) = self.acknowledged().now_or_never() {
            self.note(acknowledged);
        }
        self.check().await?;
        while self.open.len() >= MESSAGES || (self.bytes + bytes > BYTES && !self.open.is_empty()) {
            let Some(acknowledged) = self.acknowledged().await else { break };
            self.note(acknowledged);
            self.check().await?;
        }
        Ok(())
    }

    /// Sends a message.
    fn publish(
        &self,
        message: &DurableMessage,
    ) -> impl Future<Output = Result<PendingAck, RequestError>> + Send + use<> {
        let (route, call) = (&*self.route, &self.call);
        let mut headers = header::of_event(route, call, &trace(route, call, 0, 0));
        let stream = self.durable.stream.as_deref();
        Conditions { id: Some(&message.id), last: None, stream }.write(&mut headers);
        self.bridge.note(route, |metrics| metrics.attempts.increment());
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        let link = self.bridge.connection().clone();
        async move { link.publish(subject, headers, payload).await }
    }

    /// Waits for the next acknowledgement; none: nothing is waited for. Cancel-safe.
    async fn acknowledged(&mut self) -> Option<Acknowledged> {
        let acknowledged = self.acks.front_mut()?.await;
        self.acks.pop_front();
        Some(acknowledged)
    }

    /// Notes what was answered to a message that was sent once.
    fn note(&mut self, (number, answer): Acknowledged) {
        let failure = match answer {
            Ok(Ok(ack)) => return self.stored(number, ack),
            Ok(Err(StoreError::Undetermined(_) | StoreError::Unexpected(_)))
            | Err(RequestError::Timeout | RequestError::Lost) => return self.outcomes.doubt(number),
            Ok(Err(error)) => refused(&self.route, &self.durable, &error),
            Err(trouble) => self.unsent(&trouble),
        };
        self.forget(number);
        self.failure.get_or_insert(failure);
    }

    fn stored(&mut self, number: u64, ack: PubAck) {
        self.outcomes.store(number, ack);
        self.forget(number);
    }

    fn forget(&mut self, number: u64) {
        if let Some(open) = self.open.remove(&number) {
            self.bytes -= open.message.payload.len();
        }
    }

    fn unsent(&self, trouble: &RequestError) -> Failure {
        match trouble {
            RequestError::NoResponders => no_stream(&self.route),
            trouble => nats::failure::of_request(trouble, self.route.subject.as_str()),
        }
    }

    /// Whether more may be sent: all that was sent is stored, or on its way.
    async fn check(&mut self) -> Result<(), Failure> {
        match self.outcomes.first_unknown() {
            Some(_) => self.settle().await,
            None => self.failure.clone().map_or(Ok(()), Err),
        }
    }

    /// Waits for all acknowledgements, and sends again what may be stored: a stream answers to an id that it knows.
    async fn settle(&mut self) -> Result<(), Failure> {
        while let Some(acknowledged) = self.acknowledged().await {
            self.note(acknowledged);
        }
        let until = self.call.deadline.min(Instant::now() + self.route.budget());
        let (mut repeat, mut lookups) = (0, 0);
        while let Some(number) = self.outcomes.first_unknown() {
            let deadline = until.min(Instant::now() + self.route.timeout);
            match self.knows_id(number, deadline).await {
                Some(true) => {}
                None if lookups < LOOKUPS && Instant::now() + LOOKUP_PAUSE < until => {
                    tokio::time::sleep(LOOKUP_PAUSE).await;
                    lookups += 1;
                    continue;
                }
                Some(false) | None => return Err(unknown()),
            }
            match self.again(number, deadline).await {
                Some(Ok(Ok(ack))) => {
                    self.stored(number, ack);
                    repeat = 0;
                }
                // A refusal of this says nothing about the first one; repeated, it would be refused again.
                Some(Ok(Err(StoreError::Full(_) | StoreError::Unusable(_) | StoreError::NotPermitted)))
                | Some(Err(RequestError::NotPermitted))
                | None => return Err(unknown()),
                Some(_) => {
                    let pause = nats::backoff::backoff(BACKOFF, repeat, BACKOFF_MOST);
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(unknown());
                    }
                    tokio::time::sleep(pause.min(left)).await;
                    repeat += 1;
                }
            }
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Sends a message again.
    async fn again(&mut self, number: u64, deadline: Instant) -> Option<Answer> {
        self.bridge.note(&self.route, |metrics| metrics.retries.increment());
        let pending = self.publish(&self.open.get(&number)?.message);
        Some(match pending.await {
            Ok(pending) => pending.wait(deadline).await,
            Err(trouble) => Err(trouble),
        })
    }

    /// Whether the stream knows the id of a message until then, if it has it; none: nothing can be read of it.
    async fn knows_id(&mut self, number: u64, until: Instant) -> Option<bool> {
        let sent = self.open.get(&number)?.sent;
        let state = self.bridge.states().of(&self.route).ok()?;
        if !self.bridge.connection().connected() {
            // Nothing can be asked, and nothing is sent.
            return Some(true);
        }
        let storage = self.bridge.storage(&self.route, state, &self.durable, until).await;
        storage.map(|storage| until.saturating_duration_since(sent) < storage.duplicate_window)
    }
}

fn unknown() -> Failure {
    let message = "messages of the stream may or may not have been stored; `unknown` has their numbers";
    Failure::new(Reason::OutcomeUnknown, message)
        .delivered(Delivered::Unknown)
        .retry_after(nats::failure::RETRY)
}
