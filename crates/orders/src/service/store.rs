//! Orders on the stream ORDERS: reads that the leader answers, and appends under the order's lock. Decides what an
//! undetermined answer of the store means, so that no caller takes "maybe stored" for "not stored".

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use contract::OrderReason;
use contract::subject;
use nats::backoff::backoff;
use nats::failure::{RETRY, of_store};
use nats::store::Range;
use nats::{Expect, Store, StoreError};
use order_streams::entry::{DamagedEntry, Entry, Last};
use order_streams::event::Event;
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use crate::order::damage::Damage;
use crate::waits::RECORD;
use bridge::budget::RetryBudget;
use bridge::call::CallContext;

/// Full jitter below this before the first repeat; doubling.
const BACKOFF: Duration = Duration::from_millis(20);
/// The most that a backoff may grow to: an election takes 4 to 9 s, so nothing is gained by asking more often.
const BACKOFF_MOST: Duration = Duration::from_millis(500);

/// The record of orders. Clones share it.
#[derive(Clone)]
pub(super) struct Records {
    store: Store,
    budget: Arc<RetryBudget>,
    damage: Arc<Damage>,
}

/// How an append ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is stored, with this sequence.
    Stored(u64),
    /// It is not stored and never will be: another entry came first after the expected one.
    Overtaken,
}

/// Why an append has no outcome.
#[derive(Debug)]
pub(super) enum GiveUp {
    /// It is not stored, and never will be.
    Never(Failure),
    /// It may be stored, now or later.
    Open(Failure),
}

impl Records {
    /// The record in this store.
    pub(super) fn new(store: Store) -> Records {
        Records::noting(store, Arc::default())
    }

    /// The record in this store; its unreadable entries are counted in `damage`.
    pub(super) fn noting(store: Store, damage: Arc<Damage>) -> Records {
        Records { store, budget: Arc::new(RetryBudget::new()), damage }
    }

    /// An order's last entry.
    pub(super) async fn read(&self, id: Uuid, call: &CallContext) -> Result<Option<Last>, Failure> {
        let filter = subject::entries(id);
        self.parsed(self.ask(call, |until| self.store.last(&filter, until)).await?)
    }

    /// The entry with this sequence.
    pub(super) async fn at(&self, sequence: u64, call: &CallContext) -> Result<Option<Last>, Failure> {
        self.parsed(self.ask(call, |until| self.store.get(sequence, until)).await?)
    }

    /// First and last sequence of the record.
    pub(super) async fn range(&self, call: &CallContext) -> Result<Range, Failure> {
        self.ask(call, |until| self.store.range(until)).await
    }

    fn parsed(&self, message: Option<StreamMessage>) -> Result<Option<Last>, Failure> {
        let last = message.map(|message| Entry::of(&message).and_then(|entry| entry.last()));
        last.transpose().map_err(|error| self.damaged(&error))
    }

    /// An entry that is not a valid event: it is damaged, or another program wrote to the stream.
    fn damaged(&self, error: &DamagedEntry) -> Failure {
        self.damage.note(error.sequence, error);
        let message =
            format!("the record of this order cannot be read: entry {} is not valid", error.sequence);
        let failure = Failure::new(OrderReason::RecordUnreadable, message).delivered(Delivered::Yes);
        failure.with("entry", error.sequence.to_string())
    }

    /// Reads, and repeats while the store has no leader, within the deadline and the retry budget.
    async fn ask<T, F>(&self, call: &CallContext, attempt: impl Fn(Instant) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.budget.earn();
        let mut repeat = 0;
        loop {
            let until = until(call)?;
            let error = match attempt(until).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if call.over() {
                return Err(call.late(Delivered::Unknown).because(error));
            }
            let pause = backoff(BACKOFF, repeat, BACKOFF_MOST);
            // A connection that was lost between two attempts may be back soon.
            let passing = match error {
                StoreError::Unavailable(_) => true,
                StoreError::Disconnected => repeat > 0,
                _ => false,
            };
            let passing = passing && in_time(pause, call);
            if !(passing && self.budget.spend()) {
                return Err(of_store(&error));
            }
            tokio::time::sleep(pause).await;
            repeat += 1;
        }
    }

