//! A rate limit of log lines: an outage must not fill a disk. Must not depend on the lines' contents.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines allowed in each interval.
const LINES: u32 = 10;
/// The interval.
const TIME: Duration = Duration::from_secs(1);

/// A rate limit of log lines.
#[derive(Debug, Default)]
pub struct LineQuota(Mutex<Option<(Instant, u32)>>);

impl LineQuota {
    /// Whether one more line may be written now.
    pub fn take(&self) -> bool {
        let now = Instant::now();
        let mut state = self.0.lock();
        match &mut *state {
            Some((since, lines)) if now.saturating_duration_since(*since) < TIME => {
                *lines = lines.saturating_add(1);
                *lines <= LINES
            }
            _ => {
                *state = Some((now, 1));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_ten_lines_a_second() {
        let quota = LineQuota::default();
        for _ in 0..3 {
            assert_eq!((0..1_000).filter(|_| quota.take()).count(), 10);
            tokio::time::advance(TIME).await;
        }
    }
}
