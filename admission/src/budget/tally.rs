//! What the requests of a connection came to, counted for whoever reads from it. Must never know what comes of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Charge, Connection};

/// Bytes that a client has sent, or is sending, of a request for which there is no room from its beginning.
const BEGUN: usize = 64 << 10;

/// The counts of one connection.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests that came whole.
    pub whole: Arc<AtomicU64>,
    /// Bytes of requests that were refused before they were whole: they were read for nothing.
    pub wasted: Arc<AtomicU64>,
}

impl Connection {
    /// A request was refused at its beginning.
    pub(super) fn refused(&self) {
        self.waste(BEGUN);
    }

    fn waste(&self, bytes: usize) {
        self.tally.wasted.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Charge {
    /// The request came whole.
    pub(crate) fn whole(&self) {
        self.connection.tally.whole.fetch_add(1, Ordering::Relaxed);
    }

    /// The request was refused, and so many bytes of it had come.
    pub(crate) fn wasted(&self, bytes: usize) {
        self.connection.waste(bytes);
    }
}
