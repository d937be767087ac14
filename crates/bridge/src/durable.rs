//! Messages that a JetStream stream stores: one for each call. "Stored", "maybe stored" and "not stored" are never mixed
//! up. Must not repeat a message that a stream could store twice.

mod lookup;
mod message;
mod outcomes;
mod receipt;
mod upload;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::{Durable, Route};
use nats::{Conditions, PubAck, RequestError, StoreError};
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use crate::call::CallContext;
use crate::hedge::trace;
use crate::reply::AttemptError;
use crate::route_state::RouteState;
use crate::{Bridge, header};
use message::DurableMessage;
pub use upload::Upload;

/// One message, and what its attempts have come to.
struct Publication<'a> {
    route: &'a Route,
    state: &'a RouteState,
    durable: &'a Durable,
    call: &'a CallContext,
    message: DurableMessage,
    /// When it was first sent.
    first: OnceLock<Instant>,
    /// Whether an attempt may have stored it.
    uncertain: AtomicBool,
}

/// The end of all attempts: what the stream says in the end counts for all of them.
type Settled = Result<PubAck, Failure>;

impl Bridge {
    /// Has a stream store a request in the protobuf encoding, and returns the reply in the same encoding.
    ///
    /// # Errors
    ///
    /// Its `delivered` tells whether the message may be stored. Not stored: the request does not fit, no stream captures
    /// the subject or another one than the route names, the storage is full, and SEQUENCE_CONFLICT.
    pub(super) async fn store(
        &self,
        route: &Route,
        durable: &Durable,
        request: &[u8],
        call: &CallContext,
    ) -> Result<Vec<u8>, Failure> {
        let (state, permit) = self.enter(route, call, RouteState::enter)?;
        // What has a condition is recognized by its id.
        let made = |expected: Option<u64>| expected.map(|_| Uuid::new_v4().simple().to_string());
        let made = |expected| made(expected).unwrap_or_default();
        let message = DurableMessage::read(route, state, durable, request, call, made)?;
        let (first, uncertain) = (OnceLock::new(), AtomicBool::new(false));
        let publication = Publication { route, state, durable, call, message, first, uncertain };
        if publication.message.is_repeatable() && route.retries > 0 {
            self.look_up_storage(route, durable);
        }
        let again = || publication.message.is_repeatable();
        let append = |repeat| self.append(&publication, repeat);
        let settled = self.attempts(route, state, call, again, append).await;
        let settled = permit.record_outcome(call.deadline, settled)?;
        settled.map(|ack| receipt::unary(&durable.receipt, &ack))
    }

    /// Makes one attempt.
    async fn append(&self, publication: &Publication<'_>, repeat: u32) -> Result<Settled, AttemptError> {
        let Publication { route, durable, call, message, .. } = publication;
        let begun = Instant::now();
        if begun >= call.deadline {
            return Err(AttemptError::last(call.late(Delivered::No)));
        }
        let deadline = call.deadline.min(begun + route.timeout);
        if publication.is_uncertain() {
            self.knows_id(publication, deadline).await?;
        }
        let span = trace(route, call, repeat, 0);
        let mut headers = header::of_event(route, call, &span);
        let id = Some(message.id.as_str()).filter(|id| !id.is_empty());
        let conditions = Conditions { id, last: message.expected, stream: durable.stream.as_deref() };
        conditions.write(&mut headers);
        self.note(route, |metrics| metrics.attempts.increment());
        let _ = publication.first.set(begun);
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        let answer = match self.connection().publish(subject, headers, payload).await {
            Ok(pending) => pending.wait(deadline).await,
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok(Ok(ack)) => {
                self.note(route, |metrics| metrics.times.observe_time(begun.elapsed()));
                publication.acknowledged(ack)
            }
            Ok(Err(StoreError::Conflict { last })) => self.conflict(publication, last, deadline).await,
            Ok(Err(error)) => {
                span.fail(error.to_string());
                Err(publication.unstored(&error))
            }
            Err(trouble) => {
                span.fail(trouble.to_string());
                if matches!(trouble, RequestError::Timeout) {
                    self.note(route, |metrics| metrics.timeouts.increment());
                }
                Err(publication.unanswered(&trouble, repeat))
            }
        }
    }

    /// Fails unless the stream still knows the id of a message that may be stored, until this attempt ends. A message under
    /// a condition needs none.
    async fn knows_id(&self, publication: &Publication<'_>, until: Instant) -> Result<(), AttemptError> {
        let Publication { route, state, durable, message, first, .. } = publication;
        if message.expected.is_some() {
            return Ok(());
        }
        let again = |failure, free| AttemptError { failure, again: true, free };
        if !self.connection().connected() {
            let failure = nats::failure::of_request(&RequestError::Disconnected, route.subject.as_str());
            return Err(again(failure, true));
        }
        let first = first.get().copied().unwrap_or(until);
        match self.storage(route, state, durable, until).await {
            Some(storage) if until.saturating_duration_since(first) < storage.duplicate_window => Ok(()),
            Some(_) => {
                Err(AttemptError::last(unknown(publication, "the stream may not know its id any longer")))
            }
            None => Err(again(unknown(publication, "nothing can be read of the stream"), false)),
        }
    }