    /// Appends an event of an order whose last sequence is `expected`. Undetermined answers are resolved by repeating
    /// the same compare-and-set until the deadline: it can succeed only once.
    pub(super) async fn append(
        &self,
        id: Uuid,
        event: Event,
        expected: u64,
        call: &CallContext,
    ) -> Result<Outcome, GiveUp> {
        let write = Write::new(id, event, expected);
        self.budget.earn();
        let mut open = false;
        let mut repeat = 0;
        loop {
            let error = match self.attempt(&write, call).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            open |= matches!(error, StoreError::Undetermined(_) | StoreError::Unexpected(_));
            let pause = backoff(BACKOFF, repeat, BACKOFF_MOST);
            let again = match error {
                StoreError::Unexpected(_) | StoreError::Unusable(_) | StoreError::Down(_) => false,
                StoreError::Unavailable(_) => open || self.budget.spend(),
                StoreError::Conflict { .. }
                | StoreError::Undetermined(_)
                | StoreError::Disconnected
                | StoreError::NotPermitted
                | StoreError::Full(_)
                | StoreError::TooLarge { .. } => open,
            };
            if !(again && in_time(pause, call)) {
                return Err(give_up(open, &error, call));
            }
            tokio::time::sleep(pause).await;
            repeat += 1;
        }
    }

    /// One attempt. After a conflict, the first entry after the expected one shows who wrote it: an earlier attempt of
    /// ours may be stored, and others may have appended after it.
    async fn attempt(&self, write: &Write, call: &CallContext) -> Result<Outcome, StoreError> {
        let late = |_: Failure| StoreError::Unavailable("the deadline has passed".to_owned());
        let expect = Expect::LastOf { filter: &write.filter, sequence: write.expected };
        let (headers, payload) = (write.headers.clone(), write.payload.clone());
        let limit = until(call).map_err(late)?;
        match self.store.append(&write.subject, headers, payload, expect, limit).await {
            Ok(sequence) => return Ok(Outcome::Stored(sequence)),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        let unclear = |why: String| StoreError::Undetermined(why);
        let limit = until(call).map_err(|_| unclear("wrong last sequence, no time to read on".to_owned()))?;
        match self.store.next(&write.filter, write.expected + 1, limit).await {
            Ok(Some(first)) => Ok(match Entry::of(&first).ok().and_then(|entry| entry.operation()) {
                Some(operation) if operation == write.operation => Outcome::Stored(first.sequence),
                _ => Outcome::Overtaken,
            }),
            Ok(None) => Err(unclear("wrong last sequence, but no newer entry".to_owned())),
            Err(error) => Err(unclear(format!("wrong last sequence, then: {error}"))),
        }
    }
}

/// An append as every attempt sends it.
struct Write {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    operation: String,
    filter: String,
    expected: u64,
}

impl Write {
    fn new(id: Uuid, event: Event, expected: u64) -> Write {
        Write {
            operation: event.operation().to_owned(),
            headers: event.header_map(),
            subject: event.subject,
            payload: event.payload.into(),
            filter: subject::entries(id),
            expected,
        }
    }
}

fn give_up(open: bool, error: &StoreError, call: &CallContext) -> GiveUp {
    match error {
        StoreError::Unexpected(_) => GiveUp::Open(of_store(error)),
        _ if open => GiveUp::Open(
            Failure::new(
                Reason::OutcomeUnknown,
                "the change may or may not be recorded; repeat the same call",
            )
            .delivered(Delivered::Unknown)
            .retry_after(RETRY)
            .because(error),
        ),
        _ if call.over() => GiveUp::Never(call.late(Delivered::No).because(error)),
        _ => GiveUp::Never(of_store(error)),
    }
}

/// When the next attempt has to end.
fn until(call: &CallContext) -> Result<Instant, Failure> {
    let now = Instant::now();
    if now >= call.deadline {
        return Err(call.late(Delivered::No));
    }
    Ok(call.deadline.min(now + RECORD))
}

fn in_time(pause: Duration, call: &CallContext) -> bool {
    Instant::now() + pause < call.deadline
}
