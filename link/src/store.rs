//! One stream as a store: appends under an expected sequence, and reads that the leader answers. What an answer of
//! JetStream means is decided here, by its error code, and nowhere else.

mod error;

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use bytes::Bytes;
use pbjson_types::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

pub use error::StoreError;
use error::of_read;

use crate::guard::Guard;
use crate::header::{number, put};
use crate::inbox::{Link, Trouble};
use crate::streams::IDENTITY;

const EXPECTED_LAST: &str = "Nats-Expected-Last-Sequence";
const EXPECTED_SUBJECT_LAST: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// Nobody who leads JetStream knows the stream. Said once, right after a change of leaders, that proves nothing.
pub(crate) const NO_STREAM: u64 = 10059;
/// Before a stream that was not found is asked for once more. Far below every deadline that a request is given.
pub const AGAIN: Duration = Duration::from_millis(250);
/// An append that was waited for less says nothing of the store.
const ENOUGH: Duration = Duration::from_millis(900);
const NO_MESSAGE: u64 = 10037;
const NO_SEQUENCE: u64 = 10043;
const NOT_REMOVED: u64 = 10057;

/// A stream.
#[derive(Clone)]
pub struct Store {
    link: Link,
    stream: &'static str,
    guard: Guard,
}

/// What has to be last in the stream for an append to be accepted.
#[derive(Debug, Clone, Copy)]
pub enum Expect<'a> {
    /// Anything.
    Any,
    /// The whole stream's last sequence.
    Last(u64),
    /// The last sequence among the subjects of a filter; 0 for none yet.
    LastOf {
        /// The subjects, with wildcards.
        filter: &'a str,
        /// The sequence.
        sequence: u64,
    },
}

/// First and last sequence of a stream. An empty one has `last + 1 == first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// The first that is there.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The last that was ever stored.
    #[serde(rename = "last_seq")]
    pub last: u64,
}

#[derive(Debug, Deserialize)]
struct Reply<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    value: Option<T>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

#[derive(Debug, Deserialize)]
struct Ack {
    seq: u64,
}

#[derive(Debug, Deserialize)]
struct Removed {
    success: bool,
}

#[derive(Debug, Deserialize)]
struct Listed {
    state: Subjects,
}

#[derive(Debug, Deserialize)]
struct Subjects {
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

#[derive(Debug, Deserialize)]
struct Info {
    state: Range,
    #[serde(default)]
    config: Configured,
    /// The leader's time of day.
    ts: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
struct Configured {
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Found {
    message: RawMessage,
}

impl Store {
    /// The store of a stream.
    pub fn new(link: Link, stream: &'static str) -> Store {
        Store { link, stream, guard: Guard::default() }
    }

    /// The same store, which takes nothing while the guard finds something wrong.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Store {
        Store { guard, ..self }
    }

    /// What it looks to before it takes anything.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Appends a message once, and returns its sequence.
    pub async fn append(
        &self,
        subject: &str,
        mut headers: HeaderMap,
        payload: Bytes,
        expect: Expect<'_>,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.guard.may_append(self.stream)?;
        match expect {
            Expect::Any => {}
            Expect::Last(sequence) => number(&mut headers, EXPECTED_LAST, sequence),
            Expect::LastOf { filter, sequence } => {
                number(&mut headers, EXPECTED_SUBJECT_LAST, sequence);
                put(&mut headers, EXPECTED_SUBJECT, filter);
            }
        }
        let begun = Instant::now();
        let ack = match self.link.request(subject, headers, payload, deadline).await {
            Ok(reply) => match answer::<Ack>(&reply.payload)? {
                Err(error) if error.err_code == NO_STREAM => return Err(self.gone(error, deadline).await),
                ack => ack.map_err(StoreError::from),
            },
            Err(open @ (Trouble::Timeout | Trouble::Lost)) => {
                if matches!(open, Trouble::Timeout) && begun.elapsed() >= ENOUGH {
                    self.guard.unacknowledged(self.stream);
                }
                Err(StoreError::Undetermined(open.to_string()))
            }
            Err(trouble) => Err(trouble.into()),
        };
        match &ack {
            Ok(_) => self.guard.stored(self.stream),
            Err(StoreError::Full(why)) => self.guard.full(self.stream, why),
            Err(_) => {}
        }
        ack.map(|ack| ack.seq)
    }

    /// An append found no stream: nothing was stored. Whether the stream is gone, two more answers say.
    async fn gone(&self, error: ApiError, deadline: Instant) -> StoreError {
        match Box::pin(self.info(deadline)).await {
            Err(gone @ StoreError::Unusable(_)) => gone,
            _ => StoreError::Unavailable(error.description),
        }
    }

    /// The last message among the subjects of a filter, as the leader has it.
    pub async fn last(&self, filter: &str, deadline: Instant) -> Result<Option<StreamMessage>, StoreError> {
        self.message(serde_json::json!({ "last_by_subj": filter }), deadline).await
    }

