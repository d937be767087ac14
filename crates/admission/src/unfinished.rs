//! Requests that are not complete in time, or at shutdown. Must not read them.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::{Delivered, Failure, Reason};

use crate::body::{RequestState, incomplete};
use crate::request::{Arrival, HEALTH, latest};

/// The retry delay, towards another instance.
const RETRY: Duration = Duration::from_millis(500);
/// Time limits of a request: without progress, and in total.
pub(crate) const IDLE: Duration = Duration::from_secs(10);
pub(crate) const TOTAL: Duration = Duration::from_secs(60);
/// Minimum rate in bytes per second, which gives large messages more time.
const RATE: usize = 256 << 10;
/// The total limit for health: its requests are tiny, come from anybody, and use the share of calls without
/// credentials.
const HEALTH_TOTAL: Duration = Duration::from_secs(2);

/// Ends a request that is not complete in time. A complete one is left to its handler, which has its own deadline.
pub(crate) async fn unfinished(
    intake: Arc<RequestState>,
    hurry: CancellationToken,
    total: Duration,
) -> Failure {
    let failure = tokio::select! {
        () = hurry.cancelled() => draining(),
        failure = late(&intake, total) => failure,
    };
    if intake.whole() {
        return pending().await;
    }
    failure
}

/// The total time limit of a request.
pub(crate) fn total(path: &str, most: usize) -> Duration {
    if path.starts_with(HEALTH) {
        return HEALTH_TOTAL;
    }
    TOTAL.max(Duration::from_secs((most / RATE) as u64))
}

async fn late(intake: &RequestState, total: Duration) -> Failure {
    let Arrival { at, asked } = intake.arrival();
    let (deadline, end) = (asked.map(|asked| at + latest(asked)), at + total);
    loop {
        let (seen, idle) = (intake.progress(), Instant::now() + IDLE);
        let next = idle.min(end);
        sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        if intake.whole() {
            return pending().await;
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Failure::new(Reason::Deadline, "the caller's deadline passed").delivered(Delivered::No);
        }
        if now >= end {
            return incomplete(&format!("it was not complete within {} s", total.as_secs()));
        }
        if intake.progress() == seen {
            return incomplete(&format!("no data arrived for {} s", IDLE.as_secs()));
        }
    }
}

/// The failure for a request that was not complete at shutdown.
fn draining() -> Failure {
    Failure::new(Reason::Draining, "the process is shutting down, and the request was not complete")
        .delivered(Delivered::No)
        .retry_after(RETRY)
}
