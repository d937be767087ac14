//! Clocks: this machine's time of day, and JetStream's as it tells it. Whatever is compared between processes, or kept,
//! is in JetStream's time: one machine whose clock is off then moves nobody's deadline. The leaders of different streams
//! have different clocks; one stream's leader is followed, and the others are compared with it. Must never know what a
//! time is used for.

use std::collections::BTreeMap;
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
    /// The stream whose leader's time is taken.
    follows: Option<&'static str>,
    /// What each stream's leader said.
    told: BTreeMap<&'static str, Told>,
    /// This machine's clock, and the other leaders', by their streams.
    wall: Said,
    leaders: BTreeMap<&'static str, Said>,
}

/// When the log had a line about a clock; none while the clock is right.
#[derive(Debug, Default)]
struct Said(Option<Instant>);

/// What is to be said of a clock now.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    Off,
    Right,
}

impl Said {
    fn look(&mut self, off: bool, now: Instant) -> Say {
        if !off {
            return if self.0.take().is_some() { Say::Right } else { Say::Nothing };
        }
        if self.0.is_some_and(|said| now.saturating_duration_since(said) < REMIND) {
            return Say::Nothing;
        }
        self.0 = Some(now);
        Say::Off
    }
}

impl State {
    /// What the time is taken from: the leader that is followed, or any while that one has said nothing yet.
    fn judge(&self) -> Option<(&'static str, Told)> {
        let followed = self.follows.and_then(|stream| self.told.get_key_value(stream));
        followed.or_else(|| self.told.first_key_value()).map(|(stream, told)| (*stream, *told))
    }
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

    /// From now on the time is that of this stream's leader: the one whose timestamps bound what it is compared with.
    pub fn follow(&self, stream: &'static str) {
        self.state().follows = Some(stream);
    }

    /// Now in unix milliseconds, as JetStream has it; as this machine has it until JetStream has said something.
    pub fn unix_ms(&self) -> u64 {
        let judge = self.state().judge();
        judge.map_or_else(|| self.wall.unix_ms(), |(_, told)| told.now(Instant::now()))
    }

    /// By how much this machine's clock is ahead of JetStream's, in milliseconds; nothing before that is known.
    pub fn skew_ms(&self) -> Option<i64> {
        self.state().judge().map(|(_, told)| skew(self.wall.unix_ms(), told.now(Instant::now())))
    }

    /// By how much the clocks of other streams' leaders are ahead of that of the one that is followed, in milliseconds.
    pub fn leaders_ms(&self) -> Vec<(&'static str, i64)> {
        let (state, now) = (self.state(), Instant::now());
        let Some((followed, judge)) = state.judge() else { return Vec::new() };
        let others = state.told.iter().filter(|(stream, _)| **stream != followed);
        others.map(|(stream, told)| (*stream, skew(told.now(now), judge.now(now)))).collect()
    }

