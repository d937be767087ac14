//! What is round every call: it is counted from its headers to the last byte of its answer, for the end and in the books,
//! what travels on of its headers is put beside it, and its connection is told what it was worth. Must never look into a
//! message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use admission::Answer;
use admission::request::refused;
use http::HeaderValue;
use hyper::service::Service;
use listener::Activity;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::account::{Books, Entry};
use super::baggage::Baggage;
use super::body::Counted;
use super::name::GRPC_STATUS;
use super::parting::Parting;

/// Its streams are open for as long as a client likes, and hold nothing that anybody could lose.
const REFLECTION: &str = "/grpc.reflection.";

/// UNIMPLEMENTED and UNAUTHENTICATED, in a response that has nothing else.
const REFUSED: [&[u8]; 2] = [b"12", b"16"];

/// Puts calls of a service in an envelope, and counts them for the end.
#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) parting: Arc<Parting>,
    pub(super) books: Books,
    pub(super) baggage: Baggage,
}

impl Envelope {
    /// Puts the calls of a service on one connection in it.
    pub(super) fn around<S>(&self, service: S, activity: Arc<Activity>) -> Enveloped<S> {
        Enveloped { service, envelope: self.clone(), activity }
    }
}

pub(super) struct Enveloped<S> {
    service: S,
    envelope: Envelope,
    activity: Arc<Activity>,
}

impl<S, Q> Service<http::Request<Q>> for Enveloped<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Answer>>,
    S::Future: Unpin,
{
    type Response = http::Response<Counted>;
    type Error = S::Error;
    type Future = Noted<S::Future>;

    fn call(&self, mut request: http::Request<Q>) -> Self::Future {
        let Envelope { parting, books, baggage } = &self.envelope;
        self.activity.called();
        if let Some(response) = refused(request.method(), request.headers()) {
            books.strange(response.status());
            self.activity.refused();
            let response =
                response.map(|body| Counted { body: Answer::plain(body), entry: None, _token: None });
            return Noted::Refused(Some(Box::new(response)));
        }
        let place = (!request.uri().path().starts_with(REFLECTION)).then(|| parting.call());
        let entry = books.open(request.uri().path(), request.headers(), Instant::now());
        if entry.span().traced() {
            request.extensions_mut().insert(entry.span().clone());
        }
        if let Some(kept) = baggage.of(request.headers()) {
            request.extensions_mut().insert(kept);
        }
        let answer = self.service.call(request);
        let (parting, activity) = (parting.clone(), self.activity.clone());
        Noted::Call { answer, entry: Some(entry), place, parting, activity }
    }
}

/// A request until its answer begins.
pub(super) enum Noted<F> {
    /// It is no call.
    Refused(Option<Box<http::Response<Counted>>>),
    /// A call.
    Call {
        answer: F,
        entry: Option<Entry>,
        place: Option<TaskTrackerToken>,
        parting: Arc<Parting>,
        activity: Arc<Activity>,
    },
}

impl<F, E> Future for Noted<F>
where
    F: Future<Output = Result<http::Response<Answer>, E>> + Unpin,
{
    type Output = Result<http::Response<Counted>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, entry, place, parting, activity) = match &mut *self {
            Noted::Refused(response) => {
                return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)));
            }
            Noted::Call { answer, entry, place, parting, activity } => {
                (answer, entry, place, parting, activity)
            }
        };
        let response = ready!(Pin::new(answer).poll(context))?;
        let code = response.headers().get(&GRPC_STATUS);
        // It was refused without being looked at: nobody was known, or there is no such rpc.
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
        // The answer is waited for before the call no longer is.
        let token = place.as_ref().map(|_| parting.answer());
        *place = None;
        Poll::Ready(Ok(response.map(|body| Counted { body, entry, _token: token })))
    }
}
