//! The work in flight: calls, and work that outlives its caller. Must not depend on what it is.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

/// The work in flight of all threads. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct InHand(Arc<Mutex<Vec<TaskTracker>>>);

impl InHand {
    /// Adds the work of a thread.
    pub(super) fn add(&self, work: TaskTracker) {
        self.0.lock().push(work);
    }

    /// Whether no work is in flight.
    pub fn none(&self) -> bool {
        self.0.lock().iter().all(TaskTracker::is_empty)
    }
}
