//! Subscriptions: what is published on a subject, or stored by a stream. All callers of one route and one subject share
//! one reader of their thread, a topic. Must not let a slow caller hold up another.

mod core;
mod decode;
mod position;
mod replay;
mod stored;
mod watcher;

use std::sync::Arc;

use async_nats::Subject;
use catalog::{Route, Subscription};
use futures_util::stream;
use nats::RequestError;
use tokio::time::{Instant, timeout_at};
use wire::{Delivered, Failure};

use crate::call::{CallContext, Limit};
use crate::concurrency::Permit;
use crate::route_state::RouteState;
use crate::topic::{Begin, Key, Topic};
use crate::{Bridge, Messages, address, unfit};
use decode::Decoder;
use stored::Stored;
use watcher::{Viewer, Watcher};

/// An entry of the initial metadata: whether a message comes at most or at least once.
const DELIVERY: &str = "stream-delivery";
/// An entry of the initial metadata: the token of the position where a subscription to a stream begins.
const TOKEN: &str = "stream-token";

/// A subscription that begins.
struct Request<'a> {
    route: &'a Arc<Route>,
    subscription: &'a Subscription,
    message: &'a [u8],
    subject: Subject,
    decoder: Decoder,
    call: CallContext,
    permit: Permit,
}

impl Bridge {
    /// Subscribes. What is published after this has returned comes.
    pub(crate) async fn listen(
        &self,
        route: &Arc<Route>,
        subscription: &Subscription,
        message: &[u8],
        call: CallContext,
    ) -> Result<Messages, Failure> {
        let (state, permit) = self.enter(route, &call, RouteState::enter)?;
        route.codec.request(message).map_err(|mismatch| unfit(&mismatch))?;
        let subject = address(route, state, message, &call)?;
        let decoder = Decoder::new(route.clone(), state.nestjs(), self.counts.clone());
        let request = Request { route, subscription, message, subject, decoder, call, permit };
        match &subscription.stream {
            Some(stream) => self.follow(stream, request).await,
            None => self.hear(request).await,
        }
    }

    /// What is published from now on.
    async fn hear(&self, request: Request<'_>) -> Result<Messages, Failure> {
        let Request { route, subject, decoder, call, permit, .. } = request;
        let topic = self.topics.join(key(route, &subject), |feed| {
            tokio::spawn(core::run(feed, self.streams().clone(), subject, decoder, route.timeout));
        });
        opened(&topic, route, &call).await?;
        let cursor = topic.feed().last();
        let watcher = Watcher::new(topic, cursor, self.viewer(route, call, permit));
        Ok(messages(watcher).with(DELIVERY, "at-most-once"))
    }

    /// What a stream stores, from now on or behind a token.
    async fn follow(&self, stream: &str, request: Request<'_>) -> Result<Messages, Failure> {
        let Request { route, subscription, message, subject, decoder, call, permit } = request;
        let link = self.streams().clone();
        let stored = Stored::new(link, (stream, &subject), subscription.token, decoder, route.timeout);
        let (asked, stored) = (stored.asked(subscription, message)?, Arc::new(stored));
        let topic = self.topics.join(key(route, &subject), |feed| {
            tokio::spawn(stored.clone().run(feed, asked.is_some()));
        });
        let begin = opened(&topic, route, &call).await?;
        let last = begin.after.max(topic.feed().last());
        if let Some(position) = asked
            && (position.identity != position::identity(&begin.identity) || position.sequence > last)
        {
            stored.check(&begin, position).await?;
        }
        let cursor = asked.map_or(last, |position| position.sequence);
        let token = stored.token(&begin, cursor);
        let mut watcher = Watcher::new(topic, cursor, self.viewer(route, call, permit));
        watcher.resume(stored, begin, self.topics.catching_up.clone()).await?;
        Ok(messages(watcher).with(DELIVERY, "at-least-once").with(TOKEN, token))
    }

    fn viewer(&self, route: &Arc<Route>, call: CallContext, permit: Permit) -> Viewer {
        // A subscription ends by itself only at the deadline that its caller has set.
        let ends = (call.limit == Limit::Caller).then_some(call.deadline);
        Viewer { route: route.clone(), metrics: self.counts.clone(), ends, hold: call.hold, _permit: permit }
    }
}

/// The topic keeps the route, so that no other has its address meanwhile.
fn key(route: &Arc<Route>, subject: &Subject) -> Key {
    Key { path: route.path.clone(), route: Arc::as_ptr(route).addr(), subject: subject.to_string() }
}

fn messages(watcher: Watcher) -> Messages {
    Messages::new(stream::unfold(Some(watcher), Watcher::step))
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