    /// A stream's leader said this time in an answer to a question of `asked`, which has just come.
    pub fn tell(&self, stream: &'static str, unix_ms: u64, asked: Instant) {
        let now = Instant::now();
        // It was said at some time between the two.
        let half = millis(now.saturating_duration_since(asked)) / 2;
        let told = Told { at: now, unix_ms: unix_ms.saturating_add(half), error_ms: half + 1 };
        let mut state = self.state();
        let better = state.told.get(stream).is_none_or(|before| {
            let apart = before.now(now).abs_diff(told.unix_ms);
            told.error_ms <= before.error(now) || apart > before.error(now) + told.error_ms
        });
        if better {
            state.told.insert(stream, told);
        }
        let Some((followed, judge)) = state.judge() else { return };
        if stream == followed {
            let ahead_ms = skew(self.wall.unix_ms(), judge.now(now));
            let off = ahead_ms.unsigned_abs() > millis(SKEW) + judge.error(now);
            say_wall(state.wall.look(off, now), ahead_ms);
        } else if let Some(best) = state.told.get(stream).copied() {
            let ahead_ms = skew(best.now(now), judge.now(now));
            let off = ahead_ms.unsigned_abs() > millis(SKEW) + judge.error(now) + best.error(now);
            say_leader(state.leaders.entry(stream).or_default().look(off, now), stream, followed, ahead_ms);
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
        for (stream, ahead) in self.leaders_ms() {
            page.level(
                "nats_leader_clock_skew_seconds",
                "By how much the clock of a stream's leader is ahead of the one that is followed; below zero: behind.",
                &[("connection", connection), ("stream", stream)],
                ahead as f64 / 1e3,
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say_wall(say: Say, ahead_ms: i64) {
    match say {
        Say::Nothing => {}
        Say::Off => tracing::warn!(
            target: "clock",
            ahead_ms,
            "this machine's clock differs from that of the NATS servers; JetStream's time is used meanwhile. \
             Look at NTP on both"
        ),
        Say::Right => tracing::info!(
            target: "clock",
            "this machine's clock agrees with that of the NATS servers again"
        ),
    }
}

fn say_leader(say: Say, stream: &str, followed: &str, ahead_ms: i64) {
    match say {
        Say::Nothing => {}
        Say::Off => tracing::warn!(
            target: "clock",
            stream,
            ahead_ms,
            "the clocks of two NATS servers differ: the leader of this stream and that of {followed}, whose time is \
             used. Look at NTP on both"
        ),
        Say::Right => tracing::info!(
            target: "clock",
            stream,
            "the clock of this stream's leader agrees with that of the leader of {followed} again"
        ),
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
    use crate::streams::{INVENTORY, ORDERS};

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn what_jetstream_says_goes_before_this_machines_clock() {
        for wall in [Wall::ahead(25 * HOUR), Wall::behind(25 * HOUR)] {
            let clock = Clock::new(wall);
            assert!(clock.unix_ms().abs_diff(wall.unix_ms()) < 1_000 && clock.skew_ms().is_none());
            let right = Wall::default().unix_ms();
            clock.tell(INVENTORY, right, Instant::now());
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(clock.unix_ms(), right + 5_000);
            assert!(clock.skew_ms().unwrap().unsigned_abs() > millis(24 * HOUR));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_long_does_not_replace_a_quick_one_unless_the_two_contradict_each_other() {
        let clock = Clock::new(Wall::default());
        clock.tell(INVENTORY, 1_000_000, Instant::now());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        clock.tell(INVENTORY, 1_000_300, asked);
        assert_eq!(clock.unix_ms(), 1_002_000);
        // The server's clock was set, or another server leads.
        clock.tell(INVENTORY, 9_000_000, Instant::now());
        assert_eq!(clock.unix_ms(), 9_000_000);
    }

    /// Of the stock's ledger, and beside it two leaders whose clocks are an hour apart, who answer in turns.
    #[tokio::test(start_paused = true)]
    async fn a_leader_of_another_stream_does_not_move_the_time() {
        let clock = Clock::new(Wall::default());
        let right = Wall::default().unix_ms();
        // The other may be the first to answer.
        clock.tell(ORDERS, right + millis(HOUR), Instant::now());
        clock.follow(INVENTORY);
        for second in 0..60 {
            clock.tell(INVENTORY, right + 1_000 * second, Instant::now());
            clock.tell(ORDERS, right + millis(HOUR) + 1_000 * second, Instant::now());
            assert_eq!(clock.unix_ms(), right + 1_000 * second);
            assert!(clock.skew_ms().unwrap().unsigned_abs() < millis(HOUR) / 2);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(clock.leaders_ms(), [(ORDERS, 3_600_000)]);
    }

    #[tokio::test(start_paused = true)]
    async fn leaders_whose_clocks_differ_are_told_once_in_a_while_and_no_line_comes_from_their_turns() {
        let clock = Clock::new(Wall::default());
        clock.follow(INVENTORY);
        let right = Wall::default().unix_ms();
        let (begun, mut lines) = (Instant::now(), Vec::new());
        for second in 0..900 {
            clock.tell(INVENTORY, right + 1_000 * second, Instant::now());
            clock.tell(ORDERS, right + millis(HOUR) + 1_000 * second, Instant::now());
            let said = clock.state().leaders[ORDERS].0.expect("it is off");
            if lines.last() != Some(&said) {
                lines.push(said);
            }
            // This machine's clock did not change; the other leader's says nothing about it.
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, [begun, begun + REMIND]);
        clock.tell(ORDERS, clock.unix_ms(), Instant::now());
        assert!(clock.state().leaders[ORDERS].0.is_none());
    }
}
