//! What the troubles of the connection and the store mean to a caller. Must never log them: whoever answers the call does,
//! once.

use std::time::Duration;

use contract::failure::Detail;
use contract::{Delivered, Failure, Reason};

use crate::{StoreError, Trouble};

/// When to come back after a trouble that passes by itself.
pub const RETRY: Duration = Duration::from_millis(500);

/// When to come back where an outage has lasted for a while.
const RETRY_OUTAGE: Duration = Duration::from_secs(2);

/// A request without a reply, as a failure. `subject` is what it was sent to.
pub fn of_request(trouble: &Trouble, subject: &str) -> Failure {
    match trouble {
        Trouble::Disconnected => {
            Failure::new(Reason::NatsDisconnected, "the gateway has no connection to NATS now")
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        Trouble::NoResponders => Failure::new(Reason::NoResponders, format!("nobody serves {subject} now"))
            .delivered(Delivered::No)
            .retry_after(RETRY),
        Trouble::Timeout => Failure::new(Reason::Timeout, format!("no answer from {subject} in time"))
            .delivered(Delivered::Unknown),
        Trouble::Lost => {
            Failure::new(Reason::NatsDisconnected, "the connection to NATS was lost before the answer")
                .delivered(Delivered::Unknown)
                .retry_after(RETRY)
        }
        // The subject is in the log of the connection.
        Trouble::NotPermitted => not_permitted(),
        Trouble::TooLarge { size, limit } => {
            Failure::too_large("the message", *size, *limit).delivered(Delivered::No)
        }
        Trouble::Unsendable(error) => Failure::new(Reason::Internal, "the message could not be sent")
            .delivered(Delivered::No)
            .because(format_args!("{subject}: {error}")),
    }
}

/// A store that did not do it, as a failure. A conflict is for the caller to resolve first; what is left of it here
/// is that others were faster all the time.
pub fn of_store(error: &StoreError) -> Failure {
    match error {
        StoreError::Conflict => {
            Failure::new(Reason::Contention, "others changed it at the same time; repeat")
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        StoreError::Undetermined(why) => Failure::new(
            Reason::OutcomeUnknown,
            "it may or may not have been stored; repeat with the same request_id",
        )
        .delivered(Delivered::Unknown)
        .retry_after(RETRY)
        .because(why),
        StoreError::Disconnected => {
            Failure::new(Reason::NatsDisconnected, "there is no connection to NATS now")
                .delivered(Delivered::No)
                .retry_after(RETRY)
        }
        StoreError::Unavailable(why) => {
            Failure::new(Reason::StorageUnavailable, "the storage has no leader, or is missing")
                .delivered(Delivered::No)
                .retry_after(RETRY)
                .because(why)
        }
        // What it is, the health tells: no repeat helps within a call's time.
        StoreError::Down(why) => {
            Failure::new(Reason::StorageUnavailable, format!("nothing can be stored now: {why}"))
                .delivered(Delivered::No)
                .retry_after(RETRY_OUTAGE)
        }
        StoreError::Unusable(why) => {
            let message = "a stream is missing, or is not as it has to be; the log and /metrics name it";
            let failure = Failure::new(Reason::StorageUnavailable, message).delivered(Delivered::No);
            failure.retry_after(RETRY).because(why)
        }
        StoreError::Full(why) => {
            let quota = Detail::Quota {
                subject: "storage".to_owned(),
                description: "the stream takes no more".to_owned(),
            };
            let full = Failure::new(Reason::StorageFull, "the storage is full").delivered(Delivered::No);
            full.detail(quota).because(why)
        }
        StoreError::NotPermitted => not_permitted(),
        StoreError::TooLarge { size, limit } => {
            Failure::too_large("the message", *size, *limit).delivered(Delivered::No)
        }
        StoreError::Unexpected(why) => {
            Failure::new(Reason::Internal, "the storage answered something unexpected")
                .delivered(Delivered::Unknown)
                .because(why)
        }
    }
}

fn not_permitted() -> Failure {
    let message = "NATS does not permit the gateway to do this; its operator has to allow it";
    Failure::new(Reason::GatewayNotPermitted, message).delivered(Delivered::No)
}
