//! gRPC framing of a request with many messages, which are read one by one. Must not depend on what a message is.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use admission::{MeasuredBody, RequestState};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use tower::BoxError;
use wire::{Delivered, Failure};

use super::{PREFIX, unfit};

/// The messages of a request. Nothing is read ahead but the rest of a frame.
pub(crate) struct Requests<B> {
    body: MeasuredBody<B>,
    buffer: BytesMut,
    most: usize,
}

/// The bytes of a message, as they are charged to the memory budget until this is dropped.
pub(crate) struct Held {
    intake: Arc<RequestState>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.intake.release(self.bytes);
    }
}

impl<B> Requests<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    /// The messages of this body, each of at most `most` bytes.
    pub(crate) fn new(body: MeasuredBody<B>, most: usize) -> Requests<B> {
        Requests { body, buffer: BytesMut::new(), most }
    }

    /// The next message; none: there are no more. Cancel-safe. The caller limits the time.
    ///
    /// # Errors
    ///
    /// The client left, or sent what is no message, or one that is too large.
    pub(crate) async fn next(&mut self) -> Result<Option<(Bytes, Held)>, Failure> {
        loop {
            if let Some(message) = self.take()? {
                let held = Held { intake: self.body.intake().clone(), bytes: PREFIX + message.len() };
                return Ok(Some((message, held)));
            }
            let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => return self.end(),
            }
        }
    }

    /// A whole message of what was read.
    fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(unfit("compressed messages are not supported"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.most {
            return Err(Failure::too_large("the message", length, self.most).delivered(Delivered::No));
        }
        if self.buffer.len() - PREFIX < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn end(&self) -> Result<Option<(Bytes, Held)>, Failure> {
        match self.body.intake().refusal() {
            Some(failure) => Err(failure),
            None if self.buffer.is_empty() => Ok(None),
            None => Err(unfit("it is truncated")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use admission::budget::{MemoryBudget, Size};
    use admission::{Admission, ResponseBody};
    use http_body::Frame;
    use http_body_util::BodyExt as _;
    use hyper::service::{Service as _, service_fn};
    use tokio_util::sync::CancellationToken;
    use tonic::body::Body;

    use super::*;

    const PATH: &str = "/a.B/C";

    /// The body of a request that arrives whole, in pieces.
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// Reads a request of these bytes in pieces of a size; messages have at most 300 bytes, and are released when they are
    /// read. Returns their number and how it ended.
    async fn read(size: usize, whole: &[u8]) -> (usize, Result<(), String>) {
        let (told, end) = tokio::sync::oneshot::channel();
        let told = Arc::new(parking_lot::Mutex::new(Some(told)));
        let service = service_fn(move |request: http::Request<MeasuredBody<_>>| {
            let told = told.clone();
            Box::pin(async move {
                let (mut count, mut requests) = (0, Requests::new(request.into_body(), 300));
                let end = loop {
                    match requests.next().await {
                        Ok(Some(_)) => count += 1,
                        Ok(None) => break Ok(()),
                        Err(failure) => break Err(failure.reason.into_owned()),
                    }
                };
                let _ = told.lock().take().unwrap().send((count, end));
                Ok::<_, Infallible>(http::Response::new(Body::empty()))
            })
        });
        let body = Pieces(whole.chunks(size).map(Bytes::copy_from_slice).collect());
        let size = Size {
            all: 64 << 10,
            request: 8 << 10,
            answers: 1 << 20,
            answer: 1 << 10,
            streams: [0, 0],
            connection_streams: [0, 0],
        };
        let admission = Admission::new(4 << 10, [], CancellationToken::new()).of_calls();
        let admission = admission.reading_streams([PATH.to_owned()], 300);
        let admitted = admission.before(service, MemoryBudget::new(size).counting(Default::default()));
        let request = http::Request::post(PATH).body(body).unwrap();
        let response: http::Response<ResponseBody> = admitted.call(request).await.unwrap();
        let _ = response.into_body().collect().await;
        end.await.unwrap()
    }

    fn message(length: usize) -> Vec<u8> {
        [&[0][..], &u32::try_from(length).unwrap().to_be_bytes(), &vec![7; length]].concat()
    }

    #[tokio::test]
    async fn messages_are_read_one_by_one_however_they_are_cut_and_hold_no_more_than_what_is_read() {
        let whole = [message(300), message(0), message(1)].concat();
        for size in [1, 4, 5, 6, 305, 306, 400] {
            assert_eq!(read(size, &whole).await, (3, Ok(())), "{size}");
            assert_eq!(read(size, &[]).await, (0, Ok(())), "{size}");
        }
        // Together they are more than the budget.
        assert_eq!(read(1_000, &message(300).repeat(1_000)).await, (1_000, Ok(())));
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_behind_those_before_it() {
        let compressed = [&[1][..], &message(3)[1..]].concat();
        for (wrong, reason) in [
            (&message(5)[..9], "INVALID_REQUEST"),
            (&[0, 0, 0][..], "INVALID_REQUEST"),
            (&compressed, "INVALID_REQUEST"),
            (&message(301), "PAYLOAD_TOO_LARGE"),
        ] {
            let whole = [&message(2), wrong].concat();
            for size in [1, 7, 400] {
                assert_eq!(read(size, &whole).await, (1, Err(reason.to_owned())), "{wrong:?} in {size}");
            }
        }
    }
}
