//! Clocks: this machine's time of day, and JetStream's as its answers report it. All times that are compared between
//! processes, or stored, are JetStream time: one machine with a wrong clock then moves nobody's deadline. The leaders
//! of different streams have different clocks; we follow one stream's leader and compare the others with it. Must not
//! depend on what a time is used for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use telemetry::Exposition;
use tokio::time::Instant;

/// Clocks that differ by less than this count as correct: NTP keeps them closer.
pub const SKEW: Duration = Duration::from_secs(2);
/// Interval between two log lines about a wrong clock.
const REMIND: Duration = Duration::from_secs(600);
/// The maximum drift of two clocks, as a fraction of the elapsed time.
const DRIFT: u64 = 1_000;

/// This machine's time of day. Tests use one with an offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WallClock {
    ahead_ms: i64,
}

impl WallClock {
    /// A clock that is ahead by this much.
    pub fn ahead(by: Duration) -> WallClock {
        WallClock { ahead_ms: i64::try_from(by.as_millis()).unwrap_or(i64::MAX) }
    }

    /// A clock that is behind by this much.
    pub fn behind(by: Duration) -> WallClock {
        WallClock { ahead_ms: -WallClock::ahead(by).ahead_ms }
    }

    /// Now, in unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(self.ahead_ms)
    }
}

/// JetStream's time of day, and this machine's.
#[derive(Debug, Default)]
pub struct Clock {
    wall: WallClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The stream whose leader's clock is followed.
    follows: Option<&'static str>,
    /// The last time reported by each stream's leader.
    told: BTreeMap<&'static str, Told>,
    /// Log state for this machine's clock, and for the other leaders' by stream.
    wall: Said,
    leaders: BTreeMap<&'static str, Said>,
}

/// When a clock was last logged as wrong; none while it is correct.
#[derive(Debug, Default)]
struct Said(Option<Instant>);

/// What to log about a clock now.
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
    /// The source of the time: the followed leader, or any other until that one has answered.
    fn judge(&self) -> Option<(&'static str, Told)> {
        let followed = self.follows.and_then(|stream| self.told.get_key_value(stream));
        followed.or_else(|| self.told.first_key_value()).map(|(stream, told)| (*stream, *told))
    }
}

