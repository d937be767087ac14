//! The call layer in front of every service of a gRPC port. It refuses requests that are not calls, have invalid
//! headers, or exceed the memory budget, before it reads them; it measures the rest, which must be complete in time.
//! Each service's limits are chosen here by path, so that a new service is safe by default. Must not look into a
//! message.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use foldhash::fast::RandomState;
use hyper::service::Service;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use wire::metadata::FIELD;
use wire::{Delivered, Failure, Reason};

pub use crate::body::incomplete;
use crate::body::{BodyError, MeasuredBody, Messages, RequestState, SizeLimits};
use crate::budget::{ConnectionBudget, StreamKind, StreamPermit};
use crate::library_errors::explained;
use crate::open::Open;
use crate::request::{Arrival, HEALTH, Told, refused};
use crate::response::{HeldUntilSent, ResponseBody};
use crate::status;
use crate::unfinished::{total, unfinished};

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.";
/// Maximum bytes of a message: of health, of reflection, and of any service without a configured size.
const HEALTH_MOST: usize = 1 << 10;
const REFLECTION_MOST: usize = 8 << 10;
const MOST: usize = 4 << 10;
/// Overhead of a call in bytes, besides what its client sends: its tasks, its stream, and the first bytes of its body.
const CALL: usize = 6 << 10;
const BODY: usize = 1 << 10;
/// The part of it for a small response, held until the response is written.
const ANSWER: usize = 4 << 10;
/// Overhead of a header in a map, in bytes.
const ENTRY: usize = 64;

/// The admission rules of a port.
///
/// They stand between hyper's connection and a service, here that of [`health`](crate::HealthService):
///
/// ```no_run
/// use admission::budget::Size;
/// use admission::layer::request_size;
/// use admission::{Admission, HealthRegistry, HealthService, MemoryBudget};
/// use hyper_util::rt::{TokioExecutor, TokioIo};
/// use hyper_util::service::TowerToHyperService;
/// use tokio_util::sync::CancellationToken;
/// use tonic_health::pb::health_server::HealthServer;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (headers, message) = (8 << 10, 1 << 20);
/// let budget = MemoryBudget::new(Size {
///     all: 64 << 20,
///     request: request_size(headers, message),
///     answers: 64 << 20,
///     answer: 4 << 20,
///     streams: [100, 10],
///     connection_streams: [4, 1],
/// });
/// // Messages of paths that are not listed have at most 4 KiB.
/// let sizes = [("/bookstore.v1.Books/PutBook".to_owned(), message)];
/// let admission = Admission::new(headers, sizes, CancellationToken::new());
/// let health = HealthRegistry::new(&["bookstore.v1.Books"]);
/// let service = TowerToHyperService::new(HealthServer::new(HealthService::new(health)));
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:50051").await?;
/// loop {
///     let (stream, _) = listener.accept().await?;
///     // Each connection has its own share of the budget.
///     let admitted = admission.before(service.clone(), budget.counting(Default::default()));
///     let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
///     tokio::spawn(http.serve_connection(TokioIo::new(stream), admitted));
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Admission {
    rules: Arc<Rules>,
    checked: bool,
}

#[derive(Clone)]
struct Rules {
    headers: usize,
    sizes: HashMap<String, SizeLimits, RandomState>,
    /// Cancelled when incomplete requests must end.
    hurry: CancellationToken,
}

impl Admission {
    /// Admits calls with at most so many bytes of headers, and messages of these sizes by path. Incomplete requests end
    /// when `hurry` is cancelled.
    pub fn new(
        headers: usize,
        sizes: impl IntoIterator<Item = (String, usize)>,
        hurry: CancellationToken,
    ) -> Admission {
        let one = |(path, most)| (path, SizeLimits { most, messages: Messages::One });
        let rules = Rules { headers, sizes: sizes.into_iter().map(one).collect(), hurry };
        Admission { rules: Arc::new(rules), checked: false }
    }

