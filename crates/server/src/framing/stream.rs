//! gRPC framing of a stream of messages: many of them, and how it ended. Must not depend on what a message is.

use std::pin::Pin;
use std::task::{Context, Poll};

use admission::append;
use bridge::Messages;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use wire::{Delivered, Failure};

use super::{MOST, PREFIX, response};
use crate::status;

/// How many bytes of messages that are ready are sent together.
const TOGETHER: usize = 64 << 10;
/// Bytes from which on room is made for all that are sent together.
const SOME: usize = 4 << 10;

/// A response with these messages, each of at most `most` bytes. It ends early when `early` resolves.
pub(crate) fn answer(
    messages: Messages,
    most: usize,
    early: impl Future<Output = Failure> + Send + 'static,
) -> Response<Body> {
    let most = most.min(MOST);
    let headers = messages.headers().to_vec();
    let body = Streaming { messages: Some(messages), most, early: Box::pin(early), end: None };
    let mut response = response(Body::new(body));
    append(response.headers_mut(), &headers);
    response
}

/// What is left to send of a response.
struct Streaming {
    /// None once it has ended.
    messages: Option<Messages>,
    most: usize,
    early: Pin<Box<dyn Future<Output = Failure> + Send>>,
    /// The trailers, behind what has been framed.
    end: Option<HeaderMap>,
}

impl Streaming {
    /// Frames what is ready. Pending only if there is nothing.
    fn frame(&mut self, context: &mut Context<'_>) -> Poll<BytesMut> {
        let mut data = BytesMut::new();
        while let Some(messages) = &mut self.messages {
            if let Poll::Ready(failure) = self.early.as_mut().poll(context) {
                self.finish(Err(failure));
                break;
            }
            match messages.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) if message.len() <= self.most => push(&mut data, &message),
                Poll::Ready(Some(Ok(message))) => {
                    let failure = Failure::too_large("the reply", message.len(), self.most);
                    self.finish(Err(failure.delivered(Delivered::Yes)));
                }
                Poll::Ready(Some(Err(failure))) => self.finish(Err(failure)),
                Poll::Ready(None) => self.finish(Ok(())),
                Poll::Pending if data.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
            if data.len() >= TOGETHER {
                break;
            }
        }
        Poll::Ready(data)
    }

    fn finish(&mut self, end: Result<(), Failure>) {
        // Its subscriptions end now, not when the client has read the rest.
        let messages = self.messages.take();
        self.end = Some(match end {
            Ok(()) => {
                let mut end = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
                append(&mut end, messages.iter().filter_map(Messages::trailers).flatten());
                end
            }
            Err(failure) => {
                let (mut head, _) = status(failure).into_http::<Body>().into_parts();
                head.headers.remove(CONTENT_TYPE);
                head.headers
            }
        });
    }
}

fn push(data: &mut BytesMut, message: &[u8]) {
    // Where some are ready, so are more: room for all of them at once.
    let room = if data.len() < SOME { 0 } else { TOGETHER.saturating_sub(data.len()) };
    data.reserve(room.max(PREFIX + message.len()));
    data.put_u8(0);
    // It is no longer than `MOST`.
    data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    data.put_slice(message);
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.messages.is_some() {
            let data = std::task::ready!(self.frame(context));
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data.freeze()))));
            }
        }
        Poll::Ready(self.end.take().map(|end| Ok(Frame::trailers(end))))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none() && self.end.is_none()
    }
}
