//! A process' memory while something happens to it, and afterwards. Must never know what happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::usage;

const LOOK: Duration = Duration::from_millis(20);

/// The most that a process has had since this began.
pub(super) struct Peak {
    most: Arc<AtomicU64>,
    looking: AbortHandle,
}

impl Peak {
    pub(super) fn of(pid: u32) -> Peak {
        let most = Arc::new(AtomicU64::new(0));
        let seen = most.clone();
        let looking = tokio::spawn(async move {
            while let Ok(resident) = usage::resident(pid) {
                seen.fetch_max(resident, Ordering::Relaxed);
                sleep(LOOK).await;
            }
        });
        Peak { most, looking: looking.abort_handle() }
    }

    /// Waits until it has had so much.
    pub(super) async fn reaches(&self, bytes: u64) {
        while self.most() < bytes {
            sleep(LOOK).await;
        }
    }

    pub(super) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// Waits until it has no more than this, or the time is over; what it has then, and how long that took.
pub(super) async fn returned(pid: u32, most: u64, limit: Duration) -> anyhow::Result<(u64, Duration)> {
    let begun = Instant::now();
    loop {
        let resident = usage::resident(pid)?;
        if resident <= most || begun.elapsed() >= limit {
            return Ok((resident, begun.elapsed()));
        }
        sleep(LOOK).await;
    }
}
