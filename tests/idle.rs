//! Connections without calls: they are closed with GOAWAY (NO_ERROR), and at the connection limit the one that has been
//! idle longest is closed for a new one.

use std::time::Duration;

use contract::orders::v1::WatchOrdersRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use crate::shop::{PATIENCE, Shop};
use crate::wire::{self, End, Line};

fn limit() -> Instant {
    Instant::now() + PATIENCE
}

/// A connection that never calls.
async fn idle(shop: &Shop) -> Line {
    Line::open(shop.gateways[0].grpc_addr(), &[]).await.unwrap()
}

/// Whether a new connection can call.
async fn is_served(shop: &Shop) -> bool {
    let door = Endpoint::from_shared(format!("http://{}", shop.gateways[0].grpc_addr())).unwrap();
    let Ok(channel) = door.connect().await else { return false };
    OrderServiceClient::new(channel).list_orders(tonic::Request::new(Default::default())).await.is_ok()
}

#[tokio::test]
async fn a_connection_without_a_call_gets_a_goaway_and_one_with_a_watch_does_not() {
    let shop = Shop::open()
        .stock("lamp", 9)
        .each_gateway(|config| config.limits.max_connection_idle = Duration::from_secs(1))
        .ready()
        .await;
    let mut watch = shop.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a bookmark");
    for _ in 0..3 {
        assert_eq!(idle(&shop).await.ended(limit()).await, Some(End::Goodbye(0)));
    }
    let order = shop.order("lamp", 1).await.unwrap();
    let change = tokio::time::timeout(PATIENCE, watch.message()).await.expect("in time").unwrap().unwrap();
    assert_eq!(change.order.unwrap().order_id, order.order_id);
}

#[tokio::test]
async fn the_connection_that_is_idle_longest_gives_way_to_a_newcomer() {
    let shop = Shop::open().each_gateway(|config| config.limits.max_connections = Some(3)).ready().await;
    // The harness has one connection, which the watch keeps from being idle.
    let mut watch = shop.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a bookmark");
    let mut first = idle(&shop).await;
    // With SETTINGS received, it counts towards the limit.
    first.until(limit(), |seen| seen[usize::from(wire::SETTINGS)] >= 1).await.unwrap();
    let mut second = idle(&shop).await;
    second.until(limit(), |seen| seen[usize::from(wire::SETTINGS)] >= 1).await.unwrap();
    assert!(!is_served(&shop).await, "nobody has been idle for long");
    let begun = Instant::now();
    while !is_served(&shop).await {
        assert!(begun.elapsed() < 3 * PATIENCE, "nobody gives way");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(first.ended(limit()).await, Some(End::Goodbye(0)));
    assert_eq!(second.until(Instant::now() + Duration::from_millis(500), |_| false).await, Ok(false));
    assert!(shop.check("lamp").await.is_ok());
}
