//! Counts a connection's requests in flight: from their head to the last byte of their response. Must not read a
//! request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;

use crate::activity::Activity;

/// A service that counts its requests in flight.
#[derive(Clone)]
pub(crate) struct InFlight<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> InFlight<S> {
    /// Counts one connection's requests to this service.
    pub(crate) fn new(service: S, activity: Arc<Activity>) -> InFlight<S> {
        InFlight { service, activity }
    }
}

/// One request in flight, until dropped.
struct One(Arc<Activity>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<S, Q, B> Service<http::Request<Q>> for InFlight<S>
where
    S: Service<http::Request<Q>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<InFlightBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, request: http::Request<Q>) -> Self::Future {
        self.activity.begin();
        let (one, response) = (One(self.activity.clone()), self.service.call(request));
        Box::pin(
            async move { Ok(response.await?.map(|body| InFlightBody { body: Box::pin(body), _one: one })) },
        )
    }
}

/// A response body that keeps its request counted until its end.
pub(crate) struct InFlightBody<B> {
    body: Pin<Box<B>>,
    _one: One,
}

impl<B: Body> Body for InFlightBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Poll::Ready(ready!(self.body.as_mut().poll_frame(context)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
