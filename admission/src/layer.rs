//! The call layer that stands before every service of a gRPC port: what is no call, what its headers say wrong, and what
//! there is no room for is refused before any of it is read; what is read is measured, and has to come in time. What
//! a service takes is decided here by its path, so that one that is added is safe. Must never look into a message.

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use contract::{Delivered, Failure, Reason};
use foldhash::fast::RandomState;
use hyper::service::Service;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::answer::{Answer, Keep};
use crate::body::{Broken, Intake, Measure, Measured};
use crate::budget::{Connection, Place, Stream};
use crate::explain::explained;
use crate::open::Open;
use crate::request::{Arrival, FIELD, Told, latest, refused};
use crate::status;

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.";
/// Bytes of a message of these, and of any service that nobody gave a size.
const HEALTH_MOST: usize = 1 << 10;
const REFLECTION_MOST: usize = 8 << 10;
const MOST: usize = 4 << 10;
/// What a call takes besides what its client sends: its tasks, its stream, and the first bytes of its body.
const CALL: usize = 6 << 10;
const BODY: usize = 1 << 10;
/// Of that, what a small answer may have: it is held as long as the answer is not written.
const ANSWER: usize = 4 << 10;
/// What a header takes besides its bytes, in a map.
const ENTRY: usize = 64;
/// When to come back, to another instance.
const RETRY: Duration = Duration::from_millis(500);
/// How long a request may make no progress, and how long it may take in all.
const IDLE: Duration = Duration::from_secs(10);
const TOTAL: Duration = Duration::from_secs(60);
/// Bytes a second of a message that is so large that it takes longer.
const RATE: usize = 256 << 10;
/// The same of health: its requests have a few bytes, come from anybody, and share what those may hold who are not known.
const HEALTH_TOTAL: Duration = Duration::from_secs(2);

/// What is let in.
#[derive(Clone)]
pub struct Admission {
    rules: Arc<Rules>,
    checked: bool,
}

struct Rules {
    headers: usize,
    sizes: HashMap<&'static str, usize, RandomState>,
    /// Requests that are still being sent have had their time.
    hurry: CancellationToken,
}

impl Admission {
    /// Lets in calls with so many bytes of headers, and messages of these sizes by path. Those that are not whole when
    /// `hurry` is cancelled are ended.
    pub fn new(
        headers: usize,
        sizes: impl IntoIterator<Item = (&'static str, usize)>,
        hurry: CancellationToken,
    ) -> Admission {
        let rules = Rules { headers, sizes: sizes.into_iter().collect(), hurry };
        Admission { rules: Arc::new(rules), checked: false }
    }

    /// The same where whoever stands before it has refused what is no call ([`refused`]).
    #[must_use]
    pub fn of_calls(self) -> Admission {
        Admission { checked: true, ..self }
    }

    /// Stands before a service on this connection.
    pub fn before<S>(&self, service: S, connection: Arc<Connection>) -> Admitting<S> {
        Admitting { service, admission: self.clone(), connection }
    }

    fn measure(&self, path: &str) -> Measure {
        match self.rules.sizes.get(path) {
            Some(most) => Measure { most: *most, streams: false },
            None if path.starts_with(HEALTH) => Measure { most: HEALTH_MOST, streams: false },
            None if path.starts_with(REFLECTION) => Measure { most: REFLECTION_MOST, streams: true },
            None => Measure { most: MOST, streams: false },
        }
    }

    fn admit<Q>(
        &self,
        request: &http::Request<Q>,
        connection: &Arc<Connection>,
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
        let place = stream(path).map(|stream| connection.open(stream)).transpose().map_err(refuse)?;
        let measure = self.measure(path);
        // Of a stream, one message is held at a time, as it came and as it was joined.
        let held = if measure.streams { 2 * measure.most } else { 0 };
        let charge = connection.begin(CALL + listed + headers.len() * ENTRY + held).map_err(refuse)?;
        Ok(Admitted { intake: Arc::new(Intake::new(charge, arrival, BODY)), measure, place })
    }
}

/// The most that a request may hold, with so many bytes of headers and a message of so many.
pub const fn request_size(headers: usize, message: usize) -> usize {
    // A header has at least `FIELD` bytes by HTTP/2's count. What is charged comes in steps.
    CALL + headers + headers / FIELD * ENTRY + message + 2 * MOST
}

/// A call that is let in.
struct Admitted {
    intake: Arc<Intake>,
    measure: Measure,
    place: Option<Place>,
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

fn stream(path: &str) -> Option<Stream> {
    match path {
        WATCH => Some(Stream::Watch),
        _ if path.starts_with(REFLECTION) => Some(Stream::Reflection),
        _ => None,
    }
}

/// A service of which calls are let in that come on one connection.
#[derive(Clone)]
pub struct Admitting<S> {
    service: S,
    admission: Admission,
    connection: Arc<Connection>,
}

impl<S, Q> Service<http::Request<Q>> for Admitting<S>
where
    S: Service<http::Request<Measured<Q>>, Response = http::Response<Body>>,
    S::Future: Unpin,
{
    type Response = http::Response<Answer>;
    type Error = S::Error;
    type Future = Responding<S::Future>;

    fn call(&self, request: http::Request<Q>) -> Self::Future {
        let Admitted { intake, measure, place } = match self.admission.admit(&request, &self.connection) {
            Ok(admitted) => admitted,
            Err(response) => return Responding::Refused(Some(Box::new(response.map(Answer::plain)))),
        };
        let rules = self.admission.rules.clone();
        let total = total(request.uri().path(), measure);
        let answer = self.service.call(request.map(|body| Measured::new(body, intake.clone(), measure)));
        Responding::Call(Call {
            answer: Some(answer),
            intake,
            streams: measure.streams,
            place,
            rules,
            total,
            unfinished: None,
        })
    }
}

/// A request until its answer begins.
pub enum Responding<F> {
    /// It is not let in, and told why.
    Refused(Option<Box<http::Response<Answer>>>),
    /// It is.
    Call(Call<F>),
}

/// A call that was let in, until its answer begins.
pub struct Call<F> {
    /// What answers it, until it has.
    answer: Option<F>,
    intake: Arc<Intake>,
    streams: bool,
    place: Option<Place>,
    rules: Arc<Rules>,
    total: Duration,
    /// Ends with why it does not come whole, where it did not come so at once.
    unfinished: Option<Pin<Box<dyn Future<Output = Failure> + Send>>>,
}

impl<F, E> Future for Responding<F>
where
    F: Future<Output = Result<http::Response<Body>, E>> + Unpin,
{
    type Output = Result<http::Response<Answer>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Responding::Refused(response) => {
                response.take().map_or(Poll::Pending, |told| Poll::Ready(Ok(*told)))
            }
            Responding::Call(call) => {
                let response = ready!(call.poll_response(context))?;
                // What it holds is given back first.
                call.answer = None;
                Poll::Ready(Ok(call.begin(response, context)))
            }
        }
    }
}

