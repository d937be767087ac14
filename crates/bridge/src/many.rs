//! Calls with many replies: one request, its first reply within the attempts of a unary call, and then messages until the
//! service, the route or the caller ends them. Must not let a slow caller hold up another.

mod part;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use catalog::{Replies, Route};
use futures_util::stream;
use nats::{ManyReplies, RequestError};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use wire::{Delivered, Failure, Reason, ResponseMetadata, nestjs};

use crate::call::CallContext;
use crate::concurrency::Permit;
use crate::control::{Control, Progress, SEND};
use crate::flow::{Inflow, Outflow, flow};
use crate::hedge::trace;
use crate::messages::Messages;
use crate::reply::{self, AttemptError, Reply};
use crate::response::Trailers;
use crate::route_state::RouteState;
use crate::{Bridge, address, captured, header, unfit, violated};
use part::{Numbers, Part};

/// What a stream reads.
struct Source {
    route: Arc<Route>,
    rules: Replies,
    nest: bool,
    call: CallContext,
    replies: ManyReplies,
    numbers: Numbers,
    progress: Progress,
    /// Messages so far.
    count: u32,
    /// Where trailers go, if the route passes any on.
    passing: Option<Passing>,
}

/// Passes on what the headers of the last reply say.
struct Passing {
    bridge: Bridge,
    trailers: Trailers,
}

/// The first reply, what it says in its headers, and those behind it.
struct First {
    message: Message,
    metadata: Option<Box<ResponseMetadata>>,
    replies: ManyReplies,
}

/// What the client's side of a stream holds.
struct Sink {
    bridge: Bridge,
    route: Arc<Route>,
    outflow: Outflow,
    control: Control,
    _permit: Permit,
    /// Ends with the client.
    _source: AbortOnDropHandle<()>,
}

/// A request, as each attempt sends it.
struct Asked<'a> {
    route: &'a Route,
    state: &'a RouteState,
    subject: Subject,
    payload: Bytes,
    call: &'a CallContext,
    control: &'a Control,
}

impl Bridge {
    /// Calls a route with many replies. The first one comes within the time and the attempts of a unary call.
    pub(crate) async fn ask_many(
        &self,
        route: &Arc<Route>,
        replies: &Replies,
        request: &[u8],
        call: CallContext,
    ) -> Result<Messages, Failure> {
        let (state, permit) = self.enter(route, &call, RouteState::enter)?;
        let payload = route.codec.request(request).map_err(|mismatch| unfit(&mismatch))?;
        let subject = address(route, state, request, &call)?;
        let enveloped = if state.nestjs() { nestjs::call(&subject, &payload) } else { None };
        let payload = Bytes::from(enveloped.unwrap_or(payload));
        let control = Control::new(self.streams().clone(), route.cancel);
        let asked = Asked { route, state, subject, payload, call: &call, control: &control };
        let again = || route.codec.repeatable(request);
        let first = self.attempts(route, state, &call, again, |repeat| self.first(&asked, repeat)).await;
        let First { message, metadata, replies: replies_to_come } =
            permit.record_outcome(call.deadline, first)?;
        let trailers = (!route.metadata.reply.is_empty()).then(Trailers::default);
        let passing = trailers.clone().map(|trailers| Passing { bridge: self.clone(), trailers });
        let (inflow, outflow) = flow(self.states().stream_bytes().clone());
        let source = Source {
            route: route.clone(),
            rules: replies.clone(),
            nest: state.nestjs(),
            call,
            replies: replies_to_come,
            numbers: Numbers::default(),
            progress: control.progress().clone(),
            count: 0,
            passing,
        };
        // Reads at the service's pace, whatever the client does.
        let source = AbortOnDropHandle::new(tokio::spawn(source.run(message, inflow)));
        let (bridge, route) = (self.clone(), route.clone());
        let sink = Box::new(Sink { bridge, route, outflow, control, _permit: permit, _source: source });
        let initial = metadata.map(|metadata| metadata.initial).unwrap_or_default();
        Ok(Messages::new(stream::unfold(Some(sink), Sink::step)).passing(initial, trailers))
    }

    /// One attempt: the request, and its first reply.
    async fn first(&self, asked: &Asked<'_>, repeat: u32) -> Result<First, AttemptError> {
        let Asked { route, state, subject, payload, call, control } = asked;
        let begun = Instant::now();
        if begun >= call.deadline {
            return Err(AttemptError::last(call.late(Delivered::No)));
        }
        let span = trace(route, call, repeat, 0);
        // The service may send until the call ends, not only until its first reply is due.
        let left = call.deadline.saturating_duration_since(begun);
        let link = self.streams();
        let mut headers = header::of(route, call, &span, link.clock().wall(), left);
        control.announce(&mut headers, true);
        self.note(route, |metrics| metrics.attempts.increment());
        let reply = async {
            let mut replies = link.request_many(subject.clone(), headers, payload.clone()).await?;
            let first = replies.next().await?;
            Ok((first, replies))
        };
        let deadline = call.deadline.min(begun + route.timeout);
        let (first, replies) = timeout_at(deadline, reply)
            .await
            .unwrap_or(Err(RequestError::Timeout))
            .map_err(|trouble| self.missed(route, state, call, repeat, &trouble))?;
        state.liveness().up();
        let metadata = self.metadata(route, &first);
        match reply::read(route, state.nestjs(), first.clone()) {
            Reply::Refusal(error) => {
                // The service has ended it.
                control.progress().end();
                Err(error.with(metadata))
            }
            Reply::Answer(payload) if reply::is_acknowledgement(&payload) && is_empty(route, &payload) => {
                Err(AttemptError::last(captured(route, state)))
            }
            Reply::Answer(_) | Reply::Nonsense => Ok(First { message: first, metadata, replies }),
        }
    }
}