    /// The condition does not hold. A server may check it before it looks for the id, so that an earlier attempt, or an
    /// earlier call with the same id, is found out by reading: it can only be the next message behind the expected one.
    async fn conflict(
        &self,
        publication: &Publication<'_>,
        last: Option<u64>,
        deadline: Instant,
    ) -> Result<Settled, AttemptError> {
        let Publication { route, state, durable, message, .. } = publication;
        let (Some(expected), true) = (message.expected, publication.may_be_there()) else {
            return Ok(Err(conflict(last)));
        };
        let link = self.connection();
        let found = async {
            let stream = self.storage(route, state, durable, deadline).await?.stream;
            let from = expected.saturating_add(1);
            let next = link.message_from(&stream, message.subject.as_str(), from, deadline).await.ok()?;
            Some((stream, next))
        };
        let decided = match found.await {
            Some((stream, Some(next))) if message.is(&next) => {
                let duplicate = message.id_is_given;
                Some(Ok(PubAck { stream, sequence: next.sequence, duplicate }))
            }
            Some(_) if !publication.is_uncertain() => Some(Err(conflict(last))),
            Some((stream, _)) => {
                // Only if nothing was removed behind the expected message was there none of ours.
                let settings = link.settings(&stream, deadline).await.ok();
                let first = settings.and_then(|settings| settings.complete_from);
                first.is_some_and(|first| first <= expected.max(1)).then(|| Err(conflict(last)))
            }
            None if !publication.is_uncertain() => Some(Err(conflict(last))),
            None => None,
        };
        decided.ok_or_else(|| {
            AttemptError::last(unknown(publication, "another message of the subject was stored meanwhile"))
        })
    }
}

impl Publication<'_> {
    fn is_uncertain(&self) -> bool {
        self.uncertain.load(Ordering::Relaxed)
    }

    /// Whether a message with this id may be in the stream already.
    fn may_be_there(&self) -> bool {
        self.is_uncertain() || self.message.id_is_given
    }

    fn acknowledged(&self, ack: PubAck) -> Result<Settled, AttemptError> {
        if let Some(stream) = self.durable.stream.as_ref().filter(|stream| **stream != ack.stream) {
            let message = format!("another stream than {stream} stored the message of {}", self.route.rpc);
            let failure = Failure::new(Reason::ContractViolation, message).delivered(Delivered::Yes);
            return Ok(Err(failure.because(format_args!("the stream {} has it", ack.stream))));
        }
        // An id that the gateway made can only be known from an earlier attempt of the same call.
        let duplicate = ack.duplicate && self.message.id_is_given;
        Ok(Ok(PubAck { duplicate, ..ack }))
    }

    /// The failure of an attempt that the stream refused.
    fn unstored(&self, error: &StoreError) -> AttemptError {
        let open = matches!(error, StoreError::Undetermined(_) | StoreError::Unexpected(_));
        self.uncertain.fetch_or(open, Ordering::Relaxed);
        let (failure, again) = match error {
            StoreError::Undetermined(why) => (unknown(self, why), self.message.is_repeatable()),
            StoreError::Unavailable(_) => (nats::failure::of_store(error), true),
            error => (refused(self.route, self.durable, error), false),
        };
        AttemptError { failure, again, free: false }
    }

    /// The failure of an attempt without an answer.
    fn unanswered(&self, trouble: &RequestError, repeat: u32) -> AttemptError {
        let open = matches!(trouble, RequestError::Timeout | RequestError::Lost);
        self.uncertain.fetch_or(open, Ordering::Relaxed);
        let failed = || nats::failure::of_request(trouble, self.route.subject.as_str());
        let (failure, again) = match trouble {
            RequestError::Timeout if self.call.over() => (self.call.late(Delivered::Unknown), false),
            RequestError::Timeout | RequestError::Lost => (failed(), self.message.is_repeatable()),
            RequestError::NoResponders => (no_stream(self.route), true),
            // The connection was just lost, and may be back soon.
            RequestError::Disconnected => (failed(), repeat > 0),
            _ => (failed(), false),
        };
        let free = matches!(trouble, RequestError::Lost | RequestError::Disconnected);
        AttemptError { failure, again, free }
    }
}

/// A condition on the last sequence that does not hold.
fn conflict(last: Option<u64>) -> Failure {
    let message = "the last message of the subject has another sequence than expected_sequence";
    let failure = Failure::new(Reason::SequenceConflict, message).delivered(Delivered::No);
    match last {
        Some(last) => failure.with("sequence", last.to_string()),
        None => failure,
    }
}

/// No stream answers.
fn no_stream(route: &Route) -> Failure {
    let message = format!("no stream stores what is published on {}, or it has no leader", route.subject);
    Failure::new(Reason::StorageUnavailable, message)
        .delivered(Delivered::No)
        .retry_after(nats::failure::RETRY)
        .because("no responders")
}

/// A stream that refuses a message.
fn refused(route: &Route, durable: &Durable, error: &StoreError) -> Failure {
    match (error, &durable.stream) {
        (StoreError::Unusable(why), Some(stream)) => {
            let message =
                format!("the stream {stream} does not store what is published on {}", route.subject);
            Failure::new(Reason::StorageUnavailable, message).delivered(Delivered::No).because(why)
        }
        _ => nats::failure::of_store(error),
    }
}

/// Nobody knows whether it is stored.
fn unknown(publication: &Publication<'_>, why: &str) -> Failure {
    let message = match publication.message.id_is_given {
        true => "it may or may not have been stored; repeat the call with the same message id to find out",
        false => "it may or may not have been stored; read the last message of the subject to find out",
    };
    Failure::new(Reason::OutcomeUnknown, message)
        .delivered(Delivered::Unknown)
        .retry_after(nats::failure::RETRY)
        .because(why)
}
