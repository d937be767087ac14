//! What a connection's responses have not written yet, and since when. Must not depend on what a response holds.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of periods; the caller of `turn` decides how long each lasts.
pub(crate) const PERIODS: usize = 8;

/// A value that a response keeps until its last byte is written.
#[derive(Clone)]
pub struct HeldUntilSent(#[allow(dead_code, reason = "it is held")] Arc<dyn Any + Send + Sync>);

impl HeldUntilSent {
    /// Keeps this value.
    pub fn new(kept: impl Any + Send + Sync) -> HeldUntilSent {
        HeldUntilSent(Arc::new(kept))
    }
}

impl fmt::Debug for HeldUntilSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keep")
    }
}

/// How long a connection's responses have waited to be read, in periods. One thread writes them.
#[derive(Debug, Default)]
pub(crate) struct Periods {
    now: AtomicUsize,
    /// Unread responses, by the period of their last progress.
    waiting: [AtomicUsize; PERIODS],
}

impl Periods {
    fn enter(&self) -> usize {
        let now = self.now.load(Ordering::Relaxed);
        self.waiting[now % PERIODS].fetch_add(1, Ordering::Relaxed);
        now
    }

    fn leave(&self, period: usize) {
        self.waiting[period % PERIODS].fetch_sub(1, Ordering::Relaxed);
    }

    /// Begins a new period. Returns whether some response made no progress in all recorded periods before it.
    pub(crate) fn turn(&self) -> bool {
        let next = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting[(next + 1) % PERIODS].load(Ordering::Relaxed) > 0
    }
}

/// The part of a response that is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    bytes: AtomicUsize,
    period: AtomicUsize,
}

impl Unsent {
    pub(crate) fn more(&self, periods: &Periods, bytes: usize) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 && bytes > 0 {
            self.period.store(periods.enter(), Ordering::Relaxed);
        }
    }

    pub(crate) fn less(&self, periods: &Periods, bytes: usize) {
        let left = self.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        periods.leave(self.period.load(Ordering::Relaxed));
        if left > 0 {
            self.period.store(periods.enter(), Ordering::Relaxed);
        }
    }
}
