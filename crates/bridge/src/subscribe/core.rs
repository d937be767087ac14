//! The reader of a core subject: what is published while somebody listens, at most once. Must not hide that something may
//! be missing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use nats::failure::RETRY;
use nats::{Connection, RequestError, SubscriptionError};
use tokio::time::timeout;
use wire::{Delivered, Failure, Reason};

use super::decode::Decoder;
use crate::topic::{Begin, Feed};

/// Reads until nobody watches or something may be missing. `limit`: how long the server may take to begin.
pub(super) async fn run(
    feed: Arc<Feed>,
    link: Connection,
    subject: Subject,
    decoder: Decoder,
    limit: Duration,
) {
    let stop = feed.stop.clone();
    let reads = read(&feed, &link, &subject, &decoder, limit);
    if let Some(Err(failure)) = stop.run_until_cancelled(reads).await {
        feed.end(failure);
    }
}

async fn read(
    feed: &Feed,
    link: &Connection,
    subject: &Subject,
    decoder: &Decoder,
    limit: Duration,
) -> Result<(), Failure> {
    let listening = timeout(limit, link.listen(subject.clone())).await;
    let mut subscription = listening
        .map_err(|_| nats::failure::of_request(&RequestError::Timeout, subject))?
        .map_err(|error| broken(error).delivered(Delivered::No))?;
    feed.begin(Begin { after: 0, identity: "".into() });
    let (mut messages, mut last) = (Vec::new(), 0);
    loop {
        let filled = subscription.fill(&mut messages).await;
        let read = messages.drain(..).filter_map(|message| {
            let read = decoder.read(&message.subject, &message.payload)?;
            last += 1;
            Some((last, Bytes::from(read)))
        });
        feed.push(read.collect());
        filled.map_err(|error| broken(error).delivered(Delivered::Yes))?;
    }
}

fn broken(error: SubscriptionError) -> Failure {
    match error {
        SubscriptionError::Disconnected => nats::failure::of_request(&RequestError::Disconnected, ""),
        SubscriptionError::Lost => {
            let message =
                "the connection to NATS was lost, and what was published meanwhile with it; subscribe again";
            Failure::new(Reason::NatsDisconnected, message).retry_after(RETRY)
        }
        SubscriptionError::NotPermitted => nats::failure::of_request(&RequestError::NotPermitted, ""),
        SubscriptionError::Dropped => {
            let message = "the gateway read more slowly than messages were published, and some were dropped";
            Failure::new(Reason::StreamGap, message)
        }
    }
}
