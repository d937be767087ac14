//! Processes order events: order_created binds, CANCELLED releases, SHIPPED ships. Events may come twice, late and in
//! any order. An event is acknowledged only when the ledger reflects it. One that never can be goes to DEAD_LETTERS,
//! and is terminated only once it is stored there.

mod command;
mod consumer;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{AckKind, Message};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use contract::subject::CONSUMER;
use contract::{OrderReason, header, subject};
use futures_util::StreamExt;
use nats::backoff::backoff;
use nats::header::{number, put};
use nats::{Connection, Expect, Store, StoreError};
use order_streams::entry::Entry;
use parking_lot::MutexGuard;
use telemetry::{Counter, Exposition, Source, Span, SpanRole, Tracer};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::{Delivered, Failure, ascii};

use crate::ledger::{Denial, Ledger};
use crate::stock::{Draft, Refusal};
use crate::waits::EVENT;
use command::{Asked, Poison, asked};
use consumer::consumer;
pub use consumer::watch;

/// Events that are processed concurrently.
const AT_ONCE: usize = 256;
/// A dead letter that could not be stored is retried as if after so many deliveries: within 3.2 s.
const UNSTORED: i64 = 5;

/// Refusals of an event by this worker, besides the deliveries, before it becomes a dead letter: deliveries also count
/// failures that the event did not cause.
const REFUSALS: i64 = 3;
/// The most refused events that are remembered.
const REMEMBERED: usize = 100_000;

/// Processes events.
#[derive(Clone)]
pub struct Events {
    link: Connection,
    ledger: Ledger,
    dead_letters: Store,
    max_deliver: i64,
    refused: Arc<parking_lot::Mutex<HashMap<u64, i64>>>,
    tracer: Tracer,
    ends: Arc<Ends>,
}

/// How deliveries ended.
#[derive(Debug, Default)]
struct Ends {
    done: Counter,
    later: Counter,
    dead: Counter,
}

impl Source for Ends {
    fn collect(&self, page: &mut Exposition) {
        let help = "Deliveries of order events: processed, to be redelivered, or stored as dead letters.";
        for (result, count) in [("done", &self.done), ("later", &self.later), ("dead", &self.dead)] {
            page.counter("worker_events_total", help, &[("result", result)], count.get());
        }
    }
}

/// The consumer's acknowledgement floor, read from the server.
pub struct Floor {
    consumer: Mutex<PullConsumer>,
}

impl Floor {
    /// A sequence on ORDERS; `None` if it cannot be read.
    pub async fn read(&self) -> Option<u64> {
        self.read_until(Instant::now() + EVENT).await
    }

    /// The same, until a deadline.
    pub async fn read_until(&self, deadline: Instant) -> Option<u64> {
        let read = async { Some(self.consumer.lock().await.info().await.ok()?.ack_floor.stream_sequence) };
        tokio::time::timeout_at(deadline, read).await.ok()?
    }
}

impl Events {
    /// Finds or creates the consumer.
    pub async fn open(
        link: &Connection,
        ledger: Ledger,
        max_deliver: i64,
        tracer: Tracer,
    ) -> anyhow::Result<(Events, Arc<Floor>)> {
        let consumer = consumer(link).await?;
        let dead_letters = Store::new(link.clone(), order_streams::DEAD_LETTERS);
        let (refused, ends) = Default::default();
        let events = Events { link: link.clone(), ledger, dead_letters, max_deliver, refused, tracer, ends };
        Ok((events, Arc::new(Floor { consumer: Mutex::new(consumer) })))
    }

    /// How deliveries ended.
    pub fn metrics(&self) -> impl Source + use<> {
        self.ends.clone()
    }

