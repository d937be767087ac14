//! The response body in the call layer, which records the end of the call. Must not parse messages.

use std::pin::Pin;
use std::task::{Context, Poll};

use admission::ResponseBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::call_metrics::CallRecord;

/// A response body that counts as in flight until it is dropped, and that records the end of its call.
pub(super) struct CountedBody {
    pub(super) body: ResponseBody,
    /// None if the request is not a gRPC call.
    pub(super) entry: Option<CallRecord>,
    pub(super) _token: Option<TaskTrackerToken>,
}

impl http_body::Body for CountedBody {
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
