//! Why the store did not do it: what an error of JetStream means, by its code. Must never ask anybody.

use super::{ApiError, NO_STREAM};
use crate::inbox::Trouble;

const WRONG_LAST_SEQUENCE: u64 = 10071;
/// With replicas: another append under the same lock is in flight. Whether that one or any other was stored is open.
const WRONG_LAST_SEQUENCE_PENDING: u64 = 10164;
const STORE_FAILED: u64 = 10077;
const FULL: [u64; 5] = [10002, 10023, 10028, 10047, STORE_FAILED];
const TOO_LARGE: u64 = 10054;

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
    /// Nothing was stored or read, and nothing is sent any more: the stream has had no leader or no quorum for longer than an
    /// election takes, or acknowledges nothing.
    #[error("nothing can be stored: {0}")]
    Down(String),
    /// Nothing was stored or read: the stream does not exist, or is not as it has to be. That lasts until an operator mends
    /// it.
    #[error("the storage cannot be used: {0}")]
    Unusable(String),
    /// Nothing was stored or read: our NATS user may not.
    #[error("NATS does not permit it")]
    NotPermitted,
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

/// A read has no outcome that could be open.
pub(super) fn of_read(error: ApiError) -> StoreError {
    match StoreError::from(error) {
        StoreError::Undetermined(why) => StoreError::Unavailable(why),
        // "Insufficient resources" is said to a read when too many are in flight.
        StoreError::Full(why) => StoreError::Unavailable(why),
        other => other,
    }
}

impl From<ApiError> for StoreError {
    fn from(error: ApiError) -> StoreError {
        let why = format!("{} ({})", error.description, error.err_code);
        match (error.err_code, error.code) {
            (WRONG_LAST_SEQUENCE, _) => StoreError::Conflict,
            (WRONG_LAST_SEQUENCE_PENDING, _) => StoreError::Undetermined(why),
            (NO_STREAM, _) => StoreError::Unusable(why),
            (TOO_LARGE, _) => StoreError::TooLarge { size: 0, limit: 0 },
            // Also a leader that could not store what its followers have: only a limit says that nobody did.
            (STORE_FAILED, _) if !error.description.contains("maximum") => StoreError::Undetermined(why),
            (code, _) if FULL.contains(&code) => StoreError::Full(why),
            (_, 503 | 404) => StoreError::Unavailable(why),
            (_, 500) => StoreError::Undetermined(why),
            _ => StoreError::Unexpected(why),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Disconnected => StoreError::Disconnected,
            // Nobody answers for the stream: it is missing, just being made, or electing a leader.
            Trouble::NoResponders => StoreError::Unavailable("nobody answers for the stream".to_owned()),
            Trouble::Timeout | Trouble::Lost => StoreError::Unavailable(trouble.to_string()),
            Trouble::NotPermitted => StoreError::NotPermitted,
            Trouble::TooLarge { size, limit } => StoreError::TooLarge { size, limit },
            Trouble::Unsendable(error) => StoreError::Unexpected(error.to_string()),
        }
    }
}
