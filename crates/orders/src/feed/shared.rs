//! What the tasks, the watches and the lists of a feed share, and its limits. Must not read the record.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nats::Connection;
use parking_lot::RwLock;
use telemetry::Counter;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use wire::{Delivered, ErrorReason, Failure, Reason};

use super::index::Index;
use super::ring::Ring;
use super::token::Tokens;
use crate::order::damage::Damage;
use bridge::concurrency::Saturated;
use bridge::share::{Share, ShareKind, Shares, exceeded};

/// Retry delay while the index is built or a limit is reached.
pub(super) const LATER: Duration = Duration::from_secs(1);

/// Limits of a feed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Recent entries that are kept for watchers: a watcher that is further behind is too slow.
    pub entries: usize,
    /// Bytes that they may take, including the orders decoded from them.
    pub bytes: usize,
    /// Entries before the start that are loaded too, so that clients can resume at once after a restart.
    pub preload: usize,
    /// Concurrent watches.
    pub watches: usize,
    /// Concurrent watches that read the history, because they resume before the recent entries.
    pub replays: usize,
    /// Concurrent reads of the record, for lists and for watches that begin. nats-server queues at most 10,000 requests
    /// of all its clients, and drops the whole queue beyond that:
    /// <https://github.com/nats-io/nats-server/pull/5900>
    pub reads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 32_768, bytes: 32 << 20, preload: 4_096, watches: 16_384, replays: 16, reads: 256 }
    }
}

/// Completes when a watch's client has to reconnect.
pub type Leave = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A permit of a watch, within its caller's share.
pub struct WatchPermit {
    _permit: OwnedSemaphorePermit,
    pub(super) hold: Option<Share>,
}

impl WatchPermit {
    /// Takes a permit of `bound`, if one is left for the holder of `shares`.
    pub(super) fn take(
        bound: &Arc<Semaphore>,
        slot: ShareKind,
        shares: Option<&Arc<Shares>>,
    ) -> Result<WatchPermit, Saturated> {
        let permit = Arc::clone(bound).try_acquire_owned().map_err(|_| Saturated::Gate)?;
        // This permit counts as free: the last one may be any caller's first.
        let hold = match shares {
            Some(shares) => {
                Some(shares.take_fairly(slot, bound.available_permits() + 1).ok_or(Saturated::by(shares))?)
            }
            None => None,
        };
        Ok(WatchPermit { _permit: permit, hold })
    }
}

/// What the tasks, the watchers and the lists share.
pub(super) struct Shared {
    pub(super) link: Connection,
    pub(super) runtime: Handle,
    pub(super) ring: Ring,
    pub(super) index: RwLock<Index>,
    /// The last sequence that the index includes.
    pub(super) applied: watch::Sender<u64>,
    /// The record's last sequence at the start.
    pub(super) begin: u64,
    pub(super) tokens: Tokens,
    pub(super) limits: Limits,
    pub(super) watches: Arc<Semaphore>,
    /// Watches that ended because their client was too slow.
    pub(super) slow: Counter,
    pub(super) damage: Arc<Damage>,
    pub(super) replays: Arc<Semaphore>,
    pub(super) reads: Semaphore,
    pub(super) end: CancellationToken,
}

impl Shared {
    pub(super) fn index(&self) -> parking_lot::RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    pub(super) fn draining(&self, cursor: u64) -> Failure {
        self.ended(Reason::Draining, "the gateway is shutting down; resume with the resume_token", cursor)
    }

    pub(super) fn moved(&self, cursor: u64) -> Failure {
        let message =
            "the connection has reached its maximum age; reconnect and resume with the resume_token";
        self.ended(Reason::Draining, message, cursor)
    }

    /// The error of a watch that ends and can be resumed.
    pub(super) fn ended(&self, reason: impl ErrorReason, message: &str, cursor: u64) -> Failure {
        Failure::new(reason, message)
            .delivered(Delivered::No)
            .retry_after(nats::failure::RETRY)
            .with("resume_token", self.tokens.resume(cursor))
    }
}

pub(super) fn refused(full: Saturated, bound: &str) -> Failure {
    match full {
        Saturated::Gate => Failure::overloaded(
            "/orders.v1.OrderService/WatchOrders",
            &format!("limit of {bound} reached"),
            LATER,
        ),
        Saturated::Share => exceeded(format!("one caller's share of the {bound}"), LATER),
    }
}