    /// The same, where clients of these paths send many messages of at most `most` bytes. Their handler limits the time:
    /// it releases what it holds no more, and hears from [`RequestState::refusal`] why there are no more.
    #[must_use]
    pub fn reading_streams(self, paths: impl IntoIterator<Item = String>, most: usize) -> Admission {
        let Rules { headers, mut sizes, hurry } = Arc::unwrap_or_clone(self.rules);
        let many = SizeLimits { most, messages: Messages::Released };
        sizes.extend(paths.into_iter().map(|path| (path, many)));
        Admission { rules: Arc::new(Rules { headers, sizes, hurry }), ..self }
    }

    /// The same, if an outer layer has already refused requests that are not calls ([`refused`]).
    #[must_use]
    pub fn of_calls(self) -> Admission {
        Admission { checked: true, ..self }
    }

    /// Wraps a service on this connection.
    pub fn before<S>(&self, service: S, connection: Arc<ConnectionBudget>) -> Admitting<S> {
        Admitting { service, admission: self.clone(), connection }
    }

    fn measure(&self, path: &str) -> SizeLimits {
        match self.rules.sizes.get(path) {
            Some(limits) => *limits,
            None if path.starts_with(HEALTH) => SizeLimits { most: HEALTH_MOST, messages: Messages::One },
            None if path.starts_with(REFLECTION) => {
                SizeLimits { most: REFLECTION_MOST, messages: Messages::Small }
            }
            None => SizeLimits { most: MOST, messages: Messages::One },
        }
    }

    fn admit<Q>(
        &self,
        request: &http::Request<Q>,
        connection: &Arc<ConnectionBudget>,
    ) -> Result<Admitted, http::Response<Body>> {
        let (headers, path) = (request.headers(), request.uri().path());
        if !self.checked
            && let Some(response) = refused(request.method(), headers)
        {
            return Err(response);
        }
        let refuse = |failure| status(failure).into_http();
        let told = Told::of(headers);
        let listed = told.listed + pseudo(request.uri());
        if listed > self.rules.headers {
            return Err(refuse(too_many(listed, self.rules.headers)));
        }
        if let Some(response) = told.compressed() {
            return Err(response);
        }
        let arrival = Arrival { asked: told.timeout().map_err(refuse)?, ..Arrival::now() };
        let stream = stream(path).filter(|stream| connection.serves(*stream));
        let place = stream.map(|stream| connection.open(stream)).transpose().map_err(refuse)?;
        let measure = self.measure(path);
        // A stream holds one message at a time, in its received and its joined form.
        let held = if measure.messages.are_answered_early() { 2 * measure.most } else { 0 };
        let charge = connection.begin(CALL + listed + headers.len() * ENTRY + held).map_err(refuse)?;
        let intake = Arc::new(RequestState::new(charge, arrival, BODY));
        if measure.messages == Messages::Released {
            intake.answered();
        }
        Ok(Admitted { intake, measure, place })
    }
}

/// The maximum bytes that a request may hold, for these limits of headers and message.
pub const fn request_size(headers: usize, message: usize) -> usize {
    // A header has at least `FIELD` bytes by HTTP/2's count. Charges come in steps.
    CALL + headers + headers / FIELD * ENTRY + message + 2 * MOST
}

/// An admitted call.
struct Admitted {
    intake: Arc<RequestState>,
    measure: SizeLimits,
    place: Option<StreamPermit>,
}

/// The size of a call's pseudo-headers as HTTP/2 counts it.
fn pseudo(uri: &http::Uri) -> usize {
    uri.path().len() + uri.authority().map_or(0, |authority| authority.as_str().len()) + 4 * FIELD
}

fn too_many(listed: usize, most: usize) -> Failure {
    let message =
        format!("the metadata has {listed} bytes, over the limit of {most}: send fewer or shorter headers");
    Failure::new(Reason::PayloadTooLarge, message)
        .with("size", listed.to_string())
        .with("limit", most.to_string())
        .delivered(Delivered::No)
}

fn stream(path: &str) -> Option<StreamKind> {
    match path {
        WATCH => Some(StreamKind::Watch),
        _ if path.starts_with(REFLECTION) => Some(StreamKind::Reflection),
        _ => None,
    }
}

/// A service with admission control for the calls on one connection.
#[derive(Clone)]
pub struct Admitting<S> {
    service: S,
    admission: Admission,
    connection: Arc<ConnectionBudget>,
}

