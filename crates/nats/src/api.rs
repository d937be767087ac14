//! Requests to JetStream's API, and its answers. Must not decide what an answer means for a stream.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use pbjson_types::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::error::{ApiError, NO_STREAM, StoreError, of_read};
use crate::mux::Connection;

/// The delay before a stream that was not found is looked up again. Far below the deadline of any request.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// First and last sequence of a stream. An empty one has `last + 1 == first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// The first sequence.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The last sequence ever stored.
    #[serde(rename = "last_seq")]
    pub last: u64,
}

#[derive(Debug, Deserialize)]
struct Reply<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    value: Option<T>,
}

/// Records the time of day in an answer from a stream's leader.
pub(crate) fn told(link: &Connection, stream: &'static str, time: Option<&Timestamp>, asked: Instant) {
    let Some(time) = time else { return };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(time.seconds), u64::try_from(time.nanos)) else { return };
    link.clock().tell(stream, seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000), asked);
}

/// Sends a JetStream API request that changes nothing.
pub(crate) async fn ask<T: DeserializeOwned>(
    link: &Connection,
    subject: String,
    deadline: Instant,
) -> Result<T, StoreError> {
    found::<T>(link, subject, Bytes::new(), deadline).await?.map_err(of_read)
}

/// Returns the answer of JetStream's API. "Stream not found" counts only if it is answered twice; without time for
/// that, it does not.
pub(crate) async fn found<T: DeserializeOwned>(
    link: &Connection,
    subject: String,
    query: Bytes,
    deadline: Instant,
) -> Result<Result<T, ApiError>, StoreError> {
    let mut first = true;
    loop {
        // Boxed: the enclosing futures are large, and threads' stacks are small.
        let asked = Box::pin(link.request(subject.clone(), HeaderMap::new(), query.clone(), deadline));
        match answer::<T>(&asked.await?.payload)? {
            Err(error) if error.err_code == NO_STREAM && first => {
                if Instant::now() + RETRY_PAUSE >= deadline {
                    return Err(StoreError::Unavailable(error.description));
                }
                sleep(RETRY_PAUSE).await;
                first = false;
            }
            found => return Ok(found),
        }
    }
}

/// Parses an answer of JetStream's API.
pub(crate) fn answer<T: DeserializeOwned>(payload: &[u8]) -> Result<Result<T, ApiError>, StoreError> {
    let reply: Reply<T> =
        serde_json::from_slice(payload).map_err(|error| StoreError::Unexpected(error.to_string()))?;
    match (reply.error, reply.value) {
        (Some(error), _) => Ok(Err(error)),
        (None, Some(value)) => Ok(Ok(value)),
        (None, None) => Err(StoreError::Unexpected("an answer without a value".to_owned())),
    }
}
