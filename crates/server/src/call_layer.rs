//! The call layer around every rpc: counts a call as in flight from its headers to the last byte of its response, for
//! the drain and the metrics, extracts the headers that are forwarded, and reports the call to its connection's frame
//! limiter. Must not parse messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use admission::ResponseBody;
use admission::request::refused;
use http::HeaderValue;
use hyper::service::Service;
use listener::Activity;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::baggage::Baggage;
use super::body::CountedBody;
use super::call_metrics::{CallRecord, CatalogCalls};
use super::drain::Drain;
use super::headers::GRPC_STATUS;

/// A drain does not wait for reflection: its streams stay open as long as a client wants, and nothing is lost with
/// them.
const REFLECTION: &str = "/grpc.reflection.";

/// UNIMPLEMENTED and UNAUTHENTICATED, in trailers-only responses.
const REFUSED: [&[u8]; 2] = [b"12", b"16"];

/// The call layer of a service.
pub(super) struct CallLayer {
    pub(super) draining: Arc<Drain>,
    pub(super) metrics: CatalogCalls,
    pub(super) baggage: Baggage,
}

/// A service with its layer, for a call on one connection.
pub(super) struct LayeredService<'a, S> {
    pub(super) service: S,
    pub(super) layer: &'a CallLayer,
    pub(super) activity: &'a Arc<Activity>,
}

impl<S, Q> Service<http::Request<Q>> for LayeredService<'_, S>
where
    S: Service<http::Request<Q>, Response = http::Response<ResponseBody>>,
    S::Future: Unpin,
{
    type Response = http::Response<CountedBody>;
    type Error = S::Error;
    type Future = LayeredFuture<S::Future>;

    fn call(&self, mut request: http::Request<Q>) -> Self::Future {
        let CallLayer { draining, metrics, baggage } = self.layer;
        self.activity.called();
        if let Some(response) = refused(request.method(), request.headers()) {
            metrics.strange(response.status());
            self.activity.refused();
            let response = response.map(|body| CountedBody {
                body: ResponseBody::plain(body),
                entry: None,
                _token: None,
            });
            return LayeredFuture::Refused(Some(Box::new(response)));
        }
        let place = (!request.uri().path().starts_with(REFLECTION)).then(|| draining.call());
        let entry = metrics.open(request.uri().path(), request.headers(), Instant::now());
        if entry.span().traced() {
            request.extensions_mut().insert(entry.span().clone());
        }
        if let Some(kept) = baggage.of(request.headers()) {
            request.extensions_mut().insert(kept);
        }
        let answer = self.service.call(request);
        let (draining, activity) = (draining.clone(), self.activity.clone());
        LayeredFuture::Call { answer, entry: Some(entry), place, draining, activity }
    }
}

/// A request until its response begins.
pub(super) enum LayeredFuture<F> {
    /// It is not a gRPC call.
    Refused(Option<Box<http::Response<CountedBody>>>),
    /// A call.
    Call {
        answer: F,
        entry: Option<CallRecord>,
        place: Option<TaskTrackerToken>,
        draining: Arc<Drain>,
        activity: Arc<Activity>,
    },
}

impl<F, E> Future for LayeredFuture<F>
where
    F: Future<Output = Result<http::Response<ResponseBody>, E>> + Unpin,
{
    type Output = Result<http::Response<CountedBody>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, entry, place, draining, activity) = match &mut *self {
            LayeredFuture::Refused(response) => {
                return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)));
            }
            LayeredFuture::Call { answer, entry, place, draining, activity } => {
                (answer, entry, place, draining, activity)
            }
        };
        let response = ready!(Pin::new(answer).poll(context))?;
        let code = response.headers().get(&GRPC_STATUS);
        // It was refused early: the caller is not authenticated, or the rpc does not exist.
        match code.is_some_and(|code: &HeaderValue| REFUSED.contains(&code.as_bytes())) {
            true => activity.refused(),
            false => activity.good(),
        }
        let mut entry = entry.take();
        if let Some(entry) = &mut entry {
            entry.about(response.extensions().get());
        }
        if let (Some(entry), Some(code)) = (&mut entry, code) {
            entry.over(code, response.headers(), response.extensions().get::<tonic::Status>());
        }
        // Count the response before the call is released, so that a drain waits without a gap.
        let token = place.as_ref().map(|_| draining.answer());
        *place = None;
        Poll::Ready(Ok(response.map(|body| CountedBody { body, entry, _token: token })))
    }
}
