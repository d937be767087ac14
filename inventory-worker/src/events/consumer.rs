//! The durable consumer that the workers share: finds or creates it, and checks its configuration. It is a queue, whose
//! events come again until they are acknowledged, and no reader in order (`nats::reader`). Must not depend on the content
//! of events.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use contract::subject::{CONSUMER, EVENTS};
use nats::{Connection, Guard, guard};
use tokio::time::Instant;

use super::AT_ONCE;
use crate::waits::{ACK_WAIT, EVENT};

/// Pause between two checks.
const PAUSE: Duration = Duration::from_secs(2);

/// Finds or creates the consumer. One that would lose events is refused.
pub(super) async fn consumer(link: &Connection) -> anyhow::Result<PullConsumer> {
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
    let stream = jetstream::new(link.client().clone()).get_stream_no_info(order_streams::ORDERS).await?;
    let made = tokio::time::timeout(EVENT, stream.get_or_create_consumer(CONSUMER, config));
    let consumer = made.await.context("the consumer of ORDERS was not created in time")?;
    let consumer = consumer.context("the consumer of ORDERS")?;
    match wrong(&consumer.cached_info().config) {
        None => Ok(consumer),
        Some(field) => anyhow::bail!(
            "the consumer {CONSUMER} of ORDERS has a wrong {field}; delete it (`nats consumer rm ORDERS {CONSUMER}`), \
             and a worker creates it again"
        ),
    }
}

/// Checks for ever whether the consumer has the required configuration. The workers recreate one that was deleted.
pub async fn watch(link: Connection, found: Guard) {
    loop {
        tokio::time::sleep(PAUSE).await;
        if !link.connected() {
            continue;
        }
        let info =
            guard::consumer(&link, order_streams::ORDERS, CONSUMER, Instant::now() + guard::CHECK_INTERVAL)
                .await;
        let Ok(info) = info else { continue };
        let fault = match wrong(&info.config) {
            Some(field) => Some(format!(
                "the consumer {CONSUMER} of ORDERS has a wrong {field}; nothing is written until it is deleted \
                 (`nats consumer rm ORDERS {CONSUMER}`) and a worker has created it again"
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
