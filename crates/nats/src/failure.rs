//! Maps errors of the connection and of the store to failures for callers. Must not log them: the code that answers the
//! call does, once.

use std::time::Duration;

use wire::failure::Detail;
use wire::{Delivered, Failure, Reason};

use crate::{RequestError, StoreError};

/// The retry delay after a transient error.
pub const RETRY: Duration = Duration::from_millis(500);

/// The retry delay during an outage that has lasted for a while.
const RETRY_OUTAGE: Duration = Duration::from_secs(2);

/// The failure for a request without a reply. `subject` is the one it was sent to.
pub fn of_request(trouble: &RequestError, subject: &str) -> Failure {
    match trouble {
        RequestError::Disconnected => {
            Failure::new(Reason::NatsDisconnected, "the gateway is not connected to NATS")
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        RequestError::NoResponders => {
            Failure::new(Reason::NoResponders, format!("no responders on {subject}"))
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        RequestError::Timeout => {
            Failure::new(Reason::Timeout, format!("no reply from {subject} before the deadline"))
                .delivered(Delivered::Unknown)
        }
        RequestError::Lost => {
            Failure::new(Reason::NatsDisconnected, "the connection to NATS was lost before the reply")
                .delivered(Delivered::Unknown)
                .retry_after(RETRY)
        }
        RequestError::Dropped => {
            let message = "the gateway read more slowly than replies came, and some were dropped";
            Failure::new(Reason::StreamGap, message).delivered(Delivered::Unknown).retry_after(RETRY)
        }
        // The connection's log line names the subject.
        RequestError::NotPermitted => not_permitted(),
        RequestError::TooLarge { size, limit } => {
            Failure::too_large("the message", *size, *limit).delivered(Delivered::No)
        }
        RequestError::Unsendable(error) => Failure::new(Reason::Internal, "the message could not be sent")
            .delivered(Delivered::No)
            .because(format_args!("{subject}: {error}")),
    }
}

/// The failure for a store error. The caller resolves a conflict first; a conflict that is left here means that
/// concurrent writers won every attempt.
pub fn of_store(error: &StoreError) -> Failure {
    match error {
        StoreError::Conflict { .. } => {
            Failure::new(Reason::Contention, "concurrent changes conflict with this one; retry")
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        StoreError::Undetermined(why) => Failure::new(
            Reason::OutcomeUnknown,
            "it may or may not have been stored; retry with the same request_id",
        )
        .delivered(Delivered::Unknown)
        .retry_after(RETRY)
        .because(why),
        StoreError::Disconnected => {
            Failure::new(Reason::NatsDisconnected, "the gateway is not connected to NATS")
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        StoreError::Unavailable(why) => {
            Failure::new(Reason::StorageUnavailable, "the stream has no leader or does not exist")
                .delivered(Delivered::No)
                .retry_after(RETRY)
                .because(why)
        }
        // Health reports the cause: no retry helps within the time of a call.
        StoreError::Down(why) => {
            Failure::new(Reason::StorageUnavailable, format!("the storage is unavailable: {why}"))
                .delivered(Delivered::No)
                .retry_after(RETRY_OUTAGE)
        }
        StoreError::Unusable(why) => {
            let message = "a stream is missing or has the wrong configuration; the log and /metrics name it";
            let failure = Failure::new(Reason::StorageUnavailable, message).delivered(Delivered::No);
            failure.retry_after(RETRY).because(why)
        }
        StoreError::Full(why) => {
            let quota = Detail::Quota {
                subject: "storage".to_owned(),
                description: "the stream's limits are reached".to_owned(),
            };
            let full = Failure::new(Reason::StorageFull, "the storage is full").delivered(Delivered::No);
            full.detail(quota).because(why)
        }
        StoreError::NotPermitted => not_permitted(),
        StoreError::TooLarge { size, limit } => {
            Failure::too_large("the message", *size, *limit).delivered(Delivered::No)
        }
        StoreError::Unexpected(why) => {
            Failure::new(Reason::Internal, "the storage returned an unexpected answer")
                .delivered(Delivered::Unknown)
                .because(why)
        }
    }
}

fn not_permitted() -> Failure {
    let message =
        "NATS does not permit the gateway to do this (permissions violation); its operator has to allow it";
    Failure::new(Reason::GatewayNotPermitted, message).delivered(Delivered::No)
}
