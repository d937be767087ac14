//! The request body on its way through the call layer. It is measured as it arrives: its bytes are charged to the
//! budget, its message size is limited, and it is tracked whether it is complete, or why it never will be. Must not
//! look into a message.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use wire::{Delivered, Failure, Reason};

use crate::budget::Charge;
use crate::request::Arrival;
use crate::unsent::{HeldUntilSent, Unsent};

/// The length of a message's prefix: a compression flag, and the length in four bytes.
const PREFIX: usize = 5;
/// Bytes charged at once, so that a body in many small frames costs no more than one in few.
const STEP: usize = 4 << 10;

const COMING: u8 = 0;
const WHOLE: u8 = 1;
const LEFT: u8 = 2;
const REFUSED: u8 = 3;

/// The limits for a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeLimits {
    /// Maximum bytes of a message.
    pub(crate) most: usize,
    /// How many messages there may be.
    pub(crate) messages: Messages,
}

/// How many messages a request has, and who sees to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Messages {
    /// One.
    One,
    /// Many small ones, charged in advance, to a service that answers while they come.
    Small,
    /// Many, charged as they arrive until their reader releases them. Their reader hears why there are no more, and limits
    /// the time; the response comes when it has ended.
    Released,
}

impl Messages {
    /// Whether the response begins before the request is complete.
    pub(crate) fn are_answered_early(self) -> bool {
        self == Messages::Small
    }
}

/// The state of a request that is being read.
#[derive(Debug)]
pub struct RequestState {
    charge: Charge,
    arrival: Arrival,
    /// Bytes that have arrived, and bytes that are charged.
    came: AtomicUsize,
    paid: AtomicUsize,
    /// Frames with data.
    frames: AtomicU32,
    state: AtomicU8,
    /// Whether its response has begun.
    answered: AtomicU8,
    refusal: OnceLock<Failure>,
    unsent: Unsent,
    /// A value kept until the response is written.
    kept: OnceLock<HeldUntilSent>,
    /// Wakes the reader of a stream.
    reader: AtomicWaker,
}

/// Why a request is never complete.
pub(crate) enum BodyError {
    /// Its client disconnected or reset it.
    Left,
    /// It was refused.
    Refused(Failure),
}

