//! Responses that stay open as long as the client wants: their number is limited, and one whose client sends nothing
//! for long is ended. Must not depend on their contents.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use wire::Failure;

use crate::body::{BodyError, RequestState, incomplete};
use crate::budget::StreamPermit;
use crate::status;

/// Time limits of such a stream: without a message from the client, and in total.
const IDLE: Duration = Duration::from_secs(60);
const TOTAL: Duration = Duration::from_secs(600);

/// The body of such a response.
pub(crate) struct Open {
    body: Body,
    asking: Option<Asking>,
    over: bool,
    _place: StreamPermit,
}

/// The state of a client that goes on sending.
struct Asking {
    intake: Arc<RequestState>,
    begun: Instant,
    seen: u32,
    look: Pin<Box<Sleep>>,
}

impl Open {
    /// A response with its permit; with an intake if its client goes on sending.
    pub(crate) fn new(body: Body, place: StreamPermit, intake: Option<Arc<RequestState>>) -> Open {
        let asking = intake.map(|intake| Asking {
            begun: Instant::now(),
            seen: intake.progress(),
            look: Box::pin(sleep(IDLE)),
            intake,
        });
        Open { body, asking, over: false, _place: place }
    }
}

impl Asking {
    /// The failure, if the response is to end now.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Option<Failure> {
        match self.intake.broken() {
            Some(BodyError::Refused(failure)) => return Some(failure),
            Some(BodyError::Left) | None => {}
        }
        while self.look.as_mut().poll(context).is_ready() {
            let why = if self.begun.elapsed() >= TOTAL {
                format!("it was open for {} s", TOTAL.as_secs())
            } else if self.intake.progress() == self.seen {
                format!("no message arrived for {} s", IDLE.as_secs())
            } else {
                self.seen = self.intake.progress();
                self.look.as_mut().reset(Instant::now() + IDLE);
                continue;
            };
            // The reader gets the failure as well.
            self.intake.refuse(incomplete(&why));
            return Some(incomplete(&why));
        }
        None
    }
}

impl http_body::Body for Open {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(failure) = self.asking.as_mut().and_then(|asking| asking.poll_end(context)) {
            self.over = true;
            let mut trailers = HeaderMap::new();
            let told = status(failure).add_header(&mut trailers);
            return Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.asking.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;
    use crate::body::{MeasuredBody, Messages, SizeLimits};
    use crate::budget::{MemoryBudget, Size, StreamKind};
    use crate::request::Arrival;

    /// A stream whose client sends a byte at this interval, and the reader of its messages.
    fn open(
        every: Duration,
    ) -> (Open, MeasuredBody<impl http_body::Body<Data = Bytes, Error = Status> + Unpin>) {
        let size = Size {
            all: 1 << 20,
            request: 1 << 10,
            answers: 4_000,
            answer: 1_000,
            streams: [1, 1],
            connection_streams: [1, 1],
        };
        let connection = MemoryBudget::new(size).connection();
        let place = connection.open(StreamKind::Reflection).unwrap();
        let intake = Arc::new(RequestState::new(connection.begin(1).unwrap(), Arrival::now(), 0));
        let asks = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((Ok(Frame::data(Bytes::from_static(&[0]))), ()))
        });
        let asks = StreamBody::new(Box::pin(asks));
        let reader =
            MeasuredBody::new(asks, intake.clone(), SizeLimits { most: 9, messages: Messages::Small });
        intake.answered();
        let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>());
        (Open::new(Body::new(never), place, Some(intake)), reader)
    }

    /// When it ends, and its message. Its reader ends as well.
    async fn end(every: u64) -> (Duration, String) {
        let begun = Instant::now();
        let (mut open, mut reader) = open(Duration::from_secs(every));
        let reader = tokio::spawn(async move { while reader.frame().await.is_some() {} });
        let trailers = open.frame().await.unwrap().unwrap().into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), Code::Cancelled);
        assert!(open.frame().now_or_never().unwrap().is_none());
        reader.await.unwrap();
        (begun.elapsed(), status.message().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_asks_nothing_ends_and_one_that_asks_on_ends_later() {
        let (time, why) = end(9_999).await;
        assert!(time <= 2 * IDLE && why.contains("no message arrived for 60 s"), "{time:?} {why}");
        let (time, why) = end(20).await;
        assert!((TOTAL..=TOTAL + IDLE).contains(&time) && why.contains("open for 600 s"), "{time:?} {why}");
    }
}