    /// The message with this sequence, as the leader has it.
    pub async fn get(&self, sequence: u64, deadline: Instant) -> Result<Option<StreamMessage>, StoreError> {
        self.message(serde_json::json!({ "seq": sequence }), deadline).await
    }

    /// The first message from a sequence on among the subjects of a filter, as the leader has it.
    pub async fn next(
        &self,
        filter: &str,
        from: u64,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, StoreError> {
        self.message(serde_json::json!({ "seq": from, "next_by_subj": filter }), deadline).await
    }

    /// Removes a message and overwrites it. Whether it was there.
    pub async fn remove(&self, sequence: u64, deadline: Instant) -> Result<bool, StoreError> {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", self.stream);
        let query = serde_json::json!({ "seq": sequence, "no_erase": false }).to_string();
        match found::<Removed>(&self.link, subject, query.into(), deadline).await? {
            Ok(removed) => Ok(removed.success),
            Err(error) if [NO_MESSAGE, NO_SEQUENCE].contains(&error.err_code) => Ok(false),
            // A code for all that can go wrong, with the storage's words.
            Err(error) if error.err_code == NOT_REMOVED && error.description.contains("no message") => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The subjects of the messages that match a filter.
    pub async fn subjects(&self, filter: &str, deadline: Instant) -> Result<Vec<String>, StoreError> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.stream);
        let query = serde_json::json!({ "subjects_filter": filter }).to_string();
        let listed = found::<Listed>(&self.link, subject, query.into(), deadline).await?.map_err(of_read)?;
        Ok(listed.state.subjects.unwrap_or_default().into_keys().collect())
    }

    /// First and last sequence, as the leader has them.
    pub async fn range(&self, deadline: Instant) -> Result<Range, StoreError> {
        self.info(deadline).await.map(|info| info.state)
    }

    /// The stream's identity, which another of the same name does not have, with its first and last sequence.
    pub async fn identity(&self, deadline: Instant) -> Result<(String, Range), StoreError> {
        let mut info = self.info(deadline).await?;
        Ok((info.config.metadata.remove(IDENTITY).unwrap_or_default(), info.state))
    }

    async fn info(&self, deadline: Instant) -> Result<Info, StoreError> {
        self.guard.may_read(self.stream)?;
        let (subject, asked) = (format!("$JS.API.STREAM.INFO.{}", self.stream), Instant::now());
        let info: Info = ask(&self.link, subject, deadline).await?;
        told(&self.link, self.stream, info.ts.as_ref(), asked);
        Ok(info)
    }

    async fn message(
        &self,
        query: serde_json::Value,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, StoreError> {
        self.guard.may_read(self.stream)?;
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.stream);
        match found::<Found>(&self.link, subject, query.to_string().into(), deadline).await? {
            Ok(found) => StreamMessage::try_from(found.message)
                .map(Some)
                .map_err(|error| StoreError::Unexpected(error.to_string())),
            Err(error) if error.err_code == NO_MESSAGE => Ok(None),
            Err(error) => Err(of_read(error)),
        }
    }
}

/// Notes the time of day that the answer of a stream's leader has.
pub(crate) fn told(link: &Link, stream: &'static str, time: Option<&Timestamp>, asked: Instant) {
    let Some(time) = time else { return };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(time.seconds), u64::try_from(time.nanos)) else { return };
    link.clock().tell(stream, seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000), asked);
}

/// Asks JetStream something that changes nothing.
pub(crate) async fn ask<T: DeserializeOwned>(
    link: &Link,
    subject: String,
    deadline: Instant,
) -> Result<T, StoreError> {
    found::<T>(link, subject, Bytes::new(), deadline).await?.map_err(of_read)
}

/// What JetStream's API answers. That there is no stream is believed when it is said twice; without time for that, not.
pub(crate) async fn found<T: DeserializeOwned>(
    link: &Link,
    subject: String,
    query: Bytes,
    deadline: Instant,
) -> Result<Result<T, ApiError>, StoreError> {
    let mut first = true;
    loop {
        // In a box: futures around it are large, and threads' stacks are not.
        let asked = Box::pin(link.request(subject.clone(), HeaderMap::new(), query.clone(), deadline));
        match answer::<T>(&asked.await?.payload)? {
            Err(error) if error.err_code == NO_STREAM && first => {
                if Instant::now() + AGAIN >= deadline {
                    return Err(StoreError::Unavailable(error.description));
                }
                sleep(AGAIN).await;
                first = false;
            }
            found => return Ok(found),
        }
    }
}

/// What JetStream's API answered.
pub(crate) fn answer<T: DeserializeOwned>(payload: &[u8]) -> Result<Result<T, ApiError>, StoreError> {
    let reply: Reply<T> =
        serde_json::from_slice(payload).map_err(|error| StoreError::Unexpected(error.to_string()))?;
    match (reply.error, reply.value) {
        (Some(error), _) => Ok(Err(error)),
        (None, Some(value)) => Ok(Ok(value)),
        (None, None) => Err(StoreError::Unexpected("an answer without a value".to_owned())),
    }
}

#[cfg(test)]
mod tests;
