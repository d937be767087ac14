//! Why a store operation failed: the meaning of JetStream's errors, by their codes. Must do no I/O.

use serde::Deserialize;

use crate::pending::RequestError;

/// "Stream not found". One such answer proves nothing, right after a leader change.
pub(crate) const NO_STREAM: u64 = 10059;
/// "JetStream system temporarily unavailable": the cluster has no leader.
pub(crate) const NOT_AVAILABLE: u64 = 10008;
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// How its description begins, before the last sequence.
const LAST: &str = "wrong last sequence: ";
/// Another stream than the expected one captures the subject.
const OTHER_STREAM: u64 = 10060;
const SEALED: u64 = 10109;
/// With replicas: a message with the same id is in flight.
const SAME_ID_PENDING: u64 = 10158;
/// With replicas: another append under the same lock is in flight. It is unknown whether that one, or any, was stored.
const WRONG_LAST_SEQUENCE_PENDING: u64 = 10164;
const STORE_FAILED: u64 = 10077;
const FULL: [u64; 5] = [10002, 10023, 10028, 10047, STORE_FAILED];
const TOO_LARGE: u64 = 10054;

/// What to look at where nothing answers for a stream.
pub const NO_LEADER: &str = "there may be no leader or no quorum: check that enough NATS nodes are up (as the role \
                             system: `nats server list`, `nats server report jetstream`)";

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The condition did not hold: this append was not stored. (An earlier attempt of the same append may have been.)
    #[error("the expected last sequence does not match: something else was appended first")]
    Conflict {
        /// The last sequence, if the server said it.
        last: Option<u64>,
    },
    /// Maybe stored: it may have been stored, or may be stored later. Retry the same compare-and-set.
    #[error("the outcome is unknown: {0}")]
    Undetermined(String),
    /// Not stored: not connected.
    #[error("not connected to NATS")]
    Disconnected,
    /// Not stored or read: JetStream is not enabled, or has no leader.
    #[error("JetStream is not available: {0}")]
    Unavailable(String),
    /// Not stored or read, and nothing is sent any more: the stream has had no leader or no quorum for longer than an
    /// election takes, or its leader acknowledges nothing.
    #[error("nothing can be stored: {0}")]
    Down(String),
    /// Not stored or read: the stream does not exist, or has the wrong configuration. That lasts until an operator
    /// fixes it.
    #[error("the storage cannot be used: {0}")]
    Unusable(String),
    /// Not stored or read: permissions violation of our NATS user.
    #[error("permissions violation: NATS does not permit it")]
    NotPermitted,
    /// Not stored: the storage is full.
    #[error("the JetStream storage is full: {0}")]
    Full(String),
    /// Not stored: the message is too large.
    #[error("{size} bytes exceed the limit of {limit}")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// The limit in bytes; 0 if it is the stream's own limit.
        limit: usize,
    },
    /// Maybe stored: JetStream answered with an unknown error, or with something unexpected.
    #[error("JetStream answered: {0}")]
    Unexpected(String),
}

impl StoreError {
    /// Whether it is what a stream without a leader or a quorum causes. It may have another cause.
    pub fn may_lack_leader(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Down(_))
    }
}

/// An error as JetStream's API answers it.
#[derive(Debug, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) code: u64,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// Maps the error of a read, whose outcome is never unknown.
pub(crate) fn of_read(error: ApiError) -> StoreError {
    match StoreError::from(error) {
        StoreError::Undetermined(why) => StoreError::Unavailable(why),
        // A read gets "insufficient resources" when too many are in flight.
        StoreError::Full(why) => StoreError::Unavailable(why),
        other => other,
    }
}

impl From<ApiError> for StoreError {
    fn from(error: ApiError) -> StoreError {
        let why = format!("{} ({})", error.description, error.err_code);
        match (error.err_code, error.code) {
            (WRONG_LAST_SEQUENCE, _) => {
                let last = error.description.strip_prefix(LAST).and_then(|last| last.parse().ok());
                StoreError::Conflict { last }
            }
            (WRONG_LAST_SEQUENCE_PENDING | SAME_ID_PENDING, _) => StoreError::Undetermined(why),
            (NO_STREAM | OTHER_STREAM | SEALED, _) => StoreError::Unusable(why),
            (TOO_LARGE, _) => StoreError::TooLarge { size: 0, limit: 0 },
            // The leader may have failed to store what its followers did store: only a limit proves that none did.
            (STORE_FAILED, _) if !error.description.contains("maximum") => StoreError::Undetermined(why),
            (code, _) if FULL.contains(&code) => StoreError::Full(why),
            (_, 503 | 404) => StoreError::Unavailable(why),
            (_, 500) => StoreError::Undetermined(why),
            _ => StoreError::Unexpected(why),
        }
    }
}

impl From<RequestError> for StoreError {
    fn from(trouble: RequestError) -> StoreError {
        match trouble {
            RequestError::Disconnected => StoreError::Disconnected,
            // No responders: the stream does not exist, is being created, or is electing a leader.
            RequestError::NoResponders => StoreError::Unavailable("no responders for the stream".to_owned()),
            RequestError::Timeout | RequestError::Lost | RequestError::Dropped => {
                StoreError::Unavailable(trouble.to_string())
            }
            RequestError::NotPermitted => StoreError::NotPermitted,
            RequestError::TooLarge { size, limit } => StoreError::TooLarge { size, limit },
            RequestError::Unsendable(error) => StoreError::Unexpected(error.to_string()),
        }
    }
}
