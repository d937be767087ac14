//! Outcomes of a connection's requests, counted for its frame limiter. Must not depend on how the counts are used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes counted for a request that is refused at its beginning: its client has sent, or is sending, about as many.
const BEGUN: usize = 64 << 10;

/// The counts of one connection.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    /// Complete requests.
    pub whole: Arc<AtomicU64>,
    /// Bytes of requests refused before they were complete: they were read in vain.
    pub wasted: Arc<AtomicU64>,
}

impl ConnectionMetrics {
    /// Records a complete request.
    pub(super) fn complete(&self) {
        self.whole.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a request refused after this many bytes.
    pub(super) fn waste(&self, bytes: usize) {
        self.wasted.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records a request refused at its beginning.
    pub(super) fn refuse(&self) {
        self.waste(BEGUN);
    }
}
