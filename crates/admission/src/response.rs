//! A call's response on its way to the client: its bytes are charged until they are written, and a response that the
//! client has not read for long is detected. Must not look into a message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::body::RequestState;
pub use crate::unsent::HeldUntilSent;

/// Bytes passed on at once, as many as a frame has: the progress of a response is measured in such steps.
const PIECE: usize = 16 << 10;
/// Interval between two checks for room for more of a stream.
const ROOM: Duration = Duration::from_millis(100);

impl RequestState {
    /// Records that `bytes` of the response wait to be written.
    fn owe(&self, bytes: usize, charged: bool) {
        if charged {
            self.charge().owe(bytes);
        }
        self.unsent().more(self.charge().periods(), bytes);
    }

    /// Records that `bytes` were written, or never will be.
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

/// A part of a response that the library holds until it is written.
struct Piece {
    data: Bytes,
    call: Arc<RequestState>,
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

/// A response body.
pub struct ResponseBody {
    body: Body,
    /// The call that it answers; `None` if the response has no message.
    call: Option<Arc<RequestState>>,
    /// Bytes of its first frame that are covered by the call's own charge.
    covered: usize,
    /// A frame polled in advance, if it has no data.
    ahead: Option<Box<Result<Frame<Bytes>, Status>>>,
    /// The part of the current frame that was not passed on yet.
    rest: Bytes,
    charged: bool,
    /// Whether it is a stream: messages arrive one by one, and the call's charge has been released.
    stream: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// A response created before there was a call.
    pub fn plain(body: Body) -> ResponseBody {
        let (call, ahead, rest) = (None, None, Bytes::new());
        ResponseBody { body, call, covered: 0, ahead, rest, charged: false, stream: false, pause: None }
    }

    /// The response to a call whose charge covers `covered` bytes of it; `None` if the client goes on sending. Polls
    /// the first frame, so that its size is known whether the client reads it or not.
    pub(crate) fn begin(
        body: Body,
        call: Arc<RequestState>,
        covered: Option<usize>,
        context: &mut Context<'_>,
    ) -> ResponseBody {
        let mut answer = ResponseBody::plain(body);
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

    /// Stores a frame as the current one; a frame without data is returned.
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

    /// The next piece of the current frame.
    fn piece(&mut self) -> Option<Bytes> {
        let call = self.call.as_ref().filter(|_| !self.rest.is_empty())?;
        let data = self.rest.split_to(self.rest.len().min(PIECE));
        Some(Bytes::from_owner(Piece { data, call: call.clone(), charged: self.charged }))
    }

    /// Marks it as a stream: it has no message at the moment.
    fn goes_on(&mut self) {
        if !std::mem::replace(&mut self.stream, true)
            && let Some(call) = &self.call
        {
            call.charge().shrink(1);
        }
    }

    /// Waits while unread responses fill its share.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.stream && self.call.as_ref().is_some_and(|call| call.charge().crowded()) {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(ROOM)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl http_body::Body for ResponseBody {
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

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.written(self.rest.len(), self.charged);
        }
    }
}

#[cfg(test)]
mod tests;
