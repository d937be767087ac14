//! Watches the heads of the frames that a client sends. Every frame costs the client credit, but for one that carries as
//! much as it costs us. Credit comes back with time, with answers, and with each call that is let in; who has none left
//! is not read from until it has. And who sends a lot at once has to let others have their turn. Must never look into a
//! frame, or keep one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::toll::{CALL, Toll};

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const PADDED: u8 = 8;
const ACK: u8 = 1;

/// What a client may send at once that is no part of a call.
pub(crate) const FULL: i64 = 2_048;
/// What comes back each second.
pub(crate) const RATE: i64 = 1_024;
/// Calls that are only made to be reset cost, by one frame.
const RESET: i64 = CALL;
/// We ask once in half a minute. The library logs each answer to a PING that it never sent.
const PONG: i64 = 64;
/// A setting may change the windows of all streams: each then sends what its window lets out.
const SETTING: i64 = 512;
/// Bytes that a frame has to carry to cost nothing. Messages of more than a few bytes come in frames of thousands.
const WORTH: usize = 256;
/// Bytes of answers that bring as much as one frame costs: a large answer is taken in many steps.
const ANSWER: usize = 32;
/// Frames that cost as much of a task's turn, of which it has 128, as a read does. A call costs as much by itself.
const TURN: usize = 8;
/// Bytes that cost as much: what is read lies unread in windows until calls have had their turn, and with very many
/// connections it is that which adds up.
const BYTES: usize = 512;

/// One connection's watch.
#[derive(Debug)]
pub(crate) struct Patrol {
    /// Bytes until the next head.
    skip: usize,
    /// A head that has not come whole, and how much of it has.
    head: [u8; HEAD],
    part: usize,
    credit: i64,
    toll: Arc<Toll>,
    /// Whether it has said its settings, as everybody does once.
    settled: bool,
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
    pub(crate) fn new(toll: Arc<Toll>) -> Patrol {
        Patrol {
            skip: PREFACE,
            head: [0; HEAD],
            part: 0,
            credit: FULL,
            toll,
            settled: false,
            since: Instant::now(),
            answers: 0,
            wait: None,
        }
    }

    /// Waits until there is credit.
    pub(crate) fn pass(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.credit = self.toll.left(self.credit.saturating_add(self.toll.brought()).min(FULL));
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
        self.wait = None;
        Poll::Ready(())
    }

