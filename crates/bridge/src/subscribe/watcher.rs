//! One watch of a topic: a cursor in the ring of its messages. Must not hold messages itself.

use std::sync::Arc;

use bytes::Bytes;
use catalog::Route;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wire::{Delivered, Failure, Reason};

use super::ring::RingRead;
use super::topic::{Phase, Signal, Topic};
use crate::call::CallContext;
use crate::concurrency::Permit;
use crate::metrics::BridgeMetrics;

/// A watch.
pub(super) struct Watcher {
    topic: Arc<Topic>,
    signal: watch::Receiver<Signal>,
    /// All messages up to here were delivered.
    cursor: u64,
    /// When it ends by itself.
    ends: Option<Instant>,
    metrics: BridgeMetrics,
    route: Arc<Route>,
    _held: Option<(Permit, Box<CallContext>)>,
}

type Message = Result<Bytes, Failure>;

impl Watcher {
    /// A watch of what follows the cursor.
    pub(super) fn new(
        topic: Arc<Topic>,
        cursor: u64,
        ends: Option<Instant>,
        metrics: BridgeMetrics,
        route: Arc<Route>,
    ) -> Watcher {
        let signal = topic.feed().signal();
        Watcher { topic, signal, cursor, ends, metrics, route, _held: None }
    }

    /// The same, which holds the permits of its call.
    pub(super) fn holding(self, permit: Permit, call: CallContext) -> Watcher {
        Watcher { _held: Some((permit, Box::new(call))), ..self }
    }

    /// The next message, and what gives those behind it; none after an error.
    pub(super) async fn step(watcher: Option<Watcher>) -> Option<(Message, Option<Watcher>)> {
        let mut watcher = watcher?;
        let message = match watcher.ends {
            Some(ends) => timeout_at(ends, watcher.advance()).await.unwrap_or_else(|_| Err(over())),
            None => watcher.advance().await,
        };
        let rest = message.is_ok().then_some(watcher);
        Some((message, rest))
    }

    async fn advance(&mut self) -> Message {
        loop {
            // Read before the ring: what comes later changes it again.
            let ended = match &self.signal.borrow_and_update().phase {
                Phase::Ended(failure) => Some(failure.clone()),
                Phase::Starting | Phase::Open(_) => None,
            };
            match self.topic.feed().ring.find(self.cursor) {
                RingRead::Message(sequence, message) => {
                    self.cursor = sequence;
                    return Ok(message);
                }
                RingRead::Gone => return Err(self.slow()),
                RingRead::Nothing => {}
            }
            if let Some(failure) = ended {
                return Err(failure);
            }
            if self.signal.changed().await.is_err() {
                return Err(Failure::new(Reason::Internal, "the reader is gone"));
            }
        }
    }

    fn slow(&self) -> Failure {
        if let Some(metrics) = self.metrics.of(&self.route) {
            metrics.slow.increment();
        }
        let message = "the client reads messages more slowly than they come: read faster";
        Failure::new(Reason::SlowClient, message).delivered(Delivered::Yes)
    }
}

fn over() -> Failure {
    Failure::new(Reason::Deadline, "the caller's deadline passed").delivered(Delivered::Yes)
}
