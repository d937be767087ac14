//! The NATS side: an ADR-32 micro service with an endpoint for each route of the contract that inventory serves. A
//! request passes: deadline → parse → handler → reply. Must not depend on what the handlers do.

pub mod context;
pub mod deadline;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod maintenance;
mod metrics;
mod micro;
pub mod page;
pub mod refusal;
pub mod reserve;
pub mod shares;
pub mod stock;
pub mod wide;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::{Client, HeaderMap, HeaderValue, Message, Subscriber};
use contract::route::{CodecError, Routed};
use contract::{Route, header};
use futures_util::StreamExt;
use metrics::{EndpointMetrics, WORDS};
use nats::Connection;
use nats::header::{number, put};
use telemetry::{Source, Span, SpanRole, Tracer};
use tokio::sync::{RwLock, Semaphore};
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wire::{Delivered, Failure, FieldViolation, Reason, nestjs};

use crate::intake::Intake;
pub use context::{Inventory, RequestContext};
use deadline::Deadlines;
pub use micro::{Able, SERVICE};

/// Concurrent requests of all endpoints; the next one is refused at once.
const AT_ONCE: usize = 8_192;

/// The endpoints, while they serve.
pub struct Endpoints {
    routes: Vec<&'static Route>,
    micro: Option<AbortOnDropHandle<()>>,
    /// The connection for requests alone, so that it can be drained separately.
    intake: Intake,
    server: Arc<Server>,
    takers: Vec<AbortOnDropHandle<()>>,
    tasks: TaskTracker,
}

/// What a request needs to be answered.
struct Server {
    inventory: Arc<Inventory>,
    places: Semaphore,
    metrics: Arc<EndpointMetrics>,
    tracer: Tracer,
    intake: Client,
    /// Set when `intake` closes: replies then leave over the other connection.
    back: Connection,
    closing: RwLock<bool>,
}

impl Endpoints {
    /// Starts to serve. `intake` is the connection for requests, `back` any other; `able` tells whether the service can
    /// serve now.
    pub async fn serve(
        intake: Intake,
        back: Connection,
        inventory: Arc<Inventory>,
        tracer: Tracer,
        able: Able,
    ) -> Result<Endpoints, async_nats::Error> {
        let subjects: Vec<&'static str> = contract::route::ALL.iter().map(|route| route.subject).collect();
        let metrics = Arc::new(EndpointMetrics::new(&subjects));
        let (places, client, closing) =
            (Semaphore::new(AT_ONCE), intake.connection().client().clone(), RwLock::new(false));
        let server = Arc::new(Server { inventory, places, metrics, tracer, intake: client, back, closing });
        let (takers, tasks, routes) = (Vec::new(), TaskTracker::new(), Vec::new());
        let mut endpoints = Endpoints { routes, micro: None, intake, server, takers, tasks };
        endpoints.open(stock::check).await?;
        endpoints.open(stock::get).await?;
        endpoints.open(stock::list).await?;
        endpoints.open(stock::adjust).await?;
        endpoints.open(reserve::reserve).await?;
        endpoints.open(reserve::release).await?;
        endpoints.open(maintenance::redeliver).await?;
        endpoints.open(maintenance::list).await?;
        endpoints.open(maintenance::settle).await?;
        let server = &endpoints.server;
        let told = micro::Told { metrics: server.metrics.clone(), clock: server.back.clock().clone(), able };
        endpoints.micro = Some(micro::serve(server.intake.clone(), endpoints.routes.clone(), told).await?);
        // Nothing is announced as ready before the server knows the subscriptions.
        endpoints.intake.connection().client().flush().await?;
        Ok(endpoints)
    }

    /// Opens the endpoint of a route for its handler.
    async fn open<R, H, F>(&mut self, handler: H) -> Result<(), async_nats::Error>
    where
        R: Routed + Send + 'static,
        R::Reply: Send,
        H: Fn(Arc<Inventory>, R, RequestContext) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Result<R::Reply, Failure>> + Send + 'static,
    {
        let (subject, group) = (R::ROUTE.subject, R::ROUTE.queue_group.to_owned());
        let requests = self.server.intake.queue_subscribe(subject, group).await?;
        self.routes.push(R::ROUTE);
        let (server, tasks) = (self.server.clone(), self.tasks.clone());
        let taker = self.intake.thread().spawn(take(requests, server, tasks, handler));
        self.takers.push(AbortOnDropHandle::new(taker));
        Ok(())
    }

    /// The metrics of requests.
    pub fn metrics(&self) -> impl Source + use<> {
        self.server.metrics.clone()
    }