    /// Counts what was read.
    pub(crate) fn read(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let found = self.look(bytes);
        self.credit = (self.credit - found.cost).min(FULL);
        for _ in 0..(found.calls + found.frames / TURN).max(bytes.len() / BYTES) {
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
                found.cost += self.cost(kind, flags);
            }
        }
    }

    /// What a frame costs whose bytes are to be skipped.
    fn cost(&mut self, kind: u8, flags: u8) -> i64 {
        match kind {
            // Padding carries nothing, and nobody who means it pads so many.
            DATA if self.skip >= WORTH && flags & PADDED == 0 => 0,
            RST_STREAM => RESET,
            SETTINGS if self.skip > 0 && std::mem::replace(&mut self.settled, true) => SETTING,
            PING if flags & ACK != 0 => PONG,
            _ => 1,
        }
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
        let mut patrol = Patrol::new(Arc::default());
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
            let (mut patrol, mut all) = (Patrol::new(Arc::default()), Found::default());
            for part in bytes.chunks(step) {
                let found = patrol.look(part);
                all = Found {
                    frames: all.frames + found.frames,
                    calls: all.calls + found.calls,
                    cost: all.cost + found.cost,
                };
            }
            assert_eq!(all, Found { frames: 4, calls: 1, cost: 4 }, "{step}");
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

    /// Calls one after the other, each let in when it is read.
    async fn call(patrol: &mut Patrol, frames: &[u8], times: i64, refused: bool) {
        for _ in 0..times {
            read(patrol, frames).await;
            patrol.toll.called();
            if refused {
                patrol.toll.refused();
            }
            // All but the cost of the last.
            let _ = passes(patrol).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_calls_never_waits() {
        let small =
            [frame(HEADERS, 4, 30), frame(DATA, 0, 20), frame(DATA, 1, 0), frame(8, 0, 4), frame(PING, 0, 8)];
        let mut patrol = after(&[]).await;
        call(&mut patrol, &small.concat(), 100_000, false).await;
        assert!(passes(&mut patrol).await);
        // As many at once as a connection takes are let in while the first wait.
        let mut patrol = after(&small.concat().repeat(1_024)).await;
        assert!(!passes(&mut patrol).await);
        (0..1_024).for_each(|_| patrol.toll.called());
        assert!(passes(&mut patrol).await);
        // A large message, and a long answer, each part of which the client confirms twice.
        let mut patrol = after(&[]).await;
        for _ in 0..100_000 {
            let mut large = vec![0, 0x40, 0, DATA, 0, 0, 0, 0, 1];
            large.resize(9 + (16 << 10), 0);
            read(&mut patrol, &large).await;
            patrol.wrote(80);
            read(&mut patrol, &frame(8, 0, 4).repeat(2)).await;
        }
        assert!(passes(&mut patrol).await);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_carry_little_or_padding_cost() {
        let full = usize::try_from(FULL).unwrap();
        for one in [frame(DATA, 0, 1), frame(DATA, 1, 0), frame(DATA, PADDED, 255), frame(9, 0, 1)] {
            assert!(passes(&mut after(&one.repeat(full)).await).await, "{one:?}");
            assert!(!passes(&mut after(&one.repeat(full + 1)).await).await, "{one:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_changes_all_windows_again_and_again_waits() {
        let settings = frame(SETTINGS, 0, 6);
        assert!(passes(&mut after(&settings.repeat(4)).await).await);
        assert!(!passes(&mut after(&settings.repeat(5)).await).await);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_only_reset_or_refused_cost() {
        let pair = [frame(HEADERS, 4, 30), frame(RST_STREAM, 0, 4)].concat();
        let mut patrol = after(&[]).await;
        call(&mut patrol, &pair, FULL, false).await;
        assert_eq!(patrol.credit, 0);
        let one = [frame(HEADERS, 4, 30), frame(DATA, 1, 5)].concat();
        let mut patrol = after(&[]).await;
        call(&mut patrol, &one, 50, true).await;
        assert!(patrol.credit > 0, "{patrol:?}");
        call(&mut patrol, &one, 100, true).await;
        assert!(!passes(&mut patrol).await, "{patrol:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_calls_do_not_stop_the_good_ones_on_their_connection() {
        let one = [frame(HEADERS, 4, 30), frame(DATA, 1, 5)].concat();
        let (mut patrol, mut waits) = (after(&[]).await, 0);
        for turn in 0..5_050 {
            read(&mut patrol, &one).await;
            patrol.toll.called();
            if turn % 101 == 0 {
                patrol.toll.good()
            } else {
                patrol.toll.refused()
            }
            waits += usize::from(!passes(&mut patrol).await);
        }
        assert_eq!(waits, 0, "{patrol:?}");
        // As many at once as a connection takes.
        (0..1_024).for_each(|_| patrol.toll.refused());
        assert!(passes(&mut patrol).await, "{patrol:?}");
        // Frames that are not worth it cost as before.
        read(&mut patrol, &frame(DATA, 0, 1).repeat(usize::try_from(FULL).unwrap())).await;
        patrol.since = Instant::now();
        assert!(!passes(&mut patrol).await, "{patrol:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_refused_calls_as_come_at_once_stop_a_connection_for_a_second_at_most() {
        let mut patrol = after(&[]).await;
        (0..1_024).for_each(|_| patrol.toll.refused());
        assert!(!passes(&mut patrol).await);
        advance(Duration::from_millis(1_010)).await;
        assert!(passes(&mut patrol).await, "{patrol:?}");
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

    #[tokio::test]
    async fn who_sends_much_gives_way_before_its_window_is_full() {
        let mut data = frame(DATA, 0, 0);
        data[1] = 64;
        data.resize(HEAD + (64 << 8), 9);
        let mut patrol = after(&[]).await;
        tokio::task::yield_now().await;
        let reads = poll_fn(|context| {
            let more = |_: &usize| {
                patrol.read(&data, context);
                coop::has_budget_remaining()
            };
            Poll::Ready((0..64).take_while(more).count())
        });
        let bytes = reads.await * data.len();
        assert!((32 << 10..=64 << 10).contains(&bytes), "{bytes} of a window of 1 MiB");
    }
}
