//! The durable consumer that the workers share: how it is found or made, and whether it is still what it has to be. Must
//! never know what an event says.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use contract::subject::{CONSUMER, EVENTS};
use link::{Guard, Link, guard, streams};
use tokio::time::Instant;

use super::AT_ONCE;
use crate::waits::{ACK_WAIT, EVENT};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Finds or makes the consumer. One that would lose events is refused.
pub(super) async fn consumer(link: &Link) -> anyhow::Result<PullConsumer> {
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        description: Some("Order events for the stock".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // The worker counts deliveries itself: the server would only stop delivering.
        max_deliver: -1,
        max_ack_pending: 8 * AT_ONCE as i64,
        filter_subject: EVENTS.to_owned(),
        ..pull::Config::default()
    };
    let stream = jetstream::new(link.client().clone()).get_stream_no_info(streams::ORDERS).await?;
    let made = tokio::time::timeout(EVENT, stream.get_or_create_consumer(CONSUMER, config));
    let consumer = made.await.context("the consumer of ORDERS was not made in time")?;
    let consumer = consumer.context("the consumer of ORDERS")?;
    match wrong(&consumer.cached_info().config) {
        None => Ok(consumer),
        Some(field) => anyhow::bail!(
            "the consumer {CONSUMER} of ORDERS has another {field} than it needs; remove it (`nats consumer rm ORDERS \
             {CONSUMER}`), and a worker makes it anew"
        ),
    }
}

/// Looks for ever whether the consumer is what it has to be. One that was removed, the workers make anew themselves.
pub async fn watch(link: Link, found: Guard) {
    loop {
        tokio::time::sleep(PAUSE).await;
        if !link.connected() {
            continue;
        }
        let info = guard::consumer(&link, streams::ORDERS, CONSUMER, Instant::now() + guard::LOOK).await;
        let Ok(info) = info else { continue };
        let fault = match wrong(&info.config) {
            Some(field) => Some(format!(
                "the consumer {CONSUMER} of ORDERS has another {field} than it needs; nothing is written until it is \
                 removed, and made anew by a worker (`nats consumer rm ORDERS {CONSUMER}`)"
            )),
            None if info.paused => Some(format!(
                "the consumer {CONSUMER} of ORDERS is paused: orders do not reach the stock (`nats consumer resume ORDERS \
                 {CONSUMER}`)"
            )),
            None => None,
        };
        found.note(CONSUMER, fault);
    }
}

/// The field that would lose events.
fn wrong(found: &consumer::Config) -> Option<&'static str> {
    let filters = [
        ("filter_subject", found.filter_subject != EVENTS),
        ("filter_subjects", !found.filter_subjects.is_empty()),
    ];
    let wrong = [
        ("ack_policy", found.ack_policy != AckPolicy::Explicit),
        ("max_deliver", found.max_deliver > 0),
        ("deliver_policy", found.deliver_policy != DeliverPolicy::All),
        ("headers_only", found.headers_only),
    ];
    filters.into_iter().chain(wrong).find(|(_, wrong)| *wrong).map(|(field, _)| field)
}
