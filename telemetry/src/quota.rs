//! A quota of log lines: an outage fills no disk. Must never know what the lines say.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many lines…
const LINES: u32 = 10;
/// …in this time.
const TIME: Duration = Duration::from_secs(1);

/// Lines that may be written.
#[derive(Debug, Default)]
pub struct Quota(Mutex<Option<(Instant, u32)>>);

impl Quota {
    /// Whether one more line may be written now.
    pub fn take(&self) -> bool {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let quota = Quota::default();
        for _ in 0..3 {
            assert_eq!((0..1_000).filter(|_| quota.take()).count(), 10);
            tokio::time::advance(TIME).await;
        }
    }
}
