//! The call layer that stands before every service of a gRPC port: what is no call, what its headers say wrong, and what
//! there is no room for is refused before any of it is read; what is read is measured, and has to come in time. What
//! a service takes is decided here by its path, so that one that is added is safe. Must never look into a message.

use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use contract::{Delivered, Failure, Reason};
use foldhash::fast::RandomState;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::answer::{Answer, Keep};
use crate::body::{Broken, Intake, Measure, Measured};
use crate::budget::{Budget, Connection, Place, Stream};
use crate::explain::explained;
use crate::open::Open;
use crate::request::{compressed, latest, refused, timeout};
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
/// How HTTP/2 counts a header's size: its bytes, and so many.
const FIELD: usize = 32;
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
    connection: Arc<Connection>,
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
        budget: &Budget,
    ) -> Admission {
        let rules = Rules { headers, sizes: sizes.into_iter().collect(), hurry };
        Admission { rules: Arc::new(rules), checked: false, connection: budget.connection() }
    }

    /// The same where whoever stands before it has refused what is no call ([`refused`]).
    #[must_use]
    pub fn of_calls(self) -> Admission {
        Admission { checked: true, ..self }
    }

    fn measure(&self, path: &str) -> Measure {
        match self.rules.sizes.get(path) {
            Some(most) => Measure { most: *most, streams: false },
            None if path.starts_with(HEALTH) => Measure { most: HEALTH_MOST, streams: false },
            None if path.starts_with(REFLECTION) => Measure { most: REFLECTION_MOST, streams: true },
            None => Measure { most: MOST, streams: false },
        }
    }

    fn admit<Q>(&self, request: &http::Request<Q>) -> Result<Admitted, http::Response<Body>> {
        let (headers, path) = (request.headers(), request.uri().path());
        if !self.checked
            && let Some(response) = refused(request.method(), headers)
        {
            return Err(response);
        }
        let refuse = |failure| status(failure).into_http();
        let listed = listed(request);
        if listed > self.rules.headers {
            return Err(refuse(too_many(listed, self.rules.headers)));
        }
        if let Some(response) = compressed(headers) {
            return Err(response);
        }
        let asked = timeout(headers).map_err(refuse)?;
        let place = stream(path).map(|stream| self.connection.open(stream)).transpose().map_err(refuse)?;
        let measure = self.measure(path);
        // Of a stream, one message is held at a time, as it came and as it was joined.
        let held = if measure.streams { 2 * measure.most } else { 0 };
        let charge = self.connection.begin(CALL + listed + headers.len() * ENTRY + held).map_err(refuse)?;
        Ok(Admitted { intake: Arc::new(Intake::new(charge, BODY)), measure, asked, place })
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
    asked: Option<Duration>,
    place: Option<Place>,
}

/// The size of a call's headers as HTTP/2 counts it.
fn listed<Q>(request: &http::Request<Q>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let uri = request.uri();
    let pseudo = uri.path().len() + uri.authority().map_or(0, |authority| authority.as_str().len());
    fields.sum::<usize>() + pseudo + 4 * FIELD
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

impl<S> Layer<S> for Admission {
    type Service = Admitting<S>;

    fn layer(&self, service: S) -> Admitting<S> {
        Admitting { service, admission: self.clone() }
    }
}

/// A service of which calls are let in.
#[derive(Clone)]
pub struct Admitting<S> {
    service: S,
    admission: Admission,
}

impl<S: Clone> Admitting<S> {
    /// The same for a connection, with a part of the budget of its own.
    pub fn connection(&self, connection: Arc<Connection>) -> Admitting<S> {
        let admission = Admission { connection, ..self.admission.clone() };
        Admitting { service: self.service.clone(), admission }
    }
}

impl<S, Q> Service<http::Request<Q>> for Admitting<S>
where
    S: Service<http::Request<Measured<Q>>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Answer>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let Admitted { intake, measure, asked, place } = match self.admission.admit(&request) {
            Ok(admitted) => admitted,
            Err(response) => return Box::pin(async { Ok(response.map(Answer::plain)) }),
        };
        let rules = self.admission.rules.clone();
        let total = total(request.uri().path(), measure);
        let answer = self.service.call(request.map(|body| Measured::new(body, intake.clone(), measure)));
        Box::pin(async move {
            let mut response = tokio::select! {
                biased;
                answer = answer => match intake.broken() {
                    None => explained(answer?),
                    // Whatever its reader made of it.
                    Some(broken) => response(broken),
                },
                broken = poll_fn(|_| intake.broken().map_or(Poll::Pending, Poll::Ready)) => response(broken),
                failure = unfinished(&intake, &rules.hurry, asked, total) => status(failure).into_http(),
            };
            intake.answered();
            if let Some(kept) = response.extensions_mut().remove::<Keep>() {
                intake.keep(kept);
            }
            if let Some(place) = place {
                let asking = measure.streams.then(|| intake.clone());
                response = response.map(|body| Body::new(Open::new(body, place, asking)));
            }
            let (head, body) = response.into_parts();
            if !measure.streams {
                intake.charge().shrink(CALL);
            }
            let covered = (!measure.streams).then_some(ANSWER);
            let answer = Answer::begin(body, intake, covered);
            Ok(http::Response::from_parts(head, answer.await))
        })
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
async fn unfinished(
    intake: &Intake,
    hurry: &CancellationToken,
    asked: Option<Duration>,
    total: Duration,
) -> Failure {
    if !intake.whole() {
        let failure = tokio::select! {
            () = hurry.cancelled() => draining(),
            failure = late(intake, asked, total) => failure,
        };
        if !intake.whole() {
            return failure;
        }
    }
    pending().await
}

/// How long a request may take in all.
fn total(path: &str, measure: Measure) -> Duration {
    if path.starts_with(HEALTH) {
        return HEALTH_TOTAL;
    }
    TOTAL.max(Duration::from_secs((measure.most / RATE) as u64))
}

async fn late(intake: &Intake, asked: Option<Duration>, total: Duration) -> Failure {
    let begun = Instant::now();
    let (deadline, end) = (asked.map(|asked| begun + latest(asked)), begun + total);
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
