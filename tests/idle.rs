//! Connections without calls: they are closed with GOAWAY (NO_ERROR), and at the connection limit the one that has been
//! idle longest is closed for a new one.

use std::time::Duration;

use contract::orders::v1::WatchOrdersRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use crate::harness::frames::{self, End, Line};
use crate::harness::system::{PATIENCE, System};

fn limit() -> Instant {
    Instant::now() + PATIENCE
}

/// A connection that never calls.
async fn idle(system: &System) -> Line {
    Line::open(system.gateways[0].grpc_addr(), &[]).await.unwrap()
}

/// Whether a new connection can call.
async fn is_served(system: &System) -> bool {
    let endpoint = Endpoint::from_shared(format!("http://{}", system.gateways[0].grpc_addr())).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    OrderServiceClient::new(channel).list_orders(tonic::Request::new(Default::default())).await.is_ok()
}

#[tokio::test]
async fn a_connection_without_a_call_gets_a_goaway_and_one_with_a_watch_does_not() {
    let system = System::builder()
        .stock("lamp", 9)
        .each_gateway(|config| config.limits.max_connection_idle = Duration::from_secs(1))
        .start()
        .await;
    let mut watch = system.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a bookmark");
    for _ in 0..3 {
        assert_eq!(idle(&system).await.ended(limit()).await, Some(End::Goodbye(0)));
    }
    let order = system.order("lamp", 1).await.unwrap();
    let change = tokio::time::timeout(PATIENCE, watch.message()).await.expect("in time").unwrap().unwrap();
    assert_eq!(change.order.unwrap().order_id, order.order_id);
}

#[tokio::test]
async fn the_connection_that_is_idle_longest_gives_way_to_a_newcomer() {
    let system =
        System::builder().each_gateway(|config| config.limits.max_connections = Some(3)).start().await;
    // The harness has one connection, which the watch keeps from being idle.
    let mut watch = system.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a bookmark");
    let mut first = idle(&system).await;
    // With SETTINGS received, it counts towards the limit.
    first.until(limit(), |seen| seen[usize::from(frames::SETTINGS)] >= 1).await.unwrap();
    let mut second = idle(&system).await;
    second.until(limit(), |seen| seen[usize::from(frames::SETTINGS)] >= 1).await.unwrap();
    assert!(!is_served(&system).await, "nobody has been idle for long");
    let begun = Instant::now();
    while !is_served(&system).await {
        assert!(begun.elapsed() < 3 * PATIENCE, "nobody gives way");
        // Between two looks.
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(first.ended(limit()).await, Some(End::Goodbye(0)));
    // Nothing happens to it for a second.
    assert_eq!(second.until(Instant::now() + Duration::from_secs(1), |_| false).await, Ok(false));
    assert!(system.check("lamp").await.is_ok());
}