    /// Processes events until `stop`; those fetched by then are finished or handed back.
    pub async fn run(self, stop: CancellationToken) {
        let (tasks, places) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        while !stop.is_cancelled() {
            if let Err(error) = self.pull(&stop, &tasks, &places).await {
                tracing::warn!(%error, "the consumer of ORDERS failed; pulling again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Processes one event of the record outside the consumer, or only tells the outcome.
    pub async fn redeliver(
        &self,
        sequence: u64,
        validate_only: bool,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let orders = Store::new(self.link.clone(), order_streams::ORDERS);
        let event = orders.get(sequence, deadline).await.map_err(|error| nats::failure::of_store(&error))?;
        let event = event.ok_or_else(|| Failure::not_found("event", &sequence.to_string()))?;
        let command = match Entry::of(&event).map_err(Poison::from).and_then(|entry| asked(&entry)) {
            Ok(Asked::Nothing) => return Ok(()),
            Ok(Asked::Command(command)) => command,
            Err(Poison(why)) => return Err(unsettled(why)),
        };
        let decided = if validate_only {
            self.ledger.catch_up(deadline).await?;
            let stock = self.ledger.stock();
            Draft::over(&stock, self.ledger.clock().unix_ms())
                .decide(&command)
                .map(drop)
                .map_err(Denial::Refused)
        } else {
            self.ledger.submit(command, deadline).await.map(drop)
        };
        decided.map_err(|denial| match denial {
            Denial::Refused(refusal) => unsettled(reason(&refusal)),
            Denial::Failed(failure) => failure,
        })
    }

    async fn pull(
        &self,
        stop: &CancellationToken,
        tasks: &TaskTracker,
        places: &Arc<Semaphore>,
    ) -> anyhow::Result<()> {
        // Nothing was fetched yet: without NATS this would delay the shutdown.
        let Some(messages) = stop.run_until_cancelled(self.messages()).await else { return Ok(()) };
        let mut messages = messages?;
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await;
                (place, messages.next().await)
            };
            let (place, message) = tokio::select! {
                (place, message) = next => (place?, message),
                () = stop.cancelled() => break,
            };
            let Some(message) = message.transpose()? else { return Ok(()) };
            let events = self.clone();
            tasks.spawn(async move {
                events.work(message).await;
                drop(place);
            });
        }
        // Events that were fetched and not begun go to another worker at once.
        let fetched = async {
            while let Some(Ok(message)) = messages.next().await {
                // After an error, the server redelivers it when its ack wait ends.
                let _ = message.ack_with(AckKind::Nak(None)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(50), fetched).await;
        Ok(())
    }

    async fn messages(&self) -> anyhow::Result<pull::Stream> {
        // Looked up each time: it may have been deleted.
        let consumer = consumer(&self.link).await?;
        let stream = consumer
            .stream()
            .max_messages_per_batch(AT_ONCE)
            .heartbeat(Duration::from_secs(5))
            .expires(Duration::from_secs(30));
        Ok(stream.messages().await?)
    }

    async fn work(&self, message: Message) {
        let (sequence, delivered) = match message.info() {
            Ok(info) => (info.stream_sequence, info.delivered),
            Err(error) => {
                tracing::error!(%error, "a message without its stream sequence");
                return;
            }
        };
        let span = self.span(&message, sequence);
        let ledger = self.ledger.under(&span);
        let entry = Entry::parse(sequence, &message.subject, message.headers.as_ref(), &message.payload);
        let problem = match entry.map_err(Poison::from).and_then(|entry| asked(&entry)) {
            Ok(Asked::Nothing) => None,
            Ok(Asked::Command(command)) => match ledger.submit(command, Instant::now() + EVENT).await {
                Ok(_) => {
                    self.refused().remove(&sequence);
                    None
                }
                Err(Denial::Refused(refusal)) => Some((reason(&refusal), self.last_try(sequence, delivered))),
                // A failure of the ledger never counts against the event.
                Err(Denial::Failed(failure)) => {
                    let (order_id, error) = (order_of(&message.subject), failure.logged());
                    tracing::warn!(
                        sequence,
                        order_id,
                        delivered,
                        error,
                        "an event will be redelivered: the ledger cannot take it now"
                    );
                    Some((failure.to_string(), false))
                }
            },
            Err(Poison(why)) => Some((why, true)),
        };
        if let Some((why, _)) = &problem
            && span.traced()
        {
            span.fail(why.clone());
        }
        let ack = match problem {
            None => AckKind::Ack,
            Some((why, true)) => self.bury(&message, sequence, &why).await,
            Some((why, false)) => {
                tracing::debug!(sequence, delivered, why, "an event will be redelivered");
                later(delivered)
            }
        };
        match &ack {
            AckKind::Ack => self.ends.done.increment(),
            AckKind::Term => self.ends.dead.increment(),
            _ => self.ends.later.increment(),
        }
        if let Err(error) = message.ack_with(ack).await {
            tracing::debug!(sequence, %error, "an acknowledgement was not sent; the event will be redelivered");
        }
    }

    /// The caller does not wait for the event, so it has its own trace, with a link.
    fn span(&self, message: &Message, sequence: u64) -> Span {
        if !self.tracer.on() {
            return Span::default();
        }
        let cause = message.headers.as_ref().and_then(|headers| headers.get(header::TRACEPARENT));
        let span = self.tracer.linked("process ORDERS", SpanRole::Consumer, cause.map(HeaderValue::as_str));
        if span.traced() {
            span.say("messaging.system", "nats");
            span.say("messaging.operation.type", "process");
            span.say("messaging.destination.name", message.subject.to_string());
            span.say("messaging.consumer.group.name", CONSUMER);
            span.say("messaging.message.id", sequence.to_string());
            if let Some(id) = order_of(&message.subject) {
                span.say("order.id", id.to_owned());
            }
        }
        span
    }

    /// Counts a refusal, and returns whether it was the last one.
    fn last_try(&self, sequence: u64, delivered: i64) -> bool {
        let mut refused = self.refused();
        if refused.len() >= REMEMBERED {
            refused.clear();
        }
        let count = refused.entry(sequence).or_default();
        *count += 1;
        let last = delivered >= self.max_deliver && *count >= REFUSALS.min(self.max_deliver);
        if last {
            refused.remove(&sequence);
        }
        last
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<u64, i64>> {
        self.refused.lock()
    }

    /// Stores the event with its error as a dead letter. If it cannot be stored, the event is redelivered.
    async fn bury(&self, message: &Message, sequence: u64, why: &str) -> AckKind {
        let order = message.subject.rsplit('.').next().unwrap_or("unknown");
        let subject = format!("{}.{order}", order_streams::DEAD_LETTER_PREFIX);
        let mut headers = HeaderMap::new();
        put(&mut headers, header::DEAD_LETTER_ERROR, ascii::encode(why));
        put(&mut headers, header::DEAD_LETTER_SUBJECT, ascii::encode(&message.subject));
        number(&mut headers, header::DEAD_LETTER_SEQUENCE, sequence);
        let deadline = Instant::now() + EVENT;
        let store =
            |payload| self.dead_letters.append(&subject, headers.clone(), payload, Expect::Any, deadline);
        let stored = match store(message.payload.clone()).await {
            // The event has the maximum size, and the error comes on top: the record has its payload.
            Err(StoreError::TooLarge { .. }) => store(Bytes::new()).await,
            stored => stored,
        };
        match stored {
            Ok(letter) => {
                let order_id = order_of(&message.subject);
                tracing::error!(
                    sequence,
                    dead_letter = letter,
                    order_id,
                    why,
                    "an event could not be processed"
                );
                AckKind::Term
            }
            Err(error) => {
                let order_id = order_of(&message.subject);
                tracing::error!(sequence, order_id, %error, why, "a dead letter could not be stored; the event will be redelivered");
                later(UNSTORED)
            }
        }
    }
}

/// A negative acknowledgement with a delay that grows with the deliveries, up to 30 s.
fn later(delivered: i64) -> AckKind {
    let attempt = u32::try_from(delivered).unwrap_or(u32::MAX);
    let least = Duration::from_millis(50);
    AckKind::Nak(Some(least + backoff(Duration::from_millis(100), attempt, Duration::from_secs(30))))
}

/// The order that the subject of an event names.
fn order_of(subject: &str) -> Option<&str> {
    subject.rsplit('.').next().filter(|id| subject::order(id).is_some())
}

fn unsettled(why: String) -> Failure {
    Failure::new(OrderReason::Unsettled, why).delivered(Delivered::Yes)
}

fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Behind => "the ledger has no evidence for it".to_owned(),
        other => format!("the ledger refused it: {other:?}"),
    }
}
