//! What tests do with a NATS client of their own. Every wait has a limit.

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::system::PATIENCE;

/// Returns when the server has processed what this client has sent: a flush returns as soon as it is written.
pub async fn settled(client: &Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, Bytes::new()).await.unwrap();
    next(&mut echo).await;
}

/// The next message of a subscription.
pub async fn next(subscriber: &mut Subscriber) -> Message {
    let next = timeout(PATIENCE, subscriber.next()).await.expect("a message in time");
    next.expect("no end of the subscription")
}