impl RequestState {
    /// A request whose charge covers `paid` bytes of its body.
    pub(crate) fn new(charge: Charge, arrival: Arrival, paid: usize) -> RequestState {
        RequestState {
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

    /// Its charge to the budget.
    pub fn charge(&self) -> &Charge {
        &self.charge
    }

    /// When it arrived, and its caller's deadline.
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// The part of its response that is not written yet.
    pub(crate) fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// Keeps a value until its response is written.
    pub(crate) fn keep(&self, kept: HeldUntilSent) {
        self.kept.get_or_init(|| kept);
    }

    /// Whether nobody waits for more of it: it is complete, or its reader is gone.
    pub(crate) fn whole(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WHOLE
    }

    /// A counter that grows with its progress.
    pub(crate) fn progress(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Why it will never be complete, if known.
    pub(crate) fn broken(&self) -> Option<BodyError> {
        match self.state.load(Ordering::Relaxed) {
            LEFT => Some(BodyError::Left),
            REFUSED => self.refusal.get().cloned().map(BodyError::Refused),
            _ => None,
        }
    }

    /// Why it will never be complete, for the reader of many messages, which then gets no more.
    pub fn refusal(&self) -> Option<Failure> {
        self.broken().map(|broken| match broken {
            BodyError::Left => incomplete("the client left"),
            BodyError::Refused(failure) => failure,
        })
    }

    /// Takes back so many bytes of a request with many messages: they are held no more, and are not charged again when as
    /// many arrive.
    pub fn release(&self, bytes: usize) {
        self.came.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Refuses it.
    pub(crate) fn refuse(&self, failure: Failure) {
        self.refusal.get_or_init(|| failure);
        self.state.store(REFUSED, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Records that its response begins: from then on the reader itself gets its end, as nobody else observes it.
    pub(crate) fn answered(&self) {
        self.answered.store(1, Ordering::Relaxed);
    }

    fn end(&self, state: u8) {
        // The first end counts.
        let _ = self.state.compare_exchange(COMING, state, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Charges the bytes of a single message. A stream's bytes are charged in advance: they do not stay.
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
pub struct MeasuredBody<B> {
    body: B,
    intake: Arc<RequestState>,
    measure: SizeLimits,
    prefix: [u8; PREFIX],
    /// The part of the prefix that has arrived.
    begun: usize,
    /// Bytes of the message that have not arrived.
    left: usize,
}

impl<B> MeasuredBody<B> {
    /// The body of a request that is being read.
    pub(crate) fn new(body: B, intake: Arc<RequestState>, measure: SizeLimits) -> MeasuredBody<B> {
        MeasuredBody { body, intake, measure, prefix: [0; PREFIX], begun: 0, left: 0 }
    }

    /// The request that it belongs to.
    pub fn intake(&self) -> &Arc<RequestState> {
        &self.intake
    }

    fn take(&mut self, mut data: &[u8]) -> Result<(), Failure> {
        self.intake.frames.fetch_add(u32::from(!data.is_empty()), Ordering::Relaxed);
        if self.measure.messages != Messages::Small {
            self.intake.pay(data.len())?;
        }
        while !data.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                (self.left, data) = (self.left - taken, &data[taken..]);
                continue;
            }
            if self.begun == PREFIX {
                if self.measure.messages == Messages::One {
                    return Err(malformed("a unary call has exactly one message"));
                }
                self.begun = 0;
            }
            let taken = (PREFIX - self.begun).min(data.len());
            self.prefix[self.begun..self.begun + taken].copy_from_slice(&data[..taken]);
            (self.begun, data) = (self.begun + taken, &data[taken..]);
            if self.begun == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                // Who reads many messages refuses one behind those that came with it.
                if self.left > self.measure.most && self.measure.messages != Messages::Released {
                    let failure = Failure::too_large("the message", self.left, self.measure.most);
                    return Err(failure.delivered(Delivered::No));
                }
            }
        }
        Ok(())
    }

    /// Records that the request is complete.
    fn complete(&self) {
        let has_message = self.begun == PREFIX && self.left == 0;
        if has_message && self.intake.state.load(Ordering::Relaxed) == COMING {
            self.intake.charge.whole();
        }
        self.intake.end(WHOLE);
    }

    /// The reader's result for a request that will never be complete: nothing, so that only the call layer reports the
    /// reason. Once the response has begun, only the response body can report it, and the reader must end.
    fn stop<T>(&self) -> Poll<Option<T>> {
        if self.intake.answered.load(Ordering::Relaxed) == 0 { Poll::Pending } else { Poll::Ready(None) }
    }
}

/// The failure for an invalid request.
fn malformed(why: &str) -> Failure {
    Failure::new(Reason::InvalidRequest, format!("the message cannot be read: {why}"))
        .delivered(Delivered::No)
}

/// The failure for a request that was aborted.
pub fn incomplete(why: &str) -> Failure {
    Failure::new(Reason::RequestIncomplete, format!("the request was aborted: {why}"))
        .delivered(Delivered::No)
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for MeasuredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.measure.messages == Messages::Small {
            self.intake.reader.register(context.waker());
        }
        if self.intake.state.load(Ordering::Relaxed) > WHOLE {
            return self.stop();
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            // The stream was reset, or its connection ended.
            Some(Err(_)) => {
                self.intake.end(LEFT);
                return self.stop();
            }
            None => {
                // The library reports the same for a stream that was reset without an error (RST_STREAM with NO_ERROR):
                // https://github.com/hyperium/hyper/issues/2872
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
            // A request's trailers are ignored.
            self.intake.end(WHOLE);
            return Poll::Ready(None);
        };
        if let Err(failure) = self.take(data) {
            // Of a stream, the messages before this one are valid.
            let came = match self.measure.messages {
                Messages::One => self.intake.came.load(Ordering::Relaxed),
                Messages::Small | Messages::Released => data.len(),
            };
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

impl<B> Drop for MeasuredBody<B> {
    fn drop(&mut self) {
        self.intake.end(WHOLE);
    }
}
