//! WatchOrders: no change is left out, and none comes twice.

use contract::orders::v1::{OrderEvent, OrderStatus, WatchOrdersRequest, WatchOrdersResponse};
use tonic::Streaming;

use crate::harness::system::{PATIENCE, System, assert_refused, new_order, reason, until};

/// A watch after its first bookmark.
pub struct Watch {
    stream: Streaming<WatchOrdersResponse>,
    token: String,
}

impl Watch {
    pub async fn start(system: &System, request: WatchOrdersRequest) -> Watch {
        let stream = system.orders().watch_orders(request).await.expect("a watch").into_inner();
        let mut watch = Watch { stream, token: String::new() };
        let first = watch.message().await;
        assert_eq!(first.event(), OrderEvent::Bookmark);
        watch
    }

    async fn resume(system: &System, token: &str) -> Watch {
        Watch::start(system, WatchOrdersRequest { resume_token: token.to_owned(), ..Default::default() })
            .await
    }

    async fn message(&mut self) -> WatchOrdersResponse {
        let next = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("a message in time");
        let message = next.expect("no error").expect("no end");
        self.token.clone_from(&message.resume_token);
        message
    }

    /// The next change: order id and status.
    pub async fn change(&mut self) -> (String, OrderStatus) {
        loop {
            let message = self.message().await;
            if let Some(order) = message.order {
                return (order.order_id.clone(), order.status());
            }
        }
    }
}

#[tokio::test]
async fn a_watch_sees_every_change_in_order() {
    let system = System::builder().stock("lamp", 9).gateways(2).start().await;
    let mut watch = Watch::start(&system, WatchOrdersRequest::default()).await;
    for _ in 0..3 {
        let order = system.order("lamp", 1).await.unwrap();
        system.update(&order, OrderStatus::Cancelled, "").await.unwrap();
        assert_eq!(watch.change().await, (order.order_id.clone(), OrderStatus::Pending));
        assert_eq!(watch.change().await, (order.order_id, OrderStatus::Cancelled));
    }
}

#[tokio::test]
async fn a_watch_of_a_customer_or_an_order_sees_only_those() {
    let system = System::builder().stock("lamp", 9).start().await;
    let customer = WatchOrdersRequest { customer_id: "bob".to_owned(), ..Default::default() };
    let mut of_bob = Watch::start(&system, customer.clone()).await;
    system.order("lamp", 1).await.unwrap();
    let bobs = system.place(&new_order("lamp", 1).by("bob")).await.unwrap();
    let mut of_order =
        Watch::start(&system, WatchOrdersRequest { order_id: bobs.order_id.clone(), ..Default::default() })
            .await;
    system.place(&new_order("lamp", 1).by("bob")).await.unwrap();
    system.update(&bobs, OrderStatus::Confirmed, "").await.unwrap();
    assert_eq!(of_bob.change().await.0, bobs.order_id);
    assert_ne!(of_bob.change().await.0, bobs.order_id);
    assert_eq!(of_order.change().await, (bobs.order_id.clone(), OrderStatus::Confirmed));
    let both = WatchOrdersRequest { order_id: bobs.order_id, ..customer };
    assert_refused(system.orders().watch_orders(both).await, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_watch_resumes_across_gateways_and_their_restart_without_gap_or_duplicate() {
    let mut system = System::builder().stock("lamp", 99).start().await;
    let mut watch = Watch::start(&system, WatchOrdersRequest::default()).await;
    let mut placed = vec![system.order("lamp", 1).await.unwrap().order_id];
    let mut seen = vec![watch.change().await.0];
    for round in 0..3 {
        let token = watch.token.clone();
        for _ in 0..3 {
            placed.push(system.order("lamp", 1).await.unwrap().order_id);
        }
        if round > 0 {
            // A new gateway does not have this part of the history in memory, and reads it from the stream.
            system.add_gateway().await;
            system.drain_gateway().await;
        }
        placed.push(system.order("lamp", 1).await.unwrap().order_id);
        watch = Watch::resume(&system, &token).await;
        for _ in 0..4 {
            seen.push(watch.change().await.0);
        }
    }
    placed.push(system.order("lamp", 1).await.unwrap().order_id);
    seen.push(watch.change().await.0);
    assert_eq!(seen, placed);
}

#[tokio::test]
async fn a_watch_goes_on_when_the_nats_server_was_away() {
    let mut system = System::builder().stock("lamp", 9).start().await;
    let mut watch = Watch::start(&system, WatchOrdersRequest::default()).await;
    let first = system.order("lamp", 1).await.unwrap();
    assert_eq!(watch.change().await.0, first.order_id);
    system.nats.kill();
    system.nats.restart().expect("the nats-server again");
    let after = new_order("lamp", 1).id("after");
    let mut second = None;
    until("orders can be placed again", async || {
        second = system.place(&after).await.ok();
        second.is_some()
    })
    .await;
    assert_eq!(watch.change().await.0, second.unwrap().order_id);
}

#[tokio::test]
async fn a_gateway_that_drains_ends_its_watches_with_a_token() {
    let mut system = System::builder().stock("lamp", 9).start().await;
    let mut watch = Watch::start(&system, WatchOrdersRequest::default()).await;
    system.add_gateway().await;
    system.drain_gateway().await;
    let status = loop {
        match tokio::time::timeout(PATIENCE, watch.stream.message()).await.expect("an end in time") {
            Ok(message) => assert_eq!(message.expect("an error at the end").event(), OrderEvent::Bookmark),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&status), "DRAINING");
    let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    let order = system.order("lamp", 1).await.unwrap();
    let mut watch = Watch::resume(&system, &info.metadata["resume_token"]).await;
    assert_eq!(watch.change().await.0, order.order_id);
}

#[tokio::test]
async fn tokens_that_were_tampered_with_are_refused() {
    let system = System::builder().start().await;
    let watch = Watch::start(&system, WatchOrdersRequest::default()).await;
    let mut tokens = vec!["x".to_owned(), "*".to_owned(), format!("{}A", watch.token)];
    for place in [0, watch.token.len() / 2, watch.token.len() - 2] {
        let mut token = watch.token.clone().into_bytes();
        token[place] = if token[place] == b'x' { b'y' } else { b'x' };
        tokens.push(String::from_utf8(token).unwrap());
    }
    for resume_token in tokens {
        let request = WatchOrdersRequest { resume_token, ..Default::default() };
        assert_refused(system.orders().watch_orders(request).await, "INVALID_REQUEST");
    }
}
