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

/// What a connection's calls bring and cost, as whoever serves them says.
#[derive(Debug, Default)]
pub(crate) struct Toll {
    brought: AtomicI64,
    refused: AtomicI64,
    /// Calls whose request came whole, counted by whoever reads them.
    whole: Arc<AtomicU64>,
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

    pub(crate) fn brought(&self) -> i64 {
        Toll::take(&self.brought)
    }

    /// What is left of a credit by calls that were refused. They never take what others' calls need.
    pub(crate) fn left(&self, credit: i64) -> i64 {
        let refused = Toll::take(&self.refused);
        let floor = if self.good.load(Ordering::Relaxed) { RESERVE } else { -DEBT };
        credit.saturating_sub(refused).max(floor.min(credit))
    }

    fn take(count: &AtomicI64) -> i64 {
        // Most reads bring no news.
        if count.load(Ordering::Relaxed) == 0 { 0 } else { count.swap(0, Ordering::Relaxed) }
    }
}
