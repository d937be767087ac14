//! One stream as a store: appends under an expected sequence, and reads that the leader answers. What an answer of
//! JetStream means is decided here, by its error code, and nowhere else.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::inbox::{Link, Trouble};

const EXPECTED_LAST: &str = "Nats-Expected-Last-Sequence";
const EXPECTED_SUBJECT_LAST: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

const WRONG_LAST_SEQUENCE: u64 = 10071;
/// With replicas: another append under the same lock is in flight. Whether that one or any other was stored is open.
const WRONG_LAST_SEQUENCE_PENDING: u64 = 10164;
const NO_MESSAGE: u64 = 10037;
const FULL: [u64; 5] = [10002, 10023, 10028, 10047, 10077];
const TOO_LARGE: u64 = 10054;

/// A stream.
#[derive(Clone)]
pub struct Store {
    link: Link,
    stream: &'static str,
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

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something else was last: this append was not stored. (An earlier attempt of the same append may have been.)
    #[error("something else was appended before")]
    Conflict,
    /// It may or may not have been stored, or be stored later: repeat the same compare-and-set.
    #[error("the outcome is not known: {0}")]
    Undetermined(String),
    /// Nothing was stored: there is no connection.
    #[error("there is no connection to NATS")]
    Disconnected,
    /// Nothing was stored or read: JetStream is missing, or has no leader.
    #[error("JetStream is not available: {0}")]
    Unavailable(String),
    /// Nothing was stored: no room.
    #[error("JetStream is full: {0}")]
    Full(String),
    /// Nothing was stored: too large.
    #[error("{size} bytes are over the limit of {limit}")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// The limit; 0 where the stream's own limit said no.
        limit: usize,
    },
    /// JetStream answered with an error that we do not know, or with something else.
    #[error("JetStream answered: {0}")]
    Unexpected(String),
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

#[derive(Deserialize)]
struct Reply<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    value: Option<T>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Ack {
    seq: u64,
}

#[derive(Deserialize)]
struct Info {
    state: Range,
}

#[derive(Deserialize)]
struct Found {
    message: RawMessage,
}

impl Store {
    /// The store of a stream.
    pub fn new(link: Link, stream: &'static str) -> Store {
        Store { link, stream }
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
        match expect {
            Expect::Any => {}
            Expect::Last(sequence) => headers.insert(EXPECTED_LAST, sequence.to_string()),
            Expect::LastOf { filter, sequence } => {
                headers.insert(EXPECTED_SUBJECT_LAST, sequence.to_string());
                headers.insert(EXPECTED_SUBJECT, filter);
            }
        }
        let ack = match self.link.request(subject, headers, payload, deadline).await {
            Ok(reply) => answer::<Ack>(&reply.payload),
            Err(Trouble::Timeout) => Err(StoreError::Undetermined("no acknowledgement in time".to_owned())),
            Err(trouble) => Err(trouble.into()),
        };
        ack.map(|ack| ack.seq)
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

    /// First and last sequence, as the leader has them.
    pub async fn range(&self, deadline: Instant) -> Result<Range, StoreError> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.stream);
        let reply = self.link.request(subject, HeaderMap::new(), Bytes::new(), deadline).await?;
        answer::<Info>(&reply.payload).map(|info| info.state)
    }

    async fn message(
        &self,
        query: serde_json::Value,
        deadline: Instant,
    ) -> Result<Option<StreamMessage>, StoreError> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.stream);
        let reply = self.link.request(subject, HeaderMap::new(), query.to_string().into(), deadline).await?;
        match answer_or::<Found>(&reply.payload)? {
            Ok(found) => StreamMessage::try_from(found.message)
                .map(Some)
                .map_err(|error| StoreError::Unexpected(error.to_string())),
            Err(error) if error.err_code == NO_MESSAGE => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn answer<T: DeserializeOwned>(payload: &[u8]) -> Result<T, StoreError> {
    answer_or(payload)?.map_err(StoreError::from)
}

fn answer_or<T: DeserializeOwned>(payload: &[u8]) -> Result<Result<T, ApiError>, StoreError> {
    let reply: Reply<T> =
        serde_json::from_slice(payload).map_err(|error| StoreError::Unexpected(error.to_string()))?;
    match (reply.error, reply.value) {
        (Some(error), _) => Ok(Err(error)),
        (None, Some(value)) => Ok(Ok(value)),
        (None, None) => Err(StoreError::Unexpected("an answer without a value".to_owned())),
    }
}

impl From<ApiError> for StoreError {
    fn from(error: ApiError) -> StoreError {
        match (error.err_code, error.code) {
            (WRONG_LAST_SEQUENCE, _) => StoreError::Conflict,
            (WRONG_LAST_SEQUENCE_PENDING, _) => StoreError::Undetermined(error.description),
            (TOO_LARGE, _) => StoreError::TooLarge { size: 0, limit: 0 },
            (code, _) if FULL.contains(&code) => StoreError::Full(error.description),
            (_, 503 | 500 | 404) => {
                StoreError::Unavailable(format!("{} ({})", error.description, error.err_code))
            }
            (code, _) => StoreError::Unexpected(format!("{} ({code})", error.description)),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Disconnected => StoreError::Disconnected,
            // Nobody answers for the stream: it is missing, just being made, or electing a leader.
            Trouble::NoResponders => StoreError::Unavailable("nobody answers for the stream".to_owned()),
            Trouble::Timeout => StoreError::Unavailable("no answer in time".to_owned()),
            Trouble::TooLarge { size, limit } => StoreError::TooLarge { size, limit },
            Trouble::Unsendable(error) => StoreError::Unexpected(error.to_string()),
        }
    }
}
