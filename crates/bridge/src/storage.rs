//! What is known of the stream that stores a route's messages: its name, and for how long it knows the ids of messages.
//! Must not read it, nor decide what follows from it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long it is believed what was read, and that nothing can be read.
const KNOWN: Duration = Duration::from_secs(300);
const UNKNOWN: Duration = Duration::from_secs(10);
/// How long it may take to read.
pub(crate) const READ: Duration = Duration::from_secs(5);

/// The stream of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) stream: String,
    /// For how long it knows the ids of messages.
    pub(crate) duplicate_window: Duration,
}

/// What was read of the stream of one route; nothing where it cannot be: it is missing, or there are several, or the
/// gateway's user has no right to read it.
#[derive(Debug, Default)]
pub(crate) struct StorageCache(Mutex<Option<Read>>);

#[derive(Debug, Clone)]
struct Read {
    storage: Option<Storage>,
    /// When it has to be read again.
    stale: Instant,
}

impl StorageCache {
    pub(crate) fn get(&self, now: Instant) -> Option<Option<Storage>> {
        self.0.lock().as_ref().filter(|read| now < read.stale).map(|read| read.storage.clone())
    }

    pub(crate) fn put(&self, storage: Option<Storage>) {
        let time = if storage.is_some() { KNOWN } else { UNKNOWN };
        *self.0.lock() = Some(Read { storage, stale: Instant::now() + time });
    }

    /// Whether it has to be read and nobody does so: the caller does now.
    pub(crate) fn claim(&self, now: Instant) -> bool {
        let mut read = self.0.lock();
        if read.as_ref().is_some_and(|read| now < read.stale) {
            return false;
        }
        let storage = read.take().and_then(|read| read.storage);
        *read = Some(Read { storage, stale: now + READ });
        true
    }
}
