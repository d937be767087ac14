//! What is round every call: it is counted up to the last byte of its body, one that does not come whole ends in time, and errors of the
//! library get a reason. Must never look into a message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use contract::{Delivered, Failure};
use http::HeaderMap;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::{Layer, Service};

use super::accept::{Arrived, last_moment};
use super::account::Books;
use super::baggage::Baggage;
use super::body::{Counted, Heard, Whole};
use super::explain::explained;
use super::parting::Parting;
use super::request::{compressed, refused, timeout};
use super::status;
use crate::call::{Call, Limit};

/// Its streams are open for as long as a client likes, and hold nothing that anybody could lose.
const REFLECTION: &str = "/grpc.reflection.";

/// Puts calls of a service in an envelope, and counts them for the end.
#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) parting: Arc<Parting>,
    pub(super) books: Books,
    pub(super) baggage: Baggage,
}

impl<S> Layer<S> for Envelope {
    type Service = Enveloped<S>;

    fn layer(&self, service: S) -> Enveloped<S> {
        Enveloped { service, envelope: self.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Enveloped<S> {
    service: S,
    envelope: Envelope,
}

impl<S, Q> Service<http::Request<Q>> for Enveloped<S>
where
    S: Service<http::Request<Heard<Q>>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Counted>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Q>) -> Self::Future {
        if let Some(response) = refused(request.method(), request.headers()) {
            self.envelope.books.strange(response.status());
            let response = response.map(|body| Counted { body, entry: None, _token: None });
            return Box::pin(async { Ok(response) });
        }
        let Envelope { parting, books, baggage } = &self.envelope;
        let parting = parting.clone();
        let place = (!request.uri().path().starts_with(REFLECTION)).then(|| parting.call());
        let arrived = Arrived(Instant::now());
        let mut entry = books.open(request.uri().path(), request.headers(), arrived.0);
        if entry.span().traced() {
            request.extensions_mut().insert(entry.span().clone());
        }
        if let Some(kept) = baggage.of(request.headers()) {
            request.extensions_mut().insert(kept);
        }
        if let Some(response) = faulty(request.headers()) {
            entry.read(response.headers());
            let response = response.map(|body| Counted { body, entry: Some(entry), _token: None });
            return Box::pin(async { Ok(response) });
        }
        let last = last_moment(request.headers(), arrived);
        if matches!(last.limit, Limit::Caller) {
            request.extensions_mut().insert(arrived);
        }
        let whole = Whole::default();
        let heard = |body| Heard { body, whole: whole.clone() };
        let answer = self.service.call(request.map(heard));
        Box::pin(async move {
            let response = tokio::select! {
                biased;
                answer = answer => explained(answer?),
                failure = unfinished(&parting, &whole, &last) => status(failure).into_http(),
            };
            entry.read(response.headers());
            let token = place.as_ref().map(|_| parting.answer());
            Ok(response.map(|body| Counted { body, entry: Some(entry), _token: token }))
        })
    }
}

/// The response to a call whose headers say what cannot be.
fn faulty(headers: &HeaderMap) -> Option<http::Response<Body>> {
    compressed(headers).or_else(|| timeout(headers).err().map(|failure| status(failure).into_http()))
}

/// Ends a request that does not come whole in time. One that has is left to its handler, which keeps its own time.
async fn unfinished(parting: &Parting, whole: &Whole, last: &Call) -> Failure {
    if !whole.get() {
        let failure = tokio::select! {
            failure = parting.hurried() => failure,
            () = sleep_until(last.deadline) => last.late(Delivered::No),
        };
        if !whole.get() {
            return failure;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use std::time::Duration;

    use telemetry::Tracer;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;
    use tonic::{Code, Status};

    use super::*;

    /// Never answers, and keeps the request.
    struct Silence;

    impl<B: Send + 'static> Service<http::Request<B>> for Silence {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<B>) -> Self::Future {
            Box::pin(async move {
                let _request = request;
                std::future::pending().await
            })
        }
    }

    fn envelope(tracker: TaskTracker) -> Envelope {
        let (parting, books) = (Arc::new(Parting::new(tracker)), Books::new(Tracer::default()));
        Envelope { parting, books, baggage: Baggage::default() }
    }

    fn post(path: &str) -> http::request::Builder {
        http::Request::post(path).header("content-type", "application/grpc")
    }

    fn code(response: &http::Response<Counted>) -> Code {
        Status::from_header_map(response.headers()).unwrap().code()
    }

    #[tokio::test]
    async fn a_deadline_that_passed_is_said_to_have_passed_however_short_it_was() {
        let tracker = TaskTracker::new();
        let mut service = envelope(tracker.clone()).layer(Silence);
        for timeout in ["1n", "1u", "1m", "3m", "20m"] {
            let request = post("/").header("grpc-timeout", timeout).body(()).unwrap();
            let answer = service.call(request);
            assert_eq!(tracker.len(), 1);
            assert_eq!(code(&answer.await.unwrap()), Code::DeadlineExceeded, "{timeout}");
        }
        assert!(tracker.is_empty());
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_whole_is_turned_away_at_the_end_and_reflection_is_not_counted() {
        let (tracker, drain) = (TaskTracker::new(), CancellationToken::new());
        let envelope = envelope(tracker.clone());
        let parting = envelope.parting.clone();
        let mut service = envelope.layer(Silence);
        let path = format!("{REFLECTION}v1.ServerReflection/ServerReflectionInfo");
        let _reflection = service.call(post(&path).body(()).unwrap());
        assert!(tracker.is_empty());
        let half = service.call(post("/").body(()).unwrap());
        drain.cancel();
        let over = parting.over(&drain);
        let (answer, ()) =
            tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(half, over) }).await.unwrap();
        assert_eq!(code(&answer.unwrap()), Code::Unavailable);
    }
}
