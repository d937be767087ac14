//! What a connection's calls bring to its credit and take from it. Must never know how the credit is spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::patrol::{FULL, RATE};

/// A call's headers, a small message, its end, a change of a window, and a PING that measures the way.
pub(crate) const CALL: i64 = 5;
/// So do calls that are refused without being looked at: what they bring, their answer's bytes, and more.
const REFUSED: i64 = CALL + 20;
/// What they leave of the credit of a connection that carries good calls as well: behind a proxy, others' calls come on
/// the same one, whose frames are paid from this until they are let in.
const RESERVE: i64 = FULL / 2;
/// And where no call was good yet, they make a client wait no longer than time takes to bring this.
const DEBT: i64 = RATE;

/// Bytes of requests that were read for nothing that cost as much as a frame.
const WASTE: u64 = 512;

/// What a connection's calls bring and cost, as whoever serves them says.
#[derive(Debug, Default)]
pub(crate) struct Toll {
    brought: AtomicI64,
    refused: AtomicI64,
    /// Calls whose request came whole, counted by whoever reads them.
    whole: Arc<AtomicU64>,
    /// Bytes of requests that were refused before they were whole, counted by whoever reads them.
    wasted: Arc<AtomicU64>,
    /// Whether any was good.
    good: AtomicBool,
}

impl Toll {
    /// A call was let in.
    pub(crate) fn called(&self) {
        self.brought.fetch_add(CALL, Ordering::Relaxed);
    }

    /// A call was refused without being looked at.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(REFUSED, Ordering::Relaxed);
    }

    /// A call was looked at.
    pub(crate) fn good(&self) {
        if !self.good.load(Ordering::Relaxed) {
            self.good.store(true, Ordering::Relaxed);
        }
    }

    /// Calls whose request came whole: the work for each was begun, and its client may give it up.
    pub(crate) fn whole(&self) -> &Arc<AtomicU64> {
        &self.whole
    }

    /// Bytes of requests that were refused before they were whole.
    pub(crate) fn wasted(&self) -> &Arc<AtomicU64> {
        &self.wasted
    }

    pub(crate) fn brought(&self) -> i64 {
        Toll::take(&self.brought)
    }

    /// What is left of a credit by calls that were refused. They never take what others' calls need; but requests that
    /// are read for nothing do: whoever shares the connection with them waits for a second at most.
    pub(crate) fn left(&self, credit: i64) -> i64 {
        let refused = Toll::take(&self.refused);
        let floor = if self.good.load(Ordering::Relaxed) { RESERVE } else { -DEBT };
        let left = credit.saturating_sub(refused).max(floor.min(credit));
        left.saturating_sub(self.waste()).max((-DEBT).min(left))
    }

    /// What those cost that came since the last time.
    fn waste(&self) -> i64 {
        let bytes = self.wasted.load(Ordering::Relaxed);
        if bytes < WASTE {
            return 0;
        }
        self.wasted.fetch_sub(bytes - bytes % WASTE, Ordering::Relaxed);
        i64::try_from(bytes / WASTE).unwrap_or(i64::MAX)
    }

    fn take(count: &AtomicI64) -> i64 {
        // Most reads bring no news.
        if count.load(Ordering::Relaxed) == 0 { 0 } else { count.swap(0, Ordering::Relaxed) }
    }
}