impl<F, E> Call<F>
where
    F: Future<Output = Result<http::Response<Body>, E>> + Unpin,
{
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<http::Response<Body>, E>> {
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        let answer = Pin::new(answer).poll(context);
        if let Some(broken) = self.intake.broken() {
            // Whatever its reader made of it.
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
    ) -> http::Response<Answer> {
        let intake = self.intake.clone();
        intake.answered();
        if let Some(kept) = response.extensions_mut().remove::<Keep>() {
            intake.keep(kept);
        }
        if let Some(place) = self.place.take() {
            let asking = self.streams.then(|| intake.clone());
            response = response.map(|body| Body::new(Open::new(body, place, asking)));
        }
        if !self.streams {
            intake.charge().shrink(CALL);
        }
        let covered = (!self.streams).then_some(ANSWER);
        response.map(|body| Answer::begin(body, intake, covered, context))
    }
}

fn response(broken: Broken) -> http::Response<Body> {
    match broken {
        Broken::Left => {
            Status::new(Code::Cancelled, "the client left before its request was whole").into_http()
        }
        Broken::Refused(failure) => status(failure).into_http(),
    }
}

/// Ends a request that does not come whole in time. One that has is left to its handler, which keeps its own time.
async fn unfinished(intake: Arc<Intake>, hurry: CancellationToken, total: Duration) -> Failure {
    let failure = tokio::select! {
        () = hurry.cancelled() => draining(),
        failure = late(&intake, total) => failure,
    };
    if intake.whole() {
        return pending().await;
    }
    failure
}

/// How long a request may take in all.
fn total(path: &str, measure: Measure) -> Duration {
    if path.starts_with(HEALTH) {
        return HEALTH_TOTAL;
    }
    TOTAL.max(Duration::from_secs((measure.most / RATE) as u64))
}

async fn late(intake: &Intake, total: Duration) -> Failure {
    let Arrival { at, asked } = intake.arrival();
    let (deadline, end) = (asked.map(|asked| at + latest(asked)), at + total);
    loop {
        let (seen, idle) = (intake.progress(), Instant::now() + IDLE);
        let next = idle.min(end);
        sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        if intake.whole() {
            return pending().await;
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Failure::new(Reason::Deadline, "the caller's deadline passed").delivered(Delivered::No);
        }
        if now >= end {
            return incomplete(&format!("it did not come whole within {} s", total.as_secs()));
        }
        if intake.progress() == seen {
            return incomplete(&format!("nothing more of it came for {} s", IDLE.as_secs()));
        }
    }
}

/// What a request is told that did not come whole before the end.
fn draining() -> Failure {
    Failure::new(Reason::Draining, "the process ends, and the rest of the request did not come")
        .delivered(Delivered::No)
        .retry_after(RETRY)
}

/// A request that was given up.
pub fn incomplete(why: &str) -> Failure {
    Failure::new(Reason::RequestIncomplete, format!("the request was given up: {why}"))
        .delivered(Delivered::No)
}

#[cfg(test)]
mod tests;