    /// Stops accepting requests, and returns when the accepted ones are answered.
    pub async fn close(self) {
        *self.server.closing.write().await = true;
        let left = self.intake.leave().await;
        if left.as_ref().is_some_and(|left| left.drained) {
            // A panic was reported already, and the tasks have ended either way.
            futures_util::future::join_all(self.takers).await;
        } else {
            drop(self.takers);
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Accepts requests until the connection is drained, and spawns a task for each.
async fn take<R, H, F>(mut requests: Subscriber, server: Arc<Server>, tasks: TaskTracker, handler: H)
where
    R: Routed + Send + 'static,
    R::Reply: Send,
    H: Fn(Arc<Inventory>, R, RequestContext) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<R::Reply, Failure>> + Send + 'static,
{
    let deadlines = Deadlines::new();
    while let Some(request) = requests.next().await {
        let server = server.clone();
        let deadline = deadlines.of(&request, server.back.clock());
        tasks.spawn(async move {
            let (begun, span) = (Instant::now(), server.span::<R>(&request));
            server.metrics.begin();
            let answer = match server.places.try_acquire() {
                Ok(_place) => {
                    answer(&server.inventory.under(&span), &request, deadline, &span, handler).await
                }
                Err(_) => EndpointReply::to(&request, Err(overloaded())),
            };
            if let Some(failure) = &answer.failure {
                span.fail(failure.reason.to_string());
            }
            server.metrics.end(R::ROUTE.subject, answer.failure.as_ref(), begun.elapsed(), &request);
            server.reply(request, answer).await;
        });
    }
}

/// A reply, ready to be sent.
struct EndpointReply {
    headers: HeaderMap,
    payload: Vec<u8>,
    failure: Option<Failure>,
}

async fn answer<R, H, F>(
    inventory: &Arc<Inventory>,
    message: &Message,
    deadline: Result<Instant, Failure>,
    span: &Span,
    handler: H,
) -> EndpointReply
where
    R: Routed,
    H: Fn(Arc<Inventory>, R, RequestContext) -> F,
    F: Future<Output = Result<R::Reply, Failure>>,
{
    let work = async {
        let context =
            RequestContext { deadline: deadline?, principal: principal(message), span: span.clone() };
        let payload = nestjs::payload(&message.payload);
        let request = R::from_payload(payload).map_err(unreadable)?;
        let reply = handler(inventory.clone(), request, context).await?;
        R::reply_to_payload(&reply)
            .map_err(|error| Failure::new(Reason::Internal, "the reply cannot be encoded").because(error))
    };
    EndpointReply::to(message, work.await)
}

impl EndpointReply {
    fn to(message: &Message, result: Result<Vec<u8>, Failure>) -> EndpointReply {
        let mut headers = HeaderMap::new();
        if let Err(failure) = &result {
            number(&mut headers, header::SERVICE_ERROR_CODE, failure.number().into());
            put(&mut headers, header::SERVICE_ERROR, words(&failure.message));
        }
        let enveloped = nestjs::reply(&message.payload, &result);
        let (payload, failure) = match result {
            Ok(payload) => (payload, None),
            Err(failure) => (failure.to_json(), Some(failure)),
        };
        EndpointReply { headers, payload: enveloped.unwrap_or(payload), failure }
    }
}

impl Server {
    /// The span of a traced request, with the time that it took from its sender to here.
    fn span<R: Routed>(&self, message: &Message) -> Span {
        let header = |name| message.headers.as_ref()?.get(name).map(HeaderValue::as_str);
        let subject = R::ROUTE.subject;
        if !self.tracer.on() {
            return Span::default();
        }
        let span =
            self.tracer.follow(format!("process {subject}"), SpanRole::Server, header(header::TRACEPARENT));
        if !span.traced() {
            return span;
        }
        span.say("messaging.system", "nats");
        span.say("messaging.operation.type", "process");
        span.say("messaging.destination.name", subject);
        span.say("messaging.consumer.group.name", R::ROUTE.queue_group);
        if let Some(id) = header(header::REQUEST_ID) {
            span.say("request.id", id.to_owned());
        }
        if let Some(sent) = header(header::REQUEST_SENT).and_then(|micros| micros.parse().ok()) {
            let sent = SystemTime::UNIX_EPOCH + Duration::from_micros(sent);
            let now = SystemTime::now();
            // If the clocks differ, it may seem to arrive before it was sent.
            span.past("queue", sent.min(now), now, Vec::new());
        }
        span
    }

    async fn reply(&self, request: Message, mut answer: EndpointReply) {
        let Some(inbox) = request.reply.clone() else { return };
        let limit = self.back.client().max_payload();
        // Headers count as well, so an answer this close to the limit counts as over it.
        if answer.payload.len() + 1_024 > limit {
            let failure = Failure::new(
                Reason::PayloadTooLarge,
                format!("the reply is over the limit of {limit} bytes"),
            );
            answer = EndpointReply::to(&request, Err(failure.delivered(Delivered::Yes)));
        }
        let closing = self.closing.read().await;
        let client = if *closing { self.back.client() } else { &self.intake };
        let payload = answer.payload.into();
        let sent = match answer.headers.is_empty() {
            true => client.publish(inbox, payload).await,
            false => client.publish_with_headers(inbox, answer.headers, payload).await,
        };
        match sent {
            Err(error) if answer.failure.is_none() => tracing::warn!(%error, "a reply was not sent"),
            // The request's own log line tells that it failed.
            Err(error) => tracing::debug!(%error, "an error reply was not sent"),
            Ok(()) => {}
        }
    }
}

fn principal(message: &Message) -> Box<str> {
    let value = message.headers.as_ref().and_then(|headers| headers.get(header::PRINCIPAL));
    value.map(|value| value.as_str().into()).unwrap_or_default()
}

fn unreadable(mismatch: CodecError) -> Failure {
    let field = if mismatch.path.is_empty() { "payload".to_owned() } else { mismatch.path };
    Failure::invalid(vec![FieldViolation::new(words(&field), words(&mismatch.why))])
}

fn words(text: &str) -> String {
    text.chars().take(WORDS).collect()
}

fn overloaded() -> Failure {
    Failure::overloaded(
        "this worker",
        &format!("limit of {AT_ONCE} concurrent requests reached"),
        nats::failure::RETRY,
    )
}
