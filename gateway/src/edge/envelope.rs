//! What is round every call: it is counted up to the last byte of its body, it ends in its time, and errors of the
//! library get a reason. Must never look into a message.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use contract::Delivered;
use http_body::{Frame, SizeHint};
use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::accept::last_moment;
use super::explain::explained;
use super::status;

/// Puts calls of a service in an envelope, and counts them in a tracker.
#[derive(Clone)]
pub(super) struct Envelope(pub(super) TaskTracker);

impl<S> Layer<S> for Envelope {
    type Service = Enveloped<S>;

    fn layer(&self, service: S) -> Enveloped<S> {
        Enveloped { service, tracker: self.0.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Enveloped<S> {
    service: S,
    tracker: TaskTracker,
}

impl<S, Q> Service<http::Request<Q>> for Enveloped<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Counted>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let token = self.tracker.token();
        let last = last_moment(request.headers());
        let answer = self.service.call(request);
        Box::pin(async move {
            // Handlers keep their own, shorter time. This one is for those that wait for the rest of a request.
            let response = match timeout_at(last.deadline, answer).await {
                Ok(answer) => explained(answer?),
                Err(_) => status(last.late(Delivered::Unknown)).into_http(),
            };
            Ok(response.map(|body| Counted { body, _token: token }))
        })
    }
}

/// A body that is counted until it is dropped.
pub(super) struct Counted {
    body: Body,
    _token: TaskTrackerToken,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;

    /// Never answers.
    struct Silence;

    impl Service<http::Request<()>> for Silence {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<http::Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<()>) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test]
    async fn a_deadline_that_passed_is_said_to_have_passed_however_short_it_was() {
        let tracker = TaskTracker::new();
        let mut service = Envelope(tracker.clone()).layer(Silence);
        for timeout in ["1n", "1u", "1m", "3m", "20m"] {
            let request = http::Request::builder().header("grpc-timeout", timeout).body(()).unwrap();
            let response = service.call(request).await.unwrap();
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{timeout}");
            assert_eq!(tracker.len(), 1);
        }
        assert!(tracker.is_empty());
    }
}
