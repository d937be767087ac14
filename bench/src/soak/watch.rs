//! Those who follow all orders through a soak: from door to door, with the token of the last message. Must never know
//! what the orders should be.

use std::time::Duration;

use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{OrderEvent, WatchOrdersRequest};
use tokio::sync::watch::Sender;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::history::etag;

/// A watch says something at least so often: a bookmark comes every 30 s.
const SILENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(200);

/// One change, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) sequence: u64,
    pub(crate) order_id: String,
    pub(crate) status: i32,
}

/// Follows all orders from the beginning, until it is dropped. What was seen is added to `seen`.
pub(crate) async fn follow(doors: Vec<Channel>, first: usize, seen: Sender<Vec<Seen>>) {
    let mut token = String::new();
    for door in doors.iter().cycle().skip(first) {
        let request = WatchOrdersRequest { resume_token: token.clone(), ..WatchOrdersRequest::default() };
        let mut client = OrderServiceClient::new(door.clone());
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
