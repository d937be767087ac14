//! The answer of a call on its way to its client: what it holds is charged until it is written, and it is known when
//! nothing of it has been taken for long. Must never look into a message.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::body::Intake;

/// Bytes that are handed on at once, as many as a frame has: what has been taken of an answer is seen in such steps.
const PIECE: usize = 16 << 10;
/// Between two looks whether there is room for more of a stream.
const ROOM: Duration = Duration::from_millis(100);
/// Of these, each lasts as long as whoever turns them says.
const PERIODS: usize = 8;

/// What an answer holds besides its bytes, until the last of them is written.
#[derive(Clone)]
pub struct Keep(#[allow(dead_code, reason = "it is held")] Arc<dyn Any + Send + Sync>);

impl Keep {
    /// Keeps this.
    pub fn new(kept: impl Any + Send + Sync) -> Keep {
        Keep(Arc::new(kept))
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keep")
    }
}

/// How long the answers of a connection have waited to be taken, in periods. They are written by one thread.
#[derive(Debug, Default)]
pub(crate) struct Periods {
    now: AtomicUsize,
    /// Answers by the period in which something was taken of them last.
    waiting: [AtomicUsize; PERIODS],
}

impl Periods {
    fn enter(&self) -> usize {
        let now = self.now.load(Ordering::Relaxed);
        self.waiting[now % PERIODS].fetch_add(1, Ordering::Relaxed);
        now
    }

    fn leave(&self, period: usize) {
        self.waiting[period % PERIODS].fetch_sub(1, Ordering::Relaxed);
    }

    /// A period is over: whether nothing has been taken of an answer in all those before it that are known.
    pub(crate) fn turn(&self) -> bool {
        let next = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting[(next + 1) % PERIODS].load(Ordering::Relaxed) > 0
    }
}

/// Of an answer, what is not written.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    bytes: AtomicUsize,
    period: AtomicUsize,
}

impl Unsent {
    fn more(&self, periods: &Periods, bytes: usize) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 && bytes > 0 {
            self.period.store(periods.enter(), Ordering::Relaxed);
        }
    }

    fn less(&self, periods: &Periods, bytes: usize) {
        let left = self.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        periods.leave(self.period.load(Ordering::Relaxed));
        if left > 0 {
            self.period.store(periods.enter(), Ordering::Relaxed);
        }
    }
}

impl Intake {
    /// So many bytes of the answer wait to be written.
    fn owe(&self, bytes: usize, charged: bool) {
        if charged {
            self.charge().owe(bytes);
        }
        self.unsent().more(self.charge().periods(), bytes);
    }

    /// So many have been, or never will be.
    fn written(&self, bytes: usize, charged: bool) {
        if bytes == 0 {
            return;
        }
        if charged {
            self.charge().paid(bytes);
        }
        self.unsent().less(self.charge().periods(), bytes);
    }
}

/// A part of an answer that lies with the library until it is written.
struct Piece {
    data: Bytes,
    call: Arc<Intake>,
    charged: bool,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.call.written(self.data.len(), self.charged);
    }
}

/// An answer's body.
pub struct Answer {
    body: Body,
    /// The call that it answers; none of what has no message.
    call: Option<Arc<Intake>>,
    /// Bytes of its first frame that the call's own charge pays for.
    covered: usize,
    /// What was asked of the body in advance, where that was no message.
    ahead: Option<Box<Result<Frame<Bytes>, Status>>>,
    /// Of the frame in hand, what was not handed on.
    rest: Bytes,
    charged: bool,
    /// It is a stream: its messages come one by one, and its call's charge has been given back.
    stream: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    /// A response that was made before there was a call.
    pub fn plain(body: Body) -> Answer {
        let (call, ahead, rest) = (None, None, Bytes::new());
        Answer { body, call, covered: 0, ahead, rest, charged: false, stream: false, pause: None }
    }

    /// The answer of a call whose charge pays for so many bytes of it; of one that goes on asking, for none. Asks for its
    /// first frame: from then on it is known what it holds, whether its client takes it or not.
    pub(crate) fn begin(
        body: Body,
        call: Arc<Intake>,
        covered: Option<usize>,
        context: &mut Context<'_>,
    ) -> Answer {
        let mut answer = Answer::plain(body);
        if answer.body.is_end_stream() {
            return answer;
        }
        (answer.call, answer.stream) = (Some(call), covered.is_none());
        answer.covered = covered.unwrap_or(0);
        match Pin::new(&mut answer.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => answer.ahead = answer.hold(frame).map(Box::new),
            Poll::Ready(None) => answer.body = Body::empty(),
            Poll::Pending => answer.goes_on(),
        }
        answer
    }

    /// Takes a frame in hand; one without data is given back.
    fn hold(&mut self, frame: Result<Frame<Bytes>, Status>) -> Option<Result<Frame<Bytes>, Status>> {
        let Some(call) = &self.call else { return Some(frame) };
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) if !data.is_empty() => data,
            Ok(Ok(data)) => return Some(Ok(Frame::data(data))),
            Ok(Err(frame)) => return Some(Ok(frame)),
            Err(status) => return Some(Err(status)),
        };
        self.charged = data.len() > std::mem::take(&mut self.covered);
        call.owe(data.len(), self.charged);
        self.rest = data;
        None
    }

    /// What is handed on next of the frame in hand.
    fn piece(&mut self) -> Option<Bytes> {
        let call = self.call.as_ref().filter(|_| !self.rest.is_empty())?;
        let data = self.rest.split_to(self.rest.len().min(PIECE));
        Some(Bytes::from_owner(Piece { data, call: call.clone(), charged: self.charged }))
    }

    /// It has no message at the moment, and is a stream.
    fn goes_on(&mut self) {
        if !std::mem::replace(&mut self.stream, true)
            && let Some(call) = &self.call
        {
            call.charge().shrink(1);
        }
    }

    /// Waits while what nobody takes of others fills its share.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.stream && self.call.as_ref().is_some_and(|call| call.charge().crowded()) {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(ROOM)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(frame) = self.ahead.take() {
            return Poll::Ready(Some(*frame));
        }
        ready!(self.poll_room(context));
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => frame,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                self.goes_on();
                return Poll::Pending;
            }
        };
        let frame = self.hold(frame).or_else(|| self.piece().map(|piece| Ok(Frame::data(piece))));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.ahead.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.call.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.written(self.rest.len(), self.charged);
        }
    }
}

#[cfg(test)]
mod tests;
