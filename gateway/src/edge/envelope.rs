//! What is round every call: it is counted from its headers to the last byte of its answer, for the end and in the books,
//! and what travels on of its headers is put beside it. Must never look into a message.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use admission::budget::Connection;
use admission::request::{GRPC_TIMEOUT, refused};
use admission::{Admitting, Answer};
use futures_util::future::Either;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::{Layer, Service};

use super::accept::Arrived;
use super::account::{Books, Entry};
use super::baggage::Baggage;
use super::body::Counted;
use super::parting::Parting;

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

impl<S: Clone> Enveloped<Admitting<S>> {
    /// The same for a connection, with a part of the budget of its own.
    pub(super) fn connection(&self, connection: Arc<Connection>) -> Self {
        Enveloped { service: self.service.connection(connection), envelope: self.envelope.clone() }
    }
}

impl<S, Q> Service<http::Request<Q>> for Enveloped<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Answer>>,
    S::Future: Unpin,
{
    type Response = http::Response<Counted>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Self::Response, S::Error>>, Noted<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Q>) -> Self::Future {
        let Envelope { parting, books, baggage } = &self.envelope;
        if let Some(response) = refused(request.method(), request.headers()) {
            books.strange(response.status());
            let response =
                response.map(|body| Counted { body: Answer::plain(body), entry: None, _token: None });
            return Either::Left(ready(Ok(response)));
        }
        let place = (!request.uri().path().starts_with(REFLECTION)).then(|| parting.call());
        let arrived = Arrived(Instant::now());
        let entry = books.open(request.uri().path(), request.headers(), arrived.0);
        if entry.span().traced() {
            request.extensions_mut().insert(entry.span().clone());
        }
        if let Some(kept) = baggage.of(request.headers()) {
            request.extensions_mut().insert(kept);
        }
        if request.headers().contains_key(&GRPC_TIMEOUT) {
            request.extensions_mut().insert(arrived);
        }
        let answer = self.service.call(request);
        Either::Right(Noted { answer, entry: Some(entry), place, parting: parting.clone() })
    }
}

/// A call until its answer begins.
pub(super) struct Noted<F> {
    answer: F,
    entry: Option<Entry>,
    place: Option<TaskTrackerToken>,
    parting: Arc<Parting>,
}

impl<F, E> Future for Noted<F>
where
    F: Future<Output = Result<http::Response<Answer>, E>> + Unpin,
{
    type Output = Result<http::Response<Counted>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.answer).poll(context))?;
        let mut entry = self.entry.take();
        entry.iter_mut().for_each(|entry| entry.read(response.headers()));
        // The answer is waited for before the call no longer is.
        let token = self.place.as_ref().map(|_| self.parting.answer());
        self.place = None;
        Poll::Ready(Ok(response.map(|body| Counted { body, entry, _token: token })))
    }
}
