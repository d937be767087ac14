//! Answers that are open for as long as a client likes: each has a place among a bounded number, and one whose client
//! asks nothing more for long is ended. Must never know what is said in one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::Failure;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::body::{Broken, Intake};
use crate::budget::Place;
use crate::layer::incomplete;
use crate::status;

/// How long a client may ask nothing, and how long it may ask in all.
const IDLE: Duration = Duration::from_secs(60);
const TOTAL: Duration = Duration::from_secs(600);

/// The body of such an answer.
pub(crate) struct Open {
    body: Body,
    asking: Option<Asking>,
    over: bool,
    _place: Place,
}

/// A client that goes on asking.
struct Asking {
    intake: Arc<Intake>,
    begun: Instant,
    seen: u32,
    look: Pin<Box<Sleep>>,
}

impl Open {
    /// An answer in its place; with an intake, one whose client goes on asking.
    pub(crate) fn new(body: Body, place: Place, intake: Option<Arc<Intake>>) -> Open {
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
    /// Why it ends, if it does now.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Option<Failure> {
        match self.intake.broken() {
            Some(Broken::Refused(failure)) => return Some(failure),
            Some(Broken::Left) | None => {}
        }
        while self.look.as_mut().poll(context).is_ready() {
            let why = if self.begun.elapsed() >= TOTAL {
                format!("it was open for {} s", TOTAL.as_secs())
            } else if self.intake.progress() == self.seen {
                format!("nothing more was asked for {} s", IDLE.as_secs())
            } else {
                self.seen = self.intake.progress();
                self.look.as_mut().reset(Instant::now() + IDLE);
                continue;
            };
            // Whoever reads it is told as well.
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
    use crate::body::{Measure, Measured};
    use crate::budget::{Budget, Size, Stream};
    use crate::request::Arrival;

    /// A stream whose client asks as often as told, each time with a byte, and the reader of what it asks.
    fn open(every: Duration) -> (Open, Measured<impl http_body::Body<Data = Bytes, Error = Status> + Unpin>) {
        let size = Size {
            all: 1 << 20,
            request: 1 << 10,
            answers: 4_000,
            answer: 1_000,
            streams: [1, 1],
            connection_streams: [1, 1],
        };
        let connection = Budget::new(size).connection();
        let place = connection.open(Stream::Reflection).unwrap();
        let intake = Arc::new(Intake::new(connection.begin(1).unwrap(), Arrival::now(), 0));
        let asks = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((Ok(Frame::data(Bytes::from_static(&[0]))), ()))
        });
        let asks = StreamBody::new(Box::pin(asks));
        let reader = Measured::new(asks, intake.clone(), Measure { most: 9, streams: true });
        intake.answered();
        let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>());
        (Open::new(Body::new(never), place, Some(intake)), reader)
    }

    /// When it ends, and what it says then. Its reader ends as well.
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
        assert!(time <= 2 * IDLE && why.contains("nothing more was asked for 60 s"), "{time:?} {why}");
        let (time, why) = end(20).await;
        assert!((TOTAL..=TOTAL + IDLE).contains(&time) && why.contains("open for 600 s"), "{time:?} {why}");
    }
}
