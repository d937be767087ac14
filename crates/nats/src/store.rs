//! One stream as a store: appends under an expected sequence, and reads answered by the leader. Only this module
//! decides what a JetStream answer means, by its error code.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use pbjson_types::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

pub use crate::api::{RETRY_PAUSE, Range};
pub use crate::error::StoreError;

use crate::api::{answer, ask, found, told};
use crate::error::{ApiError, NO_STREAM, of_read};
use crate::guard::Guard;
use crate::header::{number, put};
use crate::mux::Connection;
use crate::pending::RequestError;
use crate::publish::{self, EXPECTED_SUBJECT_LAST, PubAck};
use crate::spec::IDENTITY;

const EXPECTED_LAST: &str = "Nats-Expected-Last-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// An append with less time than this says nothing about the store.
const ENOUGH: Duration = Duration::from_millis(900);
const NO_SEQUENCE: u64 = 10043;
const NOT_REMOVED: u64 = 10057;

/// A stream, as a store.
///
/// An append with [`Expect::LastOf`] is a compare-and-set: of several writers that read the same state, one succeeds.
///
/// ```
/// use async_nats::HeaderMap;
/// use nats::{Expect, Store, StoreError};
/// use tokio::time::Instant;
///
/// /// Sets the title of a book, unless it is set already. Returns the sequence of the message that has it.
/// async fn set_title(books: &Store, id: &str, title: &str, deadline: Instant) -> Result<u64, StoreError> {
///     let subject = format!("books.{id}");
///     loop {
///         let last = books.last(&subject, deadline).await?;
///         if let Some(last) = last.as_ref().filter(|last| *last.payload == *title.as_bytes()) {
///             return Ok(last.sequence);
///         }
///         let expect = Expect::LastOf { filter: &subject, sequence: last.map_or(0, |last| last.sequence) };
///         match books.append(&subject, HeaderMap::new(), title.to_owned().into(), expect, deadline).await {
///             // Another writer was first: see what there is now.
///             Err(StoreError::Conflict { .. }) => continue,
///             // With `Undetermined` it is maybe stored. Calling this again finds out: it sends the same condition.
///             result => return result,
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Store {
    link: Connection,
    stream: &'static str,
    guard: Guard,
}

/// The condition for an append: what must be last in the stream.
#[derive(Debug, Clone, Copy)]
pub enum Expect<'a> {
    /// No condition.
    Any,
    /// The whole stream's last sequence.
    Last(u64),
    /// The last sequence on the subjects of a filter; 0 if there is none yet.
    LastOf {
        /// The subjects, with wildcards.
        filter: &'a str,
        /// The sequence.
        sequence: u64,
    },
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

impl Store {
    /// The store of a stream.
    pub fn new(link: Connection, stream: &'static str) -> Store {
        Store { link, stream, guard: Guard::default() }
    }

    /// The same store, refusing appends while the guard has a finding.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Store {
        Store { guard, ..self }
    }

    /// The guard that is checked before each append.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.link
    }

    /// Appends a message once, and returns its sequence. It is stored on a majority of the replicas then.
    ///
    /// # Errors
    ///
    /// Maybe stored: [`StoreError::Undetermined`], such as no answer by the deadline, and [`StoreError::Unexpected`];
    /// repeat the same append with the same condition to find out. All others mean that it was not stored; after an
    /// attempt whose outcome is unknown, [`StoreError::Conflict`] may come from that attempt.
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
            Ok(reply) => match answer::<PubAck>(&reply.payload)? {
                Err(error) if error.err_code == NO_STREAM => return Err(self.gone(error, deadline).await),
                ack => ack.map_err(StoreError::from),
            },
            Err(open @ (RequestError::Timeout | RequestError::Lost)) => {
                if matches!(open, RequestError::Timeout) && begun.elapsed() >= ENOUGH {
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
        ack.map(|ack| ack.sequence)
    }

    /// The error for an append that found no stream: nothing was stored. Two more answers decide whether the stream is
    /// gone.
    async fn gone(&self, error: ApiError, deadline: Instant) -> StoreError {
        match Box::pin(self.info(deadline)).await {
            Err(gone @ StoreError::Unusable(_)) => gone,
            _ => StoreError::Unavailable(error.description),
        }
    }

    /// The last message on the subjects of a filter, read from the leader. Appends that were acknowledged before are
    /// seen.
    ///
    /// # Errors
    ///
    /// Nothing was read; never `Conflict`, `Undetermined` or `Full`. Temporary: [`StoreError::Disconnected`],
    /// [`StoreError::Unavailable`] (no leader, or no answer by the deadline) and [`StoreError::Down`]. Until an operator
    /// changes something: [`StoreError::Unusable`] (there is no such stream) and [`StoreError::NotPermitted`].
    pub async fn last(&self, filter: &str, deadline: Instant) -> Result<Option<StreamMessage>, StoreError> {
        self.message(serde_json::json!({ "last_by_subj": filter }), deadline).await
    }

    /// The message with this sequence, read from the leader.
    ///
    /// # Errors
    ///
    /// As for [`Store::last`].
    pub async fn get(&self, sequence: u64, deadline: Instant) -> Result<Option<StreamMessage>, StoreError> {
        self.message(serde_json::json!({ "seq": sequence }), deadline).await
    }

    /// The first message at or after a sequence on the subjects of a filter, read from the leader.
    ///
    /// # Errors
    ///
    /// As for [`Store::last`].
    pub async fn next(
        &self,
        filter: &str,
        from: u64,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, StoreError> {
        self.message(serde_json::json!({ "seq": from, "next_by_subj": filter }), deadline).await
    }

    /// Removes a message and overwrites its contents. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Not removed: [`StoreError::Disconnected`], [`StoreError::NotPermitted`] and [`StoreError::Unusable`] (there is no
    /// such stream). Maybe removed: all others, such as [`StoreError::Unavailable`] where no answer came by the deadline.
    /// It may be repeated: a message that is gone is not an error.
    pub async fn remove(&self, sequence: u64, deadline: Instant) -> Result<bool, StoreError> {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", self.stream);
        let query = serde_json::json!({ "seq": sequence, "no_erase": false }).to_string();
        match found::<Removed>(&self.link, subject, query.into(), deadline).await? {
            Ok(removed) => Ok(removed.success),
            Err(error) if [publish::NO_MESSAGE, NO_SEQUENCE].contains(&error.err_code) => Ok(false),
            // One code for all storage errors, with the storage's text.
            Err(error) if error.err_code == NOT_REMOVED && error.description.contains("no message") => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The subjects, among those that match a filter, that have messages.
    ///
    /// # Errors
    ///
    /// As for [`Store::last`], but never [`StoreError::Down`]: the guard is not asked.
    pub async fn subjects(&self, filter: &str, deadline: Instant) -> Result<Vec<String>, StoreError> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.stream);
        let query = serde_json::json!({ "subjects_filter": filter }).to_string();
        let listed = found::<Listed>(&self.link, subject, query.into(), deadline).await?.map_err(of_read)?;
        Ok(listed.state.subjects.unwrap_or_default().into_keys().collect())
    }

    /// First and last sequence, read from the leader.
    ///
    /// # Errors
    ///
    /// As for [`Store::last`].
    pub async fn range(&self, deadline: Instant) -> Result<Range, StoreError> {
        self.info(deadline).await.map(|info| info.state)
    }

    /// The stream's identity, which is unique even among streams of the same name, with its first and last sequence.
    ///
    /// # Errors
    ///
    /// As for [`Store::last`].
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
        publish::message(&self.link, self.stream, query, deadline).await
    }
}

#[cfg(test)]
mod tests;
