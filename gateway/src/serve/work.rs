//! What a gateway has in hand: calls, and work that outlives its caller. Must never know what it is.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::TaskTracker;

/// The work of all threads. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct InHand(Arc<Mutex<Vec<TaskTracker>>>);

impl InHand {
    /// Counts a thread's work.
    pub(super) fn add(&self, work: TaskTracker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(work);
    }

    /// Whether there is none.
    pub fn none(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().all(TaskTracker::is_empty)
    }
}