/// A time reported by JetStream, and when.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    unix_ms: u64,
    /// The possible error, from the answer's round trip.
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
    /// A clock without a time from JetStream yet, on a machine with this time of day.
    pub fn new(wall: WallClock) -> Arc<Clock> {
        Arc::new(Clock { wall, state: Mutex::default() })
    }

    /// This machine's own time of day.
    pub fn wall(&self) -> WallClock {
        self.wall
    }

    /// Follows this stream's leader from now on: its timestamps are what the time is compared with.
    pub fn follow(&self, stream: &'static str) {
        self.state().follows = Some(stream);
    }

    /// JetStream's time in unix milliseconds; this machine's time until JetStream has answered once.
    pub fn unix_ms(&self) -> u64 {
        let judge = self.state().judge();
        judge.map_or_else(|| self.wall.unix_ms(), |(_, told)| told.now(Instant::now()))
    }

    /// By how many milliseconds this machine's clock is ahead of JetStream's; `None` until known.
    pub fn skew_ms(&self) -> Option<i64> {
        self.state().judge().map(|(_, told)| skew(self.wall.unix_ms(), told.now(Instant::now())))
    }

    /// By how many milliseconds the clocks of other streams' leaders are ahead of the followed leader's.
    pub(crate) fn leaders_ms(&self) -> Vec<(&'static str, i64)> {
        let (state, now) = (self.state(), Instant::now());
        let Some((followed, judge)) = state.judge() else { return Vec::new() };
        let others = state.told.iter().filter(|(stream, _)| **stream != followed);
        others.map(|(stream, told)| (*stream, skew(told.now(now), judge.now(now)))).collect()
    }

    /// Records the time in an answer that a stream's leader just gave to a request sent at `asked`.
    pub fn tell(&self, stream: &'static str, unix_ms: u64, asked: Instant) {
        let now = Instant::now();
        // The leader read its clock at some time between the two.
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

    /// Writes the clock skew metrics.
    pub(crate) fn page(&self, page: &mut Exposition, connection: &str) {
        if let Some(skew) = self.skew_ms() {
            page.gauge(
                "nats_clock_skew_seconds",
                "Seconds by which this machine's clock is ahead of JetStream's; negative if behind.",
                &[("connection", connection)],
                skew as f64 / 1e3,
            );
        }
        for (stream, ahead) in self.leaders_ms() {
            page.gauge(
                "nats_leader_clock_skew_seconds",
                "Seconds by which a stream leader's clock is ahead of the followed one's; negative if behind.",
                &[("connection", connection), ("stream", stream)],
                ahead as f64 / 1e3,
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn say_wall(say: Say, ahead_ms: i64) {
    match say {
        Say::Nothing => {}
        Say::Off => tracing::warn!(
            target: "clock",
            ahead_ms,
            "this machine's clock differs from the NATS servers' clock; using JetStream's time meanwhile. \
             Check NTP on both"
        ),
        Say::Right => tracing::info!(
            target: "clock",
            "this machine's clock agrees with the NATS servers' clock again"
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
            "the clocks of two NATS servers differ: this stream's leader and the leader of {followed}, whose time is \
             used. Check NTP on both"
        ),
        Say::Right => tracing::info!(
            target: "clock",
            stream,
            "the clock of this stream's leader agrees with the clock of {followed}'s leader again"
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
    /// The stream whose leader is followed, and another one.
    const FOLLOWED: &str = "ONE";
    const OTHER: &str = "TWO";

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn what_jetstream_says_goes_before_this_machines_clock() {
        for wall in [WallClock::ahead(25 * HOUR), WallClock::behind(25 * HOUR)] {
            let clock = Clock::new(wall);
            assert!(clock.unix_ms().abs_diff(wall.unix_ms()) < 1_000 && clock.skew_ms().is_none());
            let right = WallClock::default().unix_ms();
            clock.tell(FOLLOWED, right, Instant::now());
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(clock.unix_ms(), right + 5_000);
            assert!(clock.skew_ms().unwrap().unsigned_abs() > millis(24 * HOUR));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_long_does_not_replace_a_quick_one_unless_the_two_contradict_each_other() {
        let clock = Clock::new(WallClock::default());
        clock.tell(FOLLOWED, 1_000_000, Instant::now());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        clock.tell(FOLLOWED, 1_000_300, asked);
        assert_eq!(clock.unix_ms(), 1_002_000);
        // The server's clock was set, or the leader changed.
        clock.tell(FOLLOWED, 9_000_000, Instant::now());
        assert_eq!(clock.unix_ms(), 9_000_000);
    }

    /// Two leaders whose clocks are an hour apart, answering in turns.
    #[tokio::test(start_paused = true)]
    async fn a_leader_of_another_stream_does_not_move_the_time() {
        let clock = Clock::new(WallClock::default());
        let right = WallClock::default().unix_ms();
        // The other leader may answer first.
        clock.tell(OTHER, right + millis(HOUR), Instant::now());
        clock.follow(FOLLOWED);
        for second in 0..60 {
            clock.tell(FOLLOWED, right + 1_000 * second, Instant::now());
            clock.tell(OTHER, right + millis(HOUR) + 1_000 * second, Instant::now());
            assert_eq!(clock.unix_ms(), right + 1_000 * second);
            assert!(clock.skew_ms().unwrap().unsigned_abs() < millis(HOUR) / 2);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(clock.leaders_ms(), [(OTHER, 3_600_000)]);
    }

    #[tokio::test(start_paused = true)]
    async fn leaders_whose_clocks_differ_are_told_once_in_a_while_and_no_line_comes_from_their_turns() {
        let clock = Clock::new(WallClock::default());
        clock.follow(FOLLOWED);
        let right = WallClock::default().unix_ms();
        let (begun, mut lines) = (Instant::now(), Vec::new());
        for second in 0..900 {
            clock.tell(FOLLOWED, right + 1_000 * second, Instant::now());
            clock.tell(OTHER, right + millis(HOUR) + 1_000 * second, Instant::now());
            let said = clock.state().leaders[OTHER].0.expect("it is off");
            if lines.last() != Some(&said) {
                lines.push(said);
            }
            // This machine's clock did not change; the other leader's clock says nothing about it.
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, [begun, begun + REMIND]);
        clock.tell(OTHER, clock.unix_ms(), Instant::now());
        assert!(clock.state().leaders[OTHER].0.is_none());
    }
}
