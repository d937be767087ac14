//! Subscriptions: what is published on a subject, or stored by a stream. All callers of one route and one subject share
//! one reader of their thread, a topic. Must not let a slow caller hold up another.

mod core;
mod decode;
mod ring;
mod topic;
mod watcher;

use std::sync::Arc;

use catalog::{Route, Subscription};
use futures_util::stream;
use nats::RequestError;
use tokio::time::{Instant, timeout_at};
use wire::{Delivered, Failure};

pub(crate) use topic::Topics;

use crate::call::{CallContext, Limit};
use crate::route_state::RouteState;
use crate::{Bridge, Messages, address, unfit};
use decode::Decoder;
use topic::{Begin, Key, Topic};
use watcher::Watcher;

/// Says in the initial metadata how often a message comes at most or at least.
const DELIVERY: &str = "stream-delivery";

impl Bridge {
    /// Subscribes. What is published after this has returned comes.
    pub(crate) async fn listen(
        &self,
        route: &Arc<Route>,
        _subscription: &Subscription,
        request: &[u8],
        call: CallContext,
    ) -> Result<Messages, Failure> {
        let (state, permit) = self.enter(route, &call, RouteState::enter)?;
        route.codec.request(request).map_err(|mismatch| unfit(&mismatch))?;
        let subject = address(route, state, request, &call)?;
        let decoder = Decoder::new(route.clone(), state.nestjs(), self.metrics.clone());
        let key = Key { path: route.path.clone(), subject: subject.to_string() };
        let topic = self.topics.join(key, |feed| {
            tokio::spawn(core::run(feed, self.streams().clone(), subject, decoder, route.timeout));
        });
        let Begin { after } = opened(&topic, route, &call).await?;
        let cursor = after.max(topic.feed().last());
        let watcher = Watcher::new(topic, cursor, ends(&call), self.metrics.clone(), route.clone());
        let watcher = watcher.holding(permit, call);
        Ok(Messages::new(stream::unfold(Some(watcher), Watcher::step)).with(DELIVERY, "at-most-once"))
    }
}

/// Waits until the topic has begun.
async fn opened(topic: &Topic, route: &Route, call: &CallContext) -> Result<Begin, Failure> {
    let deadline = call.deadline.min(Instant::now() + route.timeout);
    timeout_at(deadline, topic.feed().opened()).await.unwrap_or_else(|_| {
        Err(match call.over() {
            true => call.late(Delivered::No),
            false => nats::failure::of_request(&RequestError::Timeout, route.subject.as_str()),
        })
    })
}

/// When a subscription ends by itself: at the deadline that its caller has set.
fn ends(call: &CallContext) -> Option<Instant> {
    (call.limit == Limit::Caller).then_some(call.deadline)
}
