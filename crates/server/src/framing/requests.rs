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
