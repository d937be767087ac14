//! What a connection's calls add to and take from its frame credit. Must not depend on how the credit is spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The burst of frames that a client may send outside calls.
pub(crate) const FULL: i64 = 2_048;
/// The credit that returns each second.
pub(crate) const RATE: i64 = 1_024;
/// Credit for a call: its headers, a small message, its end, a window update, and a PING to measure the path.
pub(crate) const CALL: i64 = 5;
/// Cost of a call that is refused unread: more than its credit and that for its response's bytes.
const REFUSED: i64 = CALL + 20;
/// Credit that refused calls leave to a connection that carries good calls as well: behind a proxy, the calls of other
/// clients share the connection, and this pays for their frames until they are admitted.
const RESERVE: i64 = FULL / 2;
/// Where no call was good yet, refused calls make a client wait at most the time in which this credit returns.
const DEBT: i64 = RATE;

/// Bytes of refused requests that cost as much as one frame.
const WASTE: u64 = 512;

/// The credit and cost of a connection's calls, as reported by their server.
#[derive(Debug, Default)]
pub(crate) struct CallCredit {
    brought: AtomicI64,
    refused: AtomicI64,
    /// Calls whose request arrived completely, counted by the reader.
    whole: Arc<AtomicU64>,
    /// Bytes of requests refused before they were complete, counted by the reader.
    wasted: Arc<AtomicU64>,
    /// Whether any call was good.
    good: AtomicBool,
}

impl CallCredit {
    /// Records an admitted call.
    pub(crate) fn called(&self) {
        self.brought.fetch_add(CALL, Ordering::Relaxed);
    }

    /// Records a call refused unread.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(REFUSED, Ordering::Relaxed);
    }

    /// Records a call that was read.
    pub(crate) fn good(&self) {
        if !self.good.load(Ordering::Relaxed) {
            self.good.store(true, Ordering::Relaxed);
        }
    }

    /// The counter of complete calls: work for each has begun, and its client may reset it.
    pub(crate) fn whole(&self) -> &Arc<AtomicU64> {
        &self.whole
    }

    /// The counter of bytes of requests refused before they were complete.
    pub(crate) fn wasted(&self) -> &Arc<AtomicU64> {
        &self.wasted
    }

    pub(crate) fn brought(&self) -> i64 {
        CallCredit::take(&self.brought)
    }

    /// The credit left after refused calls. They never take what other calls need; but bytes of refused requests do:
    /// clients that share the connection wait for a second at most.
    pub(crate) fn left(&self, credit: i64) -> i64 {
        let refused = CallCredit::take(&self.refused);
        let floor = if self.good.load(Ordering::Relaxed) { RESERVE } else { -DEBT };
        let left = credit.saturating_sub(refused).max(floor.min(credit));
        left.saturating_sub(self.waste()).max((-DEBT).min(left))
    }

    /// The cost of the bytes since the last time.
    fn waste(&self) -> i64 {
        let bytes = self.wasted.load(Ordering::Relaxed);
        if bytes < WASTE {
            return 0;
        }
        self.wasted.fetch_sub(bytes - bytes % WASTE, Ordering::Relaxed);
        i64::try_from(bytes / WASTE).unwrap_or(i64::MAX)
    }

    fn take(count: &AtomicI64) -> i64 {
        // Most reads find nothing new.
        if count.load(Ordering::Relaxed) == 0 { 0 } else { count.swap(0, Ordering::Relaxed) }
    }
}
