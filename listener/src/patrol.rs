//! Watches the heads of the frames that a client sends. Frames that are no part of a call cost the client credit, which
//! comes back with time and with calls; who has none left is not read from until it has. And who sends a lot at once
//! has to let others have their turn. Must never look into a frame, or keep one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

/// What a client may send at once that is no part of a call.
const FULL: i64 = 2_048;
/// What comes back each second.
const RATE: i64 = 1_024;
/// A call comes with a change of a window, or a PING that measures the way.
const CALL: i64 = 2;
/// One more than a call brings: calls that are only made to be reset cost.
const RESET: i64 = CALL + 1;
/// We ask once in half a minute. The library logs each answer to a PING that it never sent.
const PONG: i64 = 64;
/// Bytes of answers that bring as much as one frame costs: a large answer is taken in many steps.
const ANSWER: usize = 32;
/// Frames that cost as much of a task's turn, of which it has 128, as a read does. A call costs as much by itself.
const TURN: usize = 8;

/// One connection's watch.
#[derive(Debug)]
pub(crate) struct Patrol {
    /// Bytes until the next head.
    skip: usize,
    /// A head that has not come whole, and how much of it has.
    head: [u8; HEAD],
    part: usize,
    credit: i64,
    /// Up to when time has brought credit.
    since: Instant,
    /// Bytes of answers that have brought none yet.
    answers: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

/// What was in a read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    frames: usize,
    calls: usize,
    cost: i64,
}

impl Patrol {
    pub(crate) fn new() -> Patrol {
        Patrol {
            skip: PREFACE,
            head: [0; HEAD],
            part: 0,
            credit: FULL,
            since: Instant::now(),
            answers: 0,
            wait: None,
        }
    }

    /// Waits until there is credit.
    pub(crate) fn pass(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.credit < 0 {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            let now = Instant::now();
            let millis = i64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(FULL);
            self.since = now;
            self.credit = self.credit.saturating_add(millis.saturating_mul(RATE) / 1_000).min(FULL);
            if self.credit < 0 {
                let missing =
                    Duration::from_millis(1 + self.credit.unsigned_abs() * 1_000 / RATE.unsigned_abs());
                self.wait = Some(Box::pin(sleep_until(now + missing)));
            }
        }
        Poll::Ready(())
    }

    /// Counts what was read.
    pub(crate) fn read(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let found = self.look(bytes);
        self.credit = (self.credit - found.cost).min(FULL);
        for _ in 0..found.calls + found.frames / TURN {
            match coop::poll_proceed(context) {
                Poll::Ready(turn) => turn.made_progress(),
                // The next read gives way.
                Poll::Pending => break,
            }
        }
    }

    /// Counts what was written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.answers += bytes;
        let brought = i64::try_from(self.answers / ANSWER).unwrap_or(FULL);
        self.answers %= ANSWER;
        self.credit = self.credit.saturating_add(brought).min(FULL);
    }

    fn look(&mut self, mut bytes: &[u8]) -> Found {
        let mut found = Found::default();
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD - self.part);
            if taken == 0 {
                return found;
            }
            self.head[self.part..self.part + taken].copy_from_slice(&bytes[..taken]);
            self.part += taken;
            bytes = &bytes[taken..];
            if self.part == HEAD {
                self.part = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                found.frames += 1;
                found.calls += usize::from(kind == HEADERS);
                found.cost += cost(kind, flags, self.skip);
            }
        }
    }
}

/// What a frame costs; less than nothing if it is a call.
fn cost(kind: u8, flags: u8, length: usize) -> i64 {
    match kind {
        HEADERS => -CALL,
        DATA if length > 0 || flags & END_STREAM != 0 => 0,
        RST_STREAM => RESET,
        PING if flags & ACK != 0 => PONG,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(std::iter::repeat_n(9, length.into()));
        frame
    }

    /// A patrol that has seen the preface, with what is left of its credit.
    async fn after(bytes: &[u8]) -> Patrol {
        let mut patrol = Patrol::new();
        patrol.look(&[0; PREFACE]);
        read(&mut patrol, bytes).await;
        patrol
    }

    async fn read(patrol: &mut Patrol, bytes: &[u8]) {
        poll_fn(|context| {
            patrol.read(bytes, context);
            Poll::Ready(())
        })
        .await;
    }

    async fn passes(patrol: &mut Patrol) -> bool {
        poll_fn(|context| Poll::Ready(patrol.pass(context).is_ready())).await
    }

    #[test]
    fn heads_are_found_wherever_reads_begin_and_end() {
        let frames = [frame(HEADERS, 4, 30), frame(DATA, 1, 7), frame(PING, 0, 8), frame(4, 1, 0)].concat();
        let bytes = [&[b'P'; PREFACE][..], &frames].concat();
        for step in 1..bytes.len() {
            let (mut patrol, mut all) = (Patrol::new(), Found::default());
            for part in bytes.chunks(step) {
                let found = patrol.look(part);
                all = Found {
                    frames: all.frames + found.frames,
                    calls: all.calls + found.calls,
                    cost: all.cost + found.cost,
                };
            }
            assert_eq!(all, Found { frames: 4, calls: 1, cost: 2 - CALL }, "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_floods_waits_and_goes_on_at_a_rate() {
        let full = usize::try_from(FULL).unwrap();
        for one in [frame(PING, 0, 8), frame(4, 0, 0), frame(2, 0, 5), frame(DATA, 0, 0), frame(0xbb, 0, 0)] {
            let mut patrol = after(&one.repeat(full)).await;
            assert!(passes(&mut patrol).await, "{one:?}");
            let mut patrol = after(&one.repeat(full + 1_024)).await;
            assert!(!passes(&mut patrol).await, "{one:?}");
            advance(Duration::from_millis(990)).await;
            assert!(!passes(&mut patrol).await, "{one:?}");
            advance(Duration::from_millis(20)).await;
            assert!(passes(&mut patrol).await, "{one:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_calls_never_waits() {
        let call = [frame(HEADERS, 4, 30), frame(DATA, 1, 20), frame(8, 0, 4), frame(PING, 0, 8)].concat();
        assert!(passes(&mut after(&call.repeat(100_000)).await).await);
        // A long answer, each part of which the client confirms twice.
        let mut patrol = after(&[]).await;
        for _ in 0..100_000 {
            patrol.wrote(80);
            read(&mut patrol, &frame(8, 0, 4).repeat(2)).await;
        }
        assert!(passes(&mut patrol).await);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_only_reset_cost() {
        let full = usize::try_from(FULL).unwrap();
        let pair = [frame(HEADERS, 4, 30), frame(RST_STREAM, 0, 4)].concat();
        assert!(passes(&mut after(&pair.repeat(full)).await).await);
        assert!(!passes(&mut after(&pair.repeat(full + 1)).await).await);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_pings_bring_less_than_the_pings_cost() {
        let mut patrol = after(&[]).await;
        for _ in 0..3 * FULL {
            patrol.wrote(17);
            read(&mut patrol, &frame(PING, 0, 8)).await;
        }
        assert!(!passes(&mut patrol).await, "{patrol:?}");
    }
}
