//! Overload: too many connections, silent peers, calls, and watches that are not read. What exceeds a limit is refused
//! at once, and the rest is not affected.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CheckInventoryRequest, OrderEvent, WatchOrdersRequest};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::harness::client::settled;
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{PATIENCE, System, new_order, reason, until};

fn endpoint(system: &System) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", system.gateways[0].grpc_addr())).unwrap()
}

/// Whether the peer closes a silent connection within some time.
async fn closed(peer: TcpStream) -> bool {
    let read = tokio::task::spawn_blocking(move || {
        let mut peer = peer;
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).is_ok()
    });
    read.await.unwrap()
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_another_fits_when_one_has_left() {
    let system =
        System::builder().each_gateway(|config| config.limits.max_connections = Some(3)).start().await;
    // The harness has one connection.
    let (first, second) =
        (endpoint(&system).connect().await.unwrap(), endpoint(&system).connect().await.unwrap());
    for channel in [&first, &second] {
        OrderServiceClient::new(channel.clone()).list_orders(Request::new(Default::default())).await.unwrap();
    }
    assert!(closed(TcpStream::connect(system.gateways[0].grpc_addr()).unwrap()).await);
    assert!(system.check("lamp").await.is_ok());
    drop(first);
    until("there is room again", async || {
        let Ok(next) = endpoint(&system).connect().await else { return false };
        OrderServiceClient::new(next).list_orders(Request::new(Default::default())).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed() {
    let system = System::builder().workers(0).start().await;
    assert!(closed(TcpStream::connect(system.gateways[0].grpc_addr()).unwrap()).await);
}

#[tokio::test]
async fn a_flood_of_checks_is_shed_at_once_and_leaves_orders_alone() {
    let system = System::builder()
        .stock("lamp", 100)
        .each_gateway(|config| config.limits.max_in_flight = 8)
        .start()
        .await;
    let items = new_order("lamp", 1).request.items;
    let check = || {
        let (mut client, items) = (system.orders(), items.clone());
        async move { client.check_inventory(CheckInventoryRequest { items }).await }
    };
    let flood = join_all((0..400).map(|_| check()));
    let orders = join_all((0..8).map(|_| system.order("lamp", 1)));
    let (flood, orders) = tokio::join!(flood, orders);
    assert!(orders.iter().all(Result::is_ok), "{orders:?}");
    let shed: Vec<_> = flood.into_iter().filter(Result::is_err).collect();
    assert!(!shed.is_empty());
    for shed in shed {
        assert_retryable(&assert_failure(shed, Code::ResourceExhausted, "OVERLOADED", "no"));
    }
}

/// A service that answers so many requests at a time, each after the same while.
async fn slow_service(system: &System, at_once: usize, takes: Duration) -> Arc<AtomicUsize> {
    let client = system.nats().await;
    let requests = client.subscribe("check_inventory").await.unwrap();
    settled(&client).await;
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    tokio::spawn(requests.for_each_concurrent(at_once, move |request| {
        let (client, count) = (client.clone(), count.clone());
        async move {
            // The service's time.
            tokio::time::sleep(takes).await;
            count.fetch_add(1, Ordering::Relaxed);
            let answer = r#"{"available":true,"items":[{"productId":"lamp","requested":1,"available":1}]}"#;
            let _ = client.publish(request.reply.unwrap(), answer.into()).await;
        }
    }));
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_slow_service_as_many_calls_are_admitted_as_end_in_time() {
    let system = System::builder().workers(0).start().await;
    // The capacity is 100 calls per second: so few that a busy machine is not what makes calls late.
    let served = slow_service(&system, 8, Duration::from_millis(80)).await;
    let items = new_order("lamp", 1).request.items;
    let (ok, stop) = (Arc::new(AtomicUsize::new(0)), tokio_util::sync::CancellationToken::new());
    let callers = (0..500).map(|_| {
        let (mut client, items, ok, stop) = (system.orders(), items.clone(), ok.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let mut request = Request::new(CheckInventoryRequest { items: items.clone() });
                request.metadata_mut().insert("grpc-timeout", "2000m".parse().unwrap());
                match client.check_inventory(request).await {
                    Ok(_) => drop(ok.fetch_add(1, Ordering::Relaxed)),
                    // A client's pause before its next call.
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let reaches = async |goal: usize| {
        until("it is served", async || served.load(Ordering::Relaxed) >= goal).await;
        (served.load(Ordering::Relaxed), ok.load(Ordering::Relaxed))
    };
    // Without an adaptive concurrency limit, 500 calls wait for 5 s each, and every reply comes too late. A busy
    // machine may need more than one try.
    let mut before = reaches(600).await;
    let mut looks = Vec::new();
    while looks.len() < 20 && !looks.iter().any(|&(served, used): &(usize, usize)| used * 2 > served) {
        let after = reaches(before.0 + 300).await;
        looks.push((after.0 - before.0, after.1 - before.1));
        before = after;
    }
    assert!(
        looks.iter().any(|&(served, used): &(usize, usize)| used * 2 > served),
        "answers, and those in time: {looks:?}"
    );
    stop.cancel();
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_that_is_not_read_is_ended_with_a_token_and_the_others_miss_nothing() {
    let system = System::builder().start().await;
    let mut slow = OrderServiceClient::new(
        endpoint(&system).initial_stream_window_size(70_000).connect().await.unwrap(),
    );
    let mut slow = slow.watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    let mut quick = system.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    let mut last = slow.message().await.unwrap().expect("a bookmark");
    // More than the 32 MiB that are kept for watches that lag: orders of 500 items with long names.
    let product = |n| format!("a-product-with-a-name-as-long-as-it-may-be-just-to-fill-it-{n:04}");
    let lines = (0..500).map(|n| Adjustment { product_id: product(n), delta: 1_000_000 }).collect();
    let request_id = "first".to_owned();
    let stock = AdjustStockRequest { request_id, adjustments: lines, reason: String::new() };
    system.inventory().adjust_stock(stock).await.unwrap();
    let many = (1..500).fold(new_order(&product(0), 1), |order, n| order.and(&product(n), 1));
    let count = 850;
    let placing = async {
        let mut orders =
            futures_util::stream::iter(0..count).map(|_| system.place(&many)).buffer_unordered(64);
        let mut placed = 0;
        while let Some(order) = orders.next().await {
            placed += usize::from(order.is_ok());
            // A connection whose client reads nothing for 35 s is closed, and a busy machine needs that long for all.
            if placed % 100 == 0 && placed <= 400 {
                last = slow.message().await.unwrap().expect("a change");
            }
        }
        placed
    };
    let reading = async {
        let mut seen = 0;
        while seen < count {
            let message =
                tokio::time::timeout(PATIENCE, quick.message()).await.expect("in time").unwrap().unwrap();
            seen +=
                usize::from(message.event() == OrderEvent::Created && message.order.unwrap().items.len() > 1);
        }
        seen
    };
    let (placed, seen) = tokio::join!(placing, reading);
    assert_eq!((placed, seen), (count, count));
    let end = loop {
        match tokio::time::timeout(PATIENCE, slow.message()).await.expect("an end in time") {
            Ok(message) => last = message.expect("a change, until it ends"),
            Err(end) => break end,
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "SLOW_WATCHER"));
    let token = end.get_details_error_info().unwrap().metadata["resume_token"].clone();
    assert_eq!(token, last.resume_token);
    let resumed = WatchOrdersRequest { resume_token: token, ..WatchOrdersRequest::default() };
    let mut resumed = system.orders().watch_orders(resumed).await.unwrap().into_inner();
    let mut rest = 0;
    while rest == 0 {
        let message =
            tokio::time::timeout(PATIENCE, resumed.message()).await.expect("in time").unwrap().unwrap();
        rest += usize::from(message.order.is_some());
    }
}
