//! Counts the calls that are being answered, up to the last byte of their bodies. Must never look into one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::{Layer, Service};

/// Adds the calls of a service to a tracker.
#[derive(Clone)]
pub(super) struct Count(pub(super) TaskTracker);

impl<S> Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, service: S) -> Counted<S> {
        Counted { service, tracker: self.0.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Counted<S> {
    service: S,
    tracker: TaskTracker,
}

impl<S, Q, B> Service<http::Request<Q>> for Counted<S>
where
    S: Service<http::Request<Q>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Held<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let token = self.tracker.token();
        let answer = self.service.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Held { body, _token: token })) })
    }
}

/// A body that is counted until it is dropped.
pub(super) struct Held<B> {
    body: B,
    _token: TaskTrackerToken,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