/// Whether nothing of a payload fits the contract.
fn is_empty(route: &Route, payload: &[u8]) -> bool {
    route.codec.reply(payload).is_ok_and(|reply| reply.is_empty())
}

impl Source {
    /// Hands messages over until the stream ends.
    async fn run(mut self, first: Message, inflow: Inflow) {
        let mut next = Ok(first);
        let end = loop {
            let taken = match next {
                Ok(message) => self.take(message, &inflow),
                Err(end) => break end,
            };
            if let ControlFlow::Break(end) = taken {
                break end;
            }
            next = self.wait().await;
        };
        inflow.finish(end);
    }

    fn take(&mut self, message: Message, inflow: &Inflow) -> ControlFlow<Result<(), Failure>> {
        // Of several instances, each has numbers of its own.
        if !self.rules.all
            && let Err(gap) = self.numbers.check(&message)
        {
            return ControlFlow::Break(Err(gap));
        }
        let ends = self.passing.is_some().then(|| message.clone());
        let part = Part::read(&self.route, self.nest, message);
        if part.end.is_some() {
            self.progress.end();
        }
        if let Some(payload) = part.payload {
            self.progress.spend();
            if let Err(full) = inflow.put(payload) {
                return ControlFlow::Break(Err(full));
            }
            self.count = self.count.saturating_add(1);
        }
        let counted = self.rules.count.is_some_and(|most| self.count >= most).then_some(Ok(()));
        let Some(end) = part.end.or(counted) else { return ControlFlow::Continue(()) };
        ControlFlow::Break(match (&self.passing, ends) {
            (Some(passing), Some(last)) => passing.end(&self.route, &last, end),
            _ => end,
        })
    }

    /// Waits for the next message; an error is the end of the stream.
    async fn wait(&mut self) -> Result<Message, Result<(), Failure>> {
        loop {
            let deadline = self.call.deadline.min(Instant::now() + self.rules.idle);
            match timeout_at(deadline, self.replies.next()).await {
                Ok(Ok(message)) => return Ok(message),
                // What is missing is seen by the numbers.
                Ok(Err(RequestError::Lost | RequestError::Dropped)) if self.numbers.are_given() => {
                    self.replies.resume()
                }
                Ok(Err(trouble)) => return Err(Err(broken(&self.route, &trouble))),
                Err(_) if self.call.over() => return Err(Err(self.call.late(Delivered::Yes))),
                // It may have to wait for the client.
                Err(_) if self.progress.waits() => {}
                Err(_) if self.rules.all => return Err(Ok(())),
                Err(_) => return Err(Err(silent(&self.route, self.rules.idle))),
            }
        }
    }
}

impl Passing {
    /// Passes on the trailers of the last reply.
    fn end(&self, route: &Route, last: &Message, end: Result<(), Failure>) -> Result<(), Failure> {
        let response = self.bridge.metadata(route, last);
        let Err(failure) = end else {
            let trailers = response.map(|response| response.trailers);
            let _ = self.trailers.set(trailers.unwrap_or_default());
            return Ok(());
        };
        Err(Failure { response, ..failure })
    }
}

impl Sink {
    /// The next message, and what gives those behind it.
    async fn step(sink: Option<Box<Sink>>) -> Option<(Result<Vec<u8>, Failure>, Option<Box<Sink>>)> {
        let mut sink = sink?;
        match sink.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(sink))),
            Ok(None) => None,
            Err(failure) => Some((Err(failure), None)),
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let next = loop {
            if !self.control.owes() {
                break self.outflow.next().await;
            }
            // The service may wait for what could not be granted, and send nothing.
            match timeout(SEND, self.outflow.next()).await {
                Ok(next) => break next,
                Err(_) => self.control.grant().await,
            }
        };
        let next = next.inspect_err(|failure| {
            if failure.is(Reason::SlowClient) {
                self.bridge.note(&self.route, |metrics| metrics.slow.increment());
            }
        });
        let Some(payload) = next? else { return Ok(None) };
        self.bridge.note(&self.route, |metrics| metrics.messages.increment());
        self.control.took(payload.len()).await;
        match self.route.codec.reply(&payload) {
            Ok(message) => Ok(Some(message)),
            Err(mismatch) => Err(violated(&self.route, self.bridge.states().of(&self.route)?, &mismatch)),
        }
    }
}

fn broken(route: &Route, trouble: &RequestError) -> Failure {
    nats::failure::of_request(trouble, route.subject.as_str()).delivered(Delivered::Yes)
}

fn silent(route: &Route, idle: Duration) -> Failure {
    let message = format!("the service for {} sent nothing for {idle:?}, and no end", route.rpc);
    Failure::new(Reason::StreamSilent, message).delivered(Delivered::Yes).retry_after(nats::failure::RETRY)
}
