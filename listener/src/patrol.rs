//! Watches the heads of the frames that a client sends. Every frame costs the client credit, but for one that carries as
//! much as it costs us. Credit comes back with time, with answers, and with each call that is let in; who has none left
//! is not read from until it has. And who sends a lot at once has to let others have their turn. Must never look into a
//! frame, or keep one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client may send at once that is no part of a call.
pub(crate) const FULL: i64 = 2_048;
/// What comes back each second.
pub(crate) const RATE: i64 = 1_024;
/// Calls that are only made to be reset cost, by one frame. A reset is no more than a frame where a request came whole
/// for it: its client has waited for an answer, and gives up. So many of those may be saved up.
const RESET: i64 = CALL;
const GIVEN_UP: u64 = FULL.unsigned_abs();
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
    /// Header blocks that were begun, and how much of the last has come.
    blocks: u64,
    block: Block,
    credit: i64,
    toll: Arc<Toll>,
    /// Requests that have come whole, and how many of them may still be given up.
    whole: u64,
    may_reset: u64,
    /// Whether it has said its settings, as everybody does once.
    settled: bool,
    /// Up to when time has brought credit.
    since: Instant,
    /// Bytes of answers that have brought none yet.
    answers: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

/// A call's headers, which may come in several frames, with no other between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// All of it has come.
    Whole,
    /// It goes on after this frame.
    GoesOn,
    /// It ends with this frame.
    Ends,
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
            blocks: 0,
            block: Block::Whole,
            credit: FULL,
            toll,
            whole: 0,
            may_reset: 0,
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

    /// Which header block has not come whole, if any.
    pub(crate) fn open_block(&self) -> Option<u64> {
        (self.block != Block::Whole).then_some(self.blocks)
    }

    fn look(&mut self, mut bytes: &[u8]) -> Found {
        let mut found = Found::default();
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && self.block == Block::Ends {
                self.block = Block::Whole;
            }
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
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.blocks += u64::from(kind == HEADERS);
                    self.block = if flags & END_HEADERS == 0 { Block::GoesOn } else { Block::Ends };
                }
            }
        }
    }

    /// What a frame costs whose bytes are to be skipped.
    fn cost(&mut self, kind: u8, flags: u8) -> i64 {
        match kind {
            // Padding carries nothing, and nobody who means it pads so many.
            DATA if self.skip >= WORTH && flags & PADDED == 0 => 0,
            RST_STREAM if self.gives_up() => 1,
            RST_STREAM => RESET,
            SETTINGS if self.skip > 0 && std::mem::replace(&mut self.settled, true) => SETTING,
            PING if flags & ACK != 0 => PONG,
            _ => 1,
        }
    }

    /// Whether a reset stands for a call that came whole.
    fn gives_up(&mut self) -> bool {
        let whole = self.toll.whole().load(Ordering::Relaxed);
        let more = whole.saturating_sub(std::mem::replace(&mut self.whole, whole));
        let may_reset = self.may_reset.saturating_add(more).min(GIVEN_UP);
        self.may_reset = may_reset.saturating_sub(1);
        may_reset > 0
    }
}

#[cfg(test)]
mod tests;
