//! The body of a request on its way through the call layer. It is measured as it comes: its bytes are charged to the
//! budget, its message is held to a size, and it is known whether it has come whole, and why if it never will. Must never
//! look into a message.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use contract::{Delivered, Failure, Reason};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};

use crate::answer::{Keep, Unsent};
use crate::budget::Charge;
use crate::request::Arrival;

/// Before a message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;
/// Bytes that are charged at once, so that a body in many small frames costs no more than one in few.
const STEP: usize = 4 << 10;

const COMING: u8 = 0;
const WHOLE: u8 = 1;
const LEFT: u8 = 2;
const REFUSED: u8 = 3;

/// How a request is read.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Bytes of a message.
    pub most: usize,
    /// There may be many messages.
    pub streams: bool,
}

/// A request that is being read.
#[derive(Debug)]
pub struct Intake {
    charge: Charge,
    arrival: Arrival,
    /// Bytes that came, and bytes that are paid for.
    came: AtomicUsize,
    paid: AtomicUsize,
    /// Frames with something in them.
    frames: AtomicU32,
    state: AtomicU8,
    /// Its answer has begun.
    answered: AtomicU8,
    refusal: OnceLock<Failure>,
    unsent: Unsent,
    /// What else is held until the answer is written.
    kept: OnceLock<Keep>,
    /// Who reads a stream.
    reader: AtomicWaker,
}

/// Why a request does not come whole.
pub enum Broken {
    /// Its client went away.
    Left,
    /// It is not taken.
    Refused(Failure),
}

impl Intake {
    /// A request whose charge pays for so many bytes of its body.
    pub fn new(charge: Charge, arrival: Arrival, paid: usize) -> Intake {
        Intake {
            charge,
            arrival,
            came: AtomicUsize::new(0),
            paid: AtomicUsize::new(paid),
            frames: AtomicU32::new(0),
            state: AtomicU8::new(COMING),
            answered: AtomicU8::new(0),
            refusal: OnceLock::new(),
            unsent: Unsent::default(),
            kept: OnceLock::new(),
            reader: AtomicWaker::new(),
        }
    }

    /// What it holds.
    pub fn charge(&self) -> &Charge {
        &self.charge
    }

    /// When it came.
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// What of its answer is not written.
    pub(crate) fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// Holds this until its answer is written.
    pub(crate) fn keep(&self, kept: Keep) {
        self.kept.get_or_init(|| kept);
    }

    /// Whether nobody waits for more of it: its end has come, or its reader is gone.
    pub fn whole(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WHOLE
    }

    /// Grows as it comes.
    pub fn progress(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Why it will never come whole, if that is known.
    pub fn broken(&self) -> Option<Broken> {
        match self.state.load(Ordering::Relaxed) {
            LEFT => Some(Broken::Left),
            REFUSED => self.refusal.get().cloned().map(Broken::Refused),
            _ => None,
        }
    }

    /// It is not taken.
    pub fn refuse(&self, failure: Failure) {
        self.refusal.get_or_init(|| failure);
        self.state.store(REFUSED, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Its answer begins: whoever reads on is told its end, as nobody else watches any more.
    pub fn answered(&self) {
        self.answered.store(1, Ordering::Relaxed);
    }

    fn end(&self, state: u8) {
        // The first end is why.
        let _ = self.state.compare_exchange(COMING, state, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Charges what came of a single message. A stream's bytes are paid for in advance: they do not stay.
    fn pay(&self, more: usize) -> Result<(), Failure> {
        let came = self.came.fetch_add(more, Ordering::Relaxed) + more;
        let missing = came.saturating_sub(self.paid.load(Ordering::Relaxed));
        if missing == 0 {
            return Ok(());
        }
        let step = missing.next_multiple_of(STEP);
        self.charge.more(step)?;
        self.paid.fetch_add(step, Ordering::Relaxed);
        Ok(())
    }
}

/// A request's body.
pub struct Measured<B> {
    body: B,
    intake: Arc<Intake>,
    measure: Measure,
    prefix: [u8; PREFIX],
    /// Of the prefix, what has come.
    begun: usize,
    /// Of the message, what has not.
    left: usize,
}

impl<B> Measured<B> {
    /// The body of a request that is being read.
    pub fn new(body: B, intake: Arc<Intake>, measure: Measure) -> Measured<B> {
        Measured { body, intake, measure, prefix: [0; PREFIX], begun: 0, left: 0 }
    }

    /// The request that it is of.
    pub fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    fn take(&mut self, mut data: &[u8]) -> Result<(), Failure> {
        self.intake.frames.fetch_add(u32::from(!data.is_empty()), Ordering::Relaxed);
        if !self.measure.streams {
            self.intake.pay(data.len())?;
        }
        while !data.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                (self.left, data) = (self.left - taken, &data[taken..]);
                continue;
            }
            if self.begun == PREFIX {
                if !self.measure.streams {
                    return Err(unfit("a call has one message"));
                }
                self.begun = 0;
            }
            let taken = (PREFIX - self.begun).min(data.len());
            self.prefix[self.begun..self.begun + taken].copy_from_slice(&data[..taken]);
            (self.begun, data) = (self.begun + taken, &data[taken..]);
            if self.begun == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if self.left > self.measure.most {
                    let failure = Failure::too_large("the message", self.left, self.measure.most);
                    return Err(failure.delivered(Delivered::No));
                }
            }
        }
        Ok(())
    }

    /// All of it has come.
    fn complete(&self) {
        let has_message = self.begun == PREFIX && self.left == 0;
        if has_message && self.intake.state.load(Ordering::Relaxed) == COMING {
            self.intake.charge.whole();
        }
        self.intake.end(WHOLE);
    }

    /// What a reader gets of a request that will never come whole: nothing, so that only the call layer says why. Once
    /// the answer has begun there is nobody to say it but the answer's body, and the reader has to end.
    fn stop<T>(&self) -> Poll<Option<T>> {
        if self.intake.answered.load(Ordering::Relaxed) == 0 { Poll::Pending } else { Poll::Ready(None) }
    }
}

/// A request that is no request.
pub fn unfit(why: &str) -> Failure {
    Failure::new(Reason::InvalidRequest, format!("the message cannot be read: {why}"))
        .delivered(Delivered::No)
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Measured<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.measure.streams {
            self.intake.reader.register(context.waker());
        }
        if self.intake.state.load(Ordering::Relaxed) > WHOLE {
            return self.stop();
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            // It was reset, or its connection ended.
            Some(Err(_)) => {
                self.intake.end(LEFT);
                return self.stop();
            }
            None => {
                // The library says the same of a stream that was reset without an error.
                let ended = self.body.is_end_stream();
                if ended {
                    self.complete();
                    return Poll::Ready(None);
                }
                self.intake.end(LEFT);
                return self.stop();
            }
        };
        let Some(data) = frame.data_ref() else {
            // Nobody asks for a request's trailers.
            self.intake.end(WHOLE);
            return Poll::Ready(None);
        };
        if let Err(failure) = self.take(data) {
            // Of a stream, what came before was good.
            let came =
                if self.measure.streams { data.len() } else { self.intake.came.load(Ordering::Relaxed) };
            self.intake.charge.wasted(came);
            self.intake.refuse(failure);
            return self.stop();
        }
        if self.body.is_end_stream() {
            self.complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Measured<B> {
    fn drop(&mut self) {
        self.intake.end(WHOLE);
    }
}
