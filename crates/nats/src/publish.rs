//! Publishing to streams that the caller knows by a subject or by a name of its own: messages with their acknowledgement,
//! and what has to be known of the stream to repeat one. Must not repeat anything.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::api::{Range, answer, ask, found};
use crate::error::{StoreError, of_read};
use crate::header::{number, put};
use crate::mux::Connection;
use crate::pending::{End, RequestError};

/// Identifies a message: within its duplicate window a stream stores it once.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The last sequence that the message's subject has to have.
pub(crate) const EXPECTED_SUBJECT_LAST: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
pub(crate) const NO_MESSAGE: u64 = 10037;

/// A stream's acknowledgement of a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PubAck {
    /// The stream that has it.
    #[serde(default)]
    pub stream: String,
    /// Its sequence there.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// Whether it was there before: a message with the same id.
    #[serde(default)]
    pub duplicate: bool,
}

/// What has to hold for a message to be stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Its id.
    pub id: Option<&'a str>,
    /// The last sequence of its subject; 0: there is none yet.
    pub last: Option<u64>,
    /// The stream that has to store it.
    pub stream: Option<&'a str>,
}

/// The settings of a stream that matter for a message that is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// For how long it knows the ids of messages.
    pub duplicate_window: Duration,
    /// The first sequence from which on it removes nothing by itself; none: it may have removed any message.
    pub complete_from: Option<u64>,
}

/// A message that was sent to a stream. Dropping it leaves nothing behind, but the message may be stored.
pub struct PendingAck {
    connection: Connection,
    number: u64,
    end: oneshot::Receiver<End>,
}

#[derive(Debug, Deserialize)]
struct Info {
    config: Configured,
    state: Range,
}

#[derive(Debug, Deserialize)]
struct Configured {
    /// In nanoseconds.
    #[serde(default)]
    duplicate_window: u64,
    #[serde(default)]
    retention: String,
    #[serde(default)]
    max_msgs_per_subject: i64,
}

#[derive(Debug, Deserialize)]
struct Found {
    message: RawMessage,
}

#[derive(Debug, Deserialize)]
struct Names {
    #[serde(default)]
    streams: Option<Vec<String>>,
}

impl Conditions<'_> {
    /// Adds them to the headers of a message. The id is made visible ASCII.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(id) = self.id {
            put(headers, MESSAGE_ID, id);
        }
        if let Some(last) = self.last {
            number(headers, EXPECTED_SUBJECT_LAST, last);
        }
        if let Some(stream) = self.stream {
            put(headers, EXPECTED_STREAM, stream);
        }
    }
}

impl Connection {
    /// Sends a message to whichever stream captures its subject. Messages are sent in the order of these calls; each is
    /// stored or not when its [`PendingAck`] says so.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    pub async fn publish(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PendingAck, RequestError> {
        if !self.connected() {
            return Err(RequestError::Disconnected);
        }
        let subject = subject.into();
        let (number, end) = self.hold(subject.clone());
        let pending = PendingAck { connection: self.clone(), number, end };
        self.publish_to(subject, self.reply_to(number), headers, payload).await?;
        Ok(pending)
    }

    /// The names of the streams that capture a subject, or one that matches it.
    ///
    /// # Errors
    ///
    /// Nothing was read.
    pub async fn streams_of(&self, subject: &str, deadline: Instant) -> Result<Vec<String>, StoreError> {
        let query = serde_json::json!({ "subject": subject }).to_string();
        let names = found::<Names>(self, "$JS.API.STREAM.NAMES".to_owned(), query.into(), deadline).await?;
        Ok(names.map_err(of_read)?.streams.unwrap_or_default())
    }

    /// The settings of a stream, as its leader says.
    ///
    /// # Errors
    ///
    /// Nothing was read, as for [`Store::last`](crate::Store::last).
    pub async fn settings(&self, stream: &str, deadline: Instant) -> Result<StreamSettings, StoreError> {
        let info: Info = ask(self, format!("$JS.API.STREAM.INFO.{stream}"), deadline).await?;
        let Info { config, state } = info;
        let keeps = config.retention == "limits" && config.max_msgs_per_subject <= 0;
        Ok(StreamSettings {
            duplicate_window: Duration::from_nanos(config.duplicate_window),
            complete_from: keeps.then_some(state.first),
        })
    }

    /// The first message of a stream on this subject at or after a sequence, read from the leader.
    ///
    /// # Errors
    ///
    /// As for [`Store::last`](crate::Store::last).
    pub async fn message_from(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, StoreError> {
        message(self, stream, serde_json::json!({ "seq": from, "next_by_subj": subject }), deadline).await
    }
}

impl PendingAck {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    ///
    /// The outer one: there is no answer; maybe stored with [`RequestError::Timeout`] and [`RequestError::Lost`], else not
    /// stored. [`RequestError::NoResponders`]: no stream captures the subject, or it has no leader. The inner one is the
    /// stream's: maybe stored with [`StoreError::Undetermined`] and [`StoreError::Unexpected`], else not stored.
    pub async fn wait(mut self, deadline: Instant) -> Result<Result<PubAck, StoreError>, RequestError> {
        let end = timeout_at(deadline, &mut self.end).await;
        // The connection owns the sender until there is an end.
        let reply = end.unwrap_or(Ok(Err(RequestError::Timeout))).unwrap_or(Err(RequestError::Lost))?;
        if reply.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(RequestError::NoResponders);
        }
        Ok(match answer::<PubAck>(&reply.payload) {
            Ok(Ok(ack)) if ack.stream.is_empty() => {
                Err(StoreError::Unexpected("an acknowledgement without a stream".to_owned()))
            }
            Ok(ack) => ack.map_err(StoreError::from),
            Err(error) => Err(error),
        })
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        self.connection.forget(self.number);
    }
}

/// Reads one message of a stream from its leader.
pub(crate) async fn message(
    link: &Connection,
    stream: &str,
    query: serde_json::Value,
    deadline: Instant,
) -> Result<Option<StreamMessage>, StoreError> {
    let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
    match found::<Found>(link, subject, query.to_string().into(), deadline).await? {
        Ok(found) => StreamMessage::try_from(found.message)
            .map(Some)
            .map_err(|error| StoreError::Unexpected(error.to_string())),
        Err(error) if error.err_code == NO_MESSAGE => Ok(None),
        Err(error) => Err(of_read(error)),
    }
}
