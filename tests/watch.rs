//! WatchOrders: no change is left out, and none comes twice.

use contract::orders::v1::{OrderEvent, OrderStatus, WatchOrdersRequest, WatchOrdersResponse};
use tonic::Streaming;

use crate::shop::{PATIENCE, Shop, assert_refused, reason, until, wish};

/// A watch after its first bookmark.
pub struct Watch {
    stream: Streaming<WatchOrdersResponse>,
    token: String,
}

impl Watch {
    pub async fn start(shop: &Shop, request: WatchOrdersRequest) -> Watch {
        let stream = shop.orders().watch_orders(request).await.expect("a watch").into_inner();
        let mut watch = Watch { stream, token: String::new() };
        let first = watch.message().await;
        assert_eq!(first.event(), OrderEvent::Bookmark);
        watch
    }

    async fn resume(shop: &Shop, token: &str) -> Watch {
        Watch::start(shop, WatchOrdersRequest { resume_token: token.to_owned(), ..Default::default() }).await
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
    let shop = Shop::open().stock("lamp", 9).gateways(2).ready().await;
    let mut watch = Watch::start(&shop, WatchOrdersRequest::default()).await;
    for _ in 0..3 {
        let order = shop.order("lamp", 1).await.unwrap();
        shop.update(&order, OrderStatus::Cancelled, "").await.unwrap();
        assert_eq!(watch.change().await, (order.order_id.clone(), OrderStatus::Pending));
        assert_eq!(watch.change().await, (order.order_id, OrderStatus::Cancelled));
    }
}

#[tokio::test]
async fn a_watch_of_a_customer_or_an_order_sees_only_those() {
    let shop = Shop::open().stock("lamp", 9).ready().await;
    let customer = WatchOrdersRequest { customer_id: "bob".to_owned(), ..Default::default() };
    let mut of_bob = Watch::start(&shop, customer.clone()).await;
    shop.order("lamp", 1).await.unwrap();
    let bobs = shop.place(&wish("lamp", 1).by("bob")).await.unwrap();
    let mut of_order =
        Watch::start(&shop, WatchOrdersRequest { order_id: bobs.order_id.clone(), ..Default::default() })
            .await;
    shop.place(&wish("lamp", 1).by("bob")).await.unwrap();
    shop.update(&bobs, OrderStatus::Confirmed, "").await.unwrap();
    assert_eq!(of_bob.change().await.0, bobs.order_id);
    assert_ne!(of_bob.change().await.0, bobs.order_id);
    assert_eq!(of_order.change().await, (bobs.order_id.clone(), OrderStatus::Confirmed));
    let both = WatchOrdersRequest { order_id: bobs.order_id, ..customer };
    assert_refused(shop.orders().watch_orders(both).await, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_watch_resumes_across_gateways_and_their_restart_without_gap_or_duplicate() {
    let mut shop = Shop::open().stock("lamp", 99).ready().await;
    let mut watch = Watch::start(&shop, WatchOrdersRequest::default()).await;
    let mut placed = vec![shop.order("lamp", 1).await.unwrap().order_id];
    let mut seen = vec![watch.change().await.0];
    for round in 0..3 {
        let token = watch.token.clone();
        for _ in 0..3 {
            placed.push(shop.order("lamp", 1).await.unwrap().order_id);
        }
        if round > 0 {
            // A new gateway does not have this part of the history in memory, and reads it from the stream.
            shop.open_gateway().await;
            shop.close_gateway().await;
        }
        placed.push(shop.order("lamp", 1).await.unwrap().order_id);
        watch = Watch::resume(&shop, &token).await;
        for _ in 0..4 {
            seen.push(watch.change().await.0);
        }
    }
    placed.push(shop.order("lamp", 1).await.unwrap().order_id);
    seen.push(watch.change().await.0);
    assert_eq!(seen, placed);
}

#[tokio::test]
async fn a_watch_goes_on_when_the_nats_server_was_away() {
    let mut shop = Shop::open().stock("lamp", 9).ready().await;
    let mut watch = Watch::start(&shop, WatchOrdersRequest::default()).await;
    let first = shop.order("lamp", 1).await.unwrap();
    assert_eq!(watch.change().await.0, first.order_id);
    shop.nats.kill();
    shop.nats.restart().expect("the nats-server again");
    let wish = wish("lamp", 1).id("after");
    let mut second = None;
    until("orders can be placed again", async || {
        second = shop.place(&wish).await.ok();
        second.is_some()
    })
    .await;
    assert_eq!(watch.change().await.0, second.unwrap().order_id);
}

#[tokio::test]
async fn a_gateway_that_drains_ends_its_watches_with_a_token() {
    let mut shop = Shop::open().stock("lamp", 9).ready().await;
    let mut watch = Watch::start(&shop, WatchOrdersRequest::default()).await;
    shop.open_gateway().await;
    shop.close_gateway().await;
    let status = loop {
        match tokio::time::timeout(PATIENCE, watch.stream.message()).await.expect("an end in time") {
            Ok(message) => assert_eq!(message.expect("an error at the end").event(), OrderEvent::Bookmark),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&status), "DRAINING");
    let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    let order = shop.order("lamp", 1).await.unwrap();
    let mut watch = Watch::resume(&shop, &info.metadata["resume_token"]).await;
    assert_eq!(watch.change().await.0, order.order_id);
}

#[tokio::test]
async fn tokens_that_were_tampered_with_are_refused() {
    let shop = Shop::open().ready().await;
    let watch = Watch::start(&shop, WatchOrdersRequest::default()).await;
    let mut tokens = vec!["x".to_owned(), "*".to_owned(), format!("{}A", watch.token)];
    for place in [0, watch.token.len() / 2, watch.token.len() - 2] {
        let mut token = watch.token.clone().into_bytes();
        token[place] = if token[place] == b'x' { b'y' } else { b'x' };
        tokens.push(String::from_utf8(token).unwrap());
    }
    for resume_token in tokens {
        let request = WatchOrdersRequest { resume_token, ..Default::default() };
        assert_refused(shop.orders().watch_orders(request).await, "INVALID_REQUEST");
    }
}
