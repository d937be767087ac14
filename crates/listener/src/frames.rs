//! The limiter of control frames. Every frame that a client sends costs it credit, except a frame that carries about as
//! much data as it costs us to handle. Credit returns with time, with responses, and with each admitted call. A
//! connection without credit is not read until it has some. A connection that sends a lot at once must also yield to
//! others. Must not look into a frame, or keep one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::credit::{CALL, CallCredit, FULL, RATE};

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

/// A reset takes back what its call earned, so that a call made only to be reset (rapid reset) costs one frame. If the
/// request arrived completely, a reset costs no more than any frame: its client waited for a response and gives up. This
/// many of those may be saved up.
const RESET: i64 = CALL;
const GIVEN_UP: u64 = FULL.unsigned_abs();
/// We send a PING every half minute. The library logs each acknowledgement of a PING that it never sent.
const PONG: i64 = 64;
/// A SETTINGS frame may change the windows of all streams: each stream then sends what its window allows.
const SETTING: i64 = 512;
/// A frame with at least this many bytes costs nothing. Messages of more than a few bytes come in frames of thousands.
const WORTH: usize = 256;
/// Bytes of responses that earn the cost of one frame: a client reads a large response in many steps.
const ANSWER: usize = 32;
/// Frames that cost one of the 128 units of a task's poll budget, as a read does. A call costs as much by itself.
const TURN: usize = 8;
/// Bytes that cost one unit: data stays unread in windows until calls have had their turn, and with very many
/// connections this adds up.
const BYTES: usize = 512;

/// The limiter of one connection.
#[derive(Debug)]
pub(crate) struct FrameLimiter {
    /// Bytes until the next frame head.
    skip: usize,
    /// An incomplete frame head, and how many of its bytes have arrived.
    head: [u8; HEAD],
    part: usize,
    /// The number of header blocks begun, and the state of the last.
    blocks: u64,
    block: Block,
    credit: i64,
    toll: Arc<CallCredit>,
    /// Requests that arrived completely, and how many of them may still be reset for free.
    whole: u64,
    may_reset: u64,
    /// Whether the client has sent its initial SETTINGS, as every client does once.
    settled: bool,
    /// Until when the credit for elapsed time has been granted.
    since: Instant,
    /// Bytes of responses that have earned no credit yet.
    answers: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

/// A call's header block, which may span several consecutive frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// It is complete.
    Whole,
    /// It continues after this frame.
    GoesOn,
    /// It ends with this frame.
    Ends,
}

/// The contents of one read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    frames: usize,
    calls: usize,
    cost: i64,
}

impl FrameLimiter {
    pub(crate) fn new(toll: Arc<CallCredit>) -> FrameLimiter {
        FrameLimiter {
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

    /// Accounts for bytes read.
    pub(crate) fn read(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let found = self.look(bytes);
        self.credit = (self.credit - found.cost).min(FULL);
        for _ in 0..(found.calls + found.frames / TURN).max(bytes.len() / BYTES) {
            match coop::poll_proceed(context) {
                Poll::Ready(turn) => turn.made_progress(),
                // The next read yields.
                Poll::Pending => break,
            }
        }
    }

    /// Accounts for bytes written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.answers += bytes;
        let brought = i64::try_from(self.answers / ANSWER).unwrap_or(FULL);
        self.answers %= ANSWER;
        self.credit = self.credit.saturating_add(brought).min(FULL);
    }

    /// The number of the incomplete header block, if any.
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

    /// The cost of a frame, whose payload is skipped.
    fn cost(&mut self, kind: u8, flags: u8) -> i64 {
        match kind {
            // Padding carries nothing, and no well-behaved client pads so many frames.
            DATA if self.skip >= WORTH && flags & PADDED == 0 => 0,
            RST_STREAM if self.gives_up() => 1,
            RST_STREAM => RESET,
            SETTINGS if self.skip > 0 && std::mem::replace(&mut self.settled, true) => SETTING,
            PING if flags & ACK != 0 => PONG,
            _ => 1,
        }
    }

    /// Whether a reset cancels a call that arrived completely.
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
