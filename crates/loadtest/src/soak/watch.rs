//! Watches of all orders during a soak. They resume at the next gateway with the token of the last message. Must not
//! depend on what the orders should be.

use std::time::Duration;

use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{OrderEvent, WatchOrdersRequest};
use tokio::sync::watch::Sender;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::history::etag;

/// A watch without a message for this long is reopened: bookmarks come every 30 s.
const SILENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(200);

/// One change, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) sequence: u64,
    pub(crate) order_id: String,
    pub(crate) status: i32,
}

/// Watches all orders from the beginning, until it is dropped. Adds what it sees to `seen`.
pub(crate) async fn follow(channels: Vec<Channel>, first: usize, seen: Sender<Vec<Seen>>) {
    let mut token = String::new();
    for channel in channels.iter().cycle().skip(first) {
        let request = WatchOrdersRequest { resume_token: token.clone(), ..WatchOrdersRequest::default() };
        let mut client = OrderServiceClient::new(channel.clone());
        if let Ok(Ok(stream)) = timeout(SILENCE, client.watch_orders(request)).await {
            let mut stream = stream.into_inner();
            while let Ok(Ok(Some(message))) = timeout(SILENCE, stream.message()).await {
                token.clone_from(&message.resume_token);
                let change = message.event() != OrderEvent::Bookmark;
                if let Some(order) = message.order.filter(|_| change) {
                    let new = Seen {
                        sequence: etag(&order),
                        order_id: order.order_id.clone(),
                        status: order.status,
                    };
                    seen.send_modify(|seen| seen.push(new));
                }
            }
        }
        sleep(PAUSE).await;
    }
}
