//! Outcomes of a connection's requests, counted for its frame limiter. Must not depend on how the counts are used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Charge, ConnectionBudget};

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

impl ConnectionBudget {
    /// Records a request refused at its beginning.
    pub(super) fn refused(&self) {
        self.waste(BEGUN);
    }

    fn waste(&self, bytes: usize) {
        self.tally.wasted.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Charge {
    /// Records a complete request.
    pub(crate) fn whole(&self) {
        self.connection.tally.whole.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a request refused after this many bytes.
    pub(crate) fn wasted(&self, bytes: usize) {
        self.connection.waste(bytes);
    }
}