impl<S, Q> Service<http::Request<Q>> for Admitting<S>
where
    S: Service<http::Request<MeasuredBody<Q>>, Response = http::Response<Body>>,
    S::Future: Unpin,
{
    type Response = http::Response<ResponseBody>;
    type Error = S::Error;
    type Future = Responding<S::Future>;

    fn call(&self, request: http::Request<Q>) -> Self::Future {
        let Admitted { intake, measure, place } = match self.admission.admit(&request, &self.connection) {
            Ok(admitted) => admitted,
            Err(response) => return Responding::Refused(Some(Box::new(response.map(ResponseBody::plain)))),
        };
        let rules = self.admission.rules.clone();
        let total = total(request.uri().path(), measure.most);
        let answer = self.service.call(request.map(|body| MeasuredBody::new(body, intake.clone(), measure)));
        Responding::Call(ResponseFuture {
            answer: Some(answer),
            intake,
            messages: measure.messages,
            place,
            rules,
            total,
            unfinished: None,
        })
    }
}

/// A request until its response begins.
pub enum Responding<F> {
    /// It was refused, with this response.
    Refused(Option<Box<http::Response<ResponseBody>>>),
    /// It was admitted.
    Call(ResponseFuture<F>),
}

/// An admitted call until its response begins.
pub struct ResponseFuture<F> {
    /// The service's future, until it has responded.
    answer: Option<F>,
    intake: Arc<RequestState>,
    messages: Messages,
    place: Option<StreamPermit>,
    rules: Arc<Rules>,
    total: Duration,
    /// Resolves to the reason why the request is not complete, if it was not complete at once.
    unfinished: Option<Pin<Box<dyn Future<Output = Failure> + Send>>>,
}

impl<F, E> Future for Responding<F>
where
    F: Future<Output = Result<http::Response<Body>, E>> + Unpin,
{
    type Output = Result<http::Response<ResponseBody>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Responding::Refused(response) => {
                response.take().map_or(Poll::Pending, |told| Poll::Ready(Ok(*told)))
            }
            Responding::Call(call) => {
                let response = ready!(call.poll_response(context))?;
                // Release what the future holds first.
                call.answer = None;
                Poll::Ready(Ok(call.begin(response, context)))
            }
        }
    }
}

impl<F, E> ResponseFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, E>> + Unpin,
{
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<http::Response<Body>, E>> {
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        let answer = Pin::new(answer).poll(context);
        if self.messages == Messages::Released {
            return answer.map(|answer| answer.map(explained));
        }
        if let Some(broken) = self.intake.broken() {
            // Whatever its reader answered.
            return Poll::Ready(Ok(response(broken)));
        }
        if let Poll::Ready(answer) = answer {
            return Poll::Ready(answer.map(explained));
        }
        if self.intake.whole() {
            self.unfinished = None;
            return Poll::Pending;
        }
        let unfinished = self.unfinished.get_or_insert_with(|| {
            Box::pin(unfinished(self.intake.clone(), self.rules.hurry.clone(), self.total))
        });
        unfinished.as_mut().poll(context).map(|failure| Ok(status(failure).into_http()))
    }

    fn begin(
        &mut self,
        mut response: http::Response<Body>,
        context: &mut Context<'_>,
    ) -> http::Response<ResponseBody> {
        let intake = self.intake.clone();
        intake.answered();
        if let Some(kept) = response.extensions_mut().remove::<HeldUntilSent>() {
            intake.keep(kept);
        }
        if let Some(place) = self.place.take() {
            let asking = self.messages.are_answered_early().then(|| intake.clone());
            response = response.map(|body| Body::new(Open::new(body, place, asking)));
        }
        if !self.messages.are_answered_early() {
            intake.charge().shrink(CALL);
        }
        let covered = (!self.messages.are_answered_early()).then_some(ANSWER);
        response.map(|body| ResponseBody::begin(body, intake, covered, context))
    }
}

fn response(broken: BodyError) -> http::Response<Body> {
    match broken {
        BodyError::Left => {
            Status::new(Code::Cancelled, "the client left before its request was complete").into_http()
        }
        BodyError::Refused(failure) => status(failure).into_http(),
    }
}

#[cfg(test)]
mod tests;
