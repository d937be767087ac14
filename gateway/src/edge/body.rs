//! The body of an answer on its way through the call layer: it is followed to its end. Must never look into a message.

use std::pin::Pin;
use std::task::{Context, Poll};

use admission::Answer;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::account::Entry;

/// An answer's body that is counted until it is dropped, and whose end is entered in the books.
pub(super) struct Counted {
    pub(super) body: Answer,
    /// None of a request that is no call.
    pub(super) entry: Option<Entry>,
    pub(super) _token: Option<TaskTrackerToken>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.entry.iter_mut().for_each(|entry| entry.read(trailers));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
