//! Clocks: this machine's time of day, and JetStream's as it tells it. Whatever is compared between processes, or kept,
//! is in JetStream's time: one machine whose clock is off then moves nobody's deadline. Must never know what a time is
//! used for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use telemetry::Page;
use tokio::time::Instant;

/// Clocks that differ by less than this are taken to be right: NTP keeps them closer.
pub const SKEW: Duration = Duration::from_secs(2);
/// Between two lines in the log about a clock that is off.
const REMIND: Duration = Duration::from_secs(600);
/// How far two clocks move apart at the worst, as a share of the time since.
const DRIFT: u64 = 1_000;

/// This machine's time of day. Tests have one that is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wall {
    ahead_ms: i64,
}

impl Wall {
    /// One that is ahead by so much.
    pub fn ahead(by: Duration) -> Wall {
        Wall { ahead_ms: i64::try_from(by.as_millis()).unwrap_or(i64::MAX) }
    }

    /// One that is behind by so much.
    pub fn behind(by: Duration) -> Wall {
        Wall { ahead_ms: -Wall::ahead(by).ahead_ms }
    }

    /// Now, in unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(self.ahead_ms)
    }
}

/// The time of day as JetStream tells it, and this machine's beside it.
#[derive(Debug, Default)]
pub struct Clock {
    wall: Wall,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Told>,
    /// When the log had a line about it; none while the clock is right.
    said: Option<Instant>,
}

/// What JetStream's clock said, and when.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    unix_ms: u64,
    /// By how much that may be wrong, as the answer took its time.
    error_ms: u64,
}

impl Told {
    fn now(&self, now: Instant) -> u64 {
        self.unix_ms.saturating_add(millis(now.saturating_duration_since(self.at)))
    }

    fn error(&self, now: Instant) -> u64 {
        self.error_ms + millis(now.saturating_duration_since(self.at)) / DRIFT
    }
}

impl Clock {
    /// A clock that was told nothing yet, on a machine with this time of day.
    pub fn new(wall: Wall) -> Arc<Clock> {
        Arc::new(Clock { wall, state: Mutex::default() })
    }

    /// This machine's own time of day.
    pub fn wall(&self) -> Wall {
        self.wall
    }

    /// Now in unix milliseconds, as JetStream has it; as this machine has it until JetStream has said something.
    pub fn unix_ms(&self) -> u64 {
        self.state().told.map_or_else(|| self.wall.unix_ms(), |told| told.now(Instant::now()))
    }

    /// By how much this machine's clock is ahead of JetStream's, in milliseconds; nothing before that is known.
    pub fn skew_ms(&self) -> Option<i64> {
        self.state().told.map(|told| skew(self.wall.unix_ms(), told.now(Instant::now())))
    }

    /// JetStream said this time in an answer to a question of `asked`, which has just come.
    pub fn tell(&self, unix_ms: u64, asked: Instant) {
        let now = Instant::now();
        // It was said at some time between the two.
        let half = millis(now.saturating_duration_since(asked)) / 2;
        let told = Told { at: now, unix_ms: unix_ms.saturating_add(half), error_ms: half + 1 };
        let mut state = self.state();
        let better = state.told.is_none_or(|before| {
            let apart = before.now(now).abs_diff(told.unix_ms);
            told.error_ms <= before.error(now) || apart > before.error(now) + told.error_ms
        });
        if better {
            state.told = Some(told);
        }
        let Some(best) = state.told else { return };
        let skew = skew(self.wall.unix_ms(), best.now(now));
        let off = skew.unsigned_abs() > millis(SKEW) + best.error(now);
        let due = state.said.is_none_or(|said| now.saturating_duration_since(said) >= REMIND);
        if off && due {
            state.said = Some(now);
            tracing::warn!(
                target: "clock",
                ahead_ms = skew,
                "this machine's clock differs from that of the NATS servers; JetStream's time is used meanwhile. \
                 Look at NTP on both"
            );
        } else if !off && state.said.take().is_some() {
            tracing::info!(target: "clock", "this machine's clock agrees with that of the NATS servers again");
        }
    }

    /// Says for Prometheus by how much this machine's clock is off.
    pub(crate) fn page(&self, page: &mut Page, connection: &str) {
        if let Some(skew) = self.skew_ms() {
            page.level(
                "nats_clock_skew_seconds",
                "By how much this machine's clock is ahead of JetStream's; below zero: behind.",
                &[("connection", connection)],
                skew as f64 / 1e3,
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn skew(wall: u64, told: u64) -> i64 {
    let apart = i64::try_from(wall.abs_diff(told)).unwrap_or(i64::MAX);
    if wall < told { -apart } else { apart }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn what_jetstream_says_goes_before_this_machines_clock() {
        for wall in [Wall::ahead(25 * HOUR), Wall::behind(25 * HOUR)] {
            let clock = Clock::new(wall);
            assert!(clock.unix_ms().abs_diff(wall.unix_ms()) < 1_000 && clock.skew_ms().is_none());
            let right = Wall::default().unix_ms();
            clock.tell(right, Instant::now());
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(clock.unix_ms(), right + 5_000);
            assert!(clock.skew_ms().unwrap().unsigned_abs() > millis(24 * HOUR));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_long_does_not_replace_a_quick_one_unless_the_two_contradict_each_other() {
        let clock = Clock::new(Wall::default());
        clock.tell(1_000_000, Instant::now());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        clock.tell(1_000_300, asked);
        assert_eq!(clock.unix_ms(), 1_002_000);
        // The server's clock was set, or another server leads.
        clock.tell(9_000_000, Instant::now());
        assert_eq!(clock.unix_ms(), 9_000_000);
    }
}
