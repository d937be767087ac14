//! A process' memory during an attack and afterwards. Must not depend on the attack.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::usage;

const LOOK: Duration = Duration::from_millis(20);

/// The peak of a process' resident memory since this was created.
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

    /// Waits until the peak reaches this.
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

/// Waits until the process has no more than `most`, or the time is over. Returns its memory then, and the time it took.
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
