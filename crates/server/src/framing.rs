//! gRPC framing of routed calls. This module: one message each way. The library's framing is made for streams of messages, and takes
//! a tenth of the cost of a routed call. Must not depend on what a message is.

pub(super) mod requests;
pub(super) mod stream;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use admission::append;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame};
use tonic::Status;
use tonic::body::Body;
use tower::BoxError;
use wire::{Delivered, Failure, Reason, ResponseMetadata};

use super::status;

/// The prefix of a message: a compression flag, and the length in four bytes.
const PREFIX: usize = 5;
/// Maximum length that fits there, in bytes.
const MOST: usize = u32::MAX as usize;

/// Reads the message of a request, of at most `most` bytes.
pub(super) async fn read<B>(body: B, most: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body = pin!(body);
    let mut read = Read::default();
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await else { break };
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        if let Ok(data) = frame.into_data() {
            read.take(data, most).map_err(status)?;
        }
    }
    read.end().map_err(status)
}

/// The bytes read so far: not copied if they arrive in one piece, as they mostly do.
#[derive(Default)]
struct Read {
    first: Bytes,
    joined: BytesMut,
}

impl Read {
    fn so_far(&self) -> &[u8] {
        if self.joined.is_empty() { &self.first } else { &self.joined }
    }

    fn take(&mut self, data: Bytes, most: usize) -> Result<(), Failure> {
        if self.so_far().is_empty() {
            self.first = data;
        } else {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(&self.first);
            }
            self.joined.extend_from_slice(&data);
        }
        match self.length() {
            Some(length) if length > most => {
                Err(Failure::too_large("the message", length, most).delivered(Delivered::No))
            }
            Some(length) if self.so_far().len() > PREFIX + length => {
                Err(unfit("a unary call has exactly one message"))
            }
            _ => Ok(()),
        }
    }

    /// The length in the prefix.
    fn length(&self) -> Option<usize> {
        let (_, rest) = self.so_far().split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk()?);
        usize::try_from(length).ok()
    }

    fn end(self) -> Result<Bytes, Failure> {
        let length = self.length();
        let whole = if self.joined.is_empty() { self.first } else { self.joined.freeze() };
        match length {
            _ if whole.first().is_some_and(|compressed| *compressed != 0) => {
                Err(unfit("compressed messages are not supported"))
            }
            Some(length) if whole.len() == PREFIX + length => Ok(whole.slice(PREFIX..)),
            Some(_) | None => Err(unfit("it is truncated")),
        }
    }
}

fn unfit(why: &str) -> Failure {
    Failure::new(Reason::InvalidRequest, format!("the message cannot be read: {why}"))
        .delivered(Delivered::No)
}

/// A response with one message, and the metadata of its reply.
pub(super) fn answer(
    message: &[u8],
    mut metadata: Option<Box<ResponseMetadata>>,
) -> Result<Response<Body>, Failure> {
    let too_large = || Failure::too_large("the reply", message.len(), MOST).delivered(Delivered::Yes);
    let length = u32::try_from(message.len()).map_err(|_| too_large())?;
    let mut data = BytesMut::with_capacity(PREFIX + message.len());
    data.put_u8(0);
    data.put_u32(length);
    data.put_slice(message);
    let initial = metadata.as_mut().map(|metadata| std::mem::take(&mut metadata.initial));
    let mut response = response(Body::new(Answer::Message(data.freeze(), metadata)));
    if let Some(initial) = initial {
        append(response.headers_mut(), &initial);
    }
    Ok(response)
}

/// A response whose status follows behind its body.
fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// What is left to send of a response.
enum Answer {
    Message(Bytes, Option<Box<ResponseMetadata>>),
    Ok(Option<Box<ResponseMetadata>>),
    Nothing,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, rest) = match std::mem::replace(&mut *self, Answer::Nothing) {
            Answer::Message(data, metadata) => (Frame::data(data), Answer::Ok(metadata)),
            Answer::Ok(metadata) => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                if let Some(metadata) = metadata {
                    append(&mut trailers, &metadata.trailers);
                }
                (Frame::trailers(trailers), Answer::Nothing)
            }
            Answer::Nothing => return Poll::Ready(None),
        };
        *self = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;

    struct Chunks(VecDeque<Vec<u8>>);

    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk.into()))))
        }
    }

    async fn read_in(size: usize, whole: &[u8]) -> Result<Bytes, Code> {
        let chunks = whole.chunks(size).map(<[u8]>::to_vec).collect();
        read(Chunks(chunks), 300).await.map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_message_is_read_whole_however_it_is_cut() {
        let message = [7; 300];
        let whole = [&[0, 0, 0, 1, 44][..], &message].concat();
        for size in 1..=whole.len() {
            assert_eq!(read_in(size, &whole).await.unwrap(), &message[..], "{size}");
            assert_eq!(read_in(size, &[0; PREFIX]).await.unwrap(), Bytes::new());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_however_it_is_cut() {
        let cases: [(&[u8], Code); 6] = [
            (b"", Code::InvalidArgument),
            (&[0, 0, 0, 0], Code::InvalidArgument),
            (&[0, 0, 0, 0, 2, 7], Code::InvalidArgument),
            (&[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0], Code::InvalidArgument),
            (&[1, 0, 0, 0, 1, 7], Code::InvalidArgument),
            (&[0, 0, 0, 1, 45], Code::ResourceExhausted),
        ];
        for (whole, code) in cases {
            for size in 1..=whole.len().max(1) {
                assert_eq!(read_in(size, whole).await, Err(code), "{whole:?} in {size}");
            }
        }
    }
}
