//! Drain of a gateway: callers that continue at another gateway lose nothing, and no client delays it.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{WatchOrdersRequest, WatchOrdersResponse};
use futures_util::StreamExt as _;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

use crate::harness::http::get;
use crate::harness::proxy::Proxy;
use crate::harness::system::{PATIENCE, System, new_order, reason, until};

/// Far below a drain's limit of 20 s.
const SOON: Duration = Duration::from_secs(10);
/// How a publish to the ledger begins on the wire.
const APPEND: &str = "PUB inventory.ledger ";
const TASKS: usize = 16;
const CONNECTIONS: usize = 4;

/// Connections to two gateways, the first of which drains.
#[derive(Clone)]
struct Gateways(Vec<Channel>);

impl Gateways {
    fn of(system: &System) -> Gateways {
        let channel = |gateway: &gateway::Gateway| {
            Endpoint::from_shared(format!("http://{}", gateway.grpc_addr())).unwrap().connect_lazy()
        };
        Gateways(system.gateways.iter().map(channel).collect())
    }

    /// Places an order at the first gateway that accepts it.
    async fn place(&self, id: &str) -> Result<String, Status> {
        let limit = Instant::now() + PATIENCE;
        let mut turn = 0;
        loop {
            let mut client = OrderServiceClient::new(self.0[turn % self.0.len()].clone());
            match client.create_order(new_order("lamp", 1).id(id).request).await {
                Ok(reply) => return Ok(reply.into_inner().order.unwrap().order_id),
                Err(status) if closed(&status) && Instant::now() < limit => turn += 1,
                Err(status) => return Err(status),
            }
        }
    }
}

/// Whether to continue at another gateway. A call that had not reached the gateway before its GOAWAY has no status of
/// the gateway. Other clients retry it by themselves. tonic's returns CANCELLED if it was not sent, or INTERNAL if it
/// was sent after the last stream that the GOAWAY covers, with the transport's error as the source.
pub fn closed(status: &Status) -> bool {
    let source = std::error::Error::source(status).map(|error| format!("{error:?}")).unwrap_or_default();
    match status.code() {
        Code::Unavailable => true,
        Code::Cancelled => source.contains("Canceled"),
        Code::Internal => source.contains("NO_ERROR, Remote"),
        _ => false,
    }
}

#[tokio::test]
async fn a_gateway_drains_under_constant_load_and_no_call_is_lost() {
    let mut system = System::builder().stock("lamp", 1_000_000).gateways(2).start().await;
    let (stop, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let in_flight = Arc::new(AtomicUsize::new(0));
    let gateways: Vec<Gateways> = (0..CONNECTIONS).map(|_| Gateways::of(&system)).collect();
    let buyer = |number: usize| {
        let (gateways, stop) = (gateways[number % CONNECTIONS].clone(), stop.clone());
        let (placed, in_flight) = (placed.clone(), in_flight.clone());
        tokio::spawn(async move {
            let mut orders = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                in_flight.fetch_add(1, Ordering::Relaxed);
                let order = gateways.place(&format!("buyer-{number}-{}", orders.len())).await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
                orders.push(order.expect("an order"));
                placed.fetch_add(1, Ordering::Relaxed);
            }
            orders
        })
    };
    let buyers: Vec<_> = (0..TASKS).map(buyer).collect();
    let so_many = async |more: usize| {
        let goal = placed.load(Ordering::Relaxed) + more;
        until("orders are placed", async || placed.load(Ordering::Relaxed) >= goal).await;
    };
    so_many(200).await;
    assert!(in_flight.load(Ordering::Relaxed) > 0, "calls are in flight when the drain begins");
    let start = Instant::now();
    system.drain_gateway().await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    so_many(200).await;
    stop.store(true, Ordering::Relaxed);
    let mut orders = Vec::new();
    for buyer in buyers {
        orders.extend(buyer.await.expect("no call was lost"));
    }
    let (all, (_, reserved)) = (orders.len(), system.stock("lamp").await);
    orders.sort_unstable();
    orders.dedup();
    assert_eq!((orders.len(), reserved as usize), (all, all));
}

async fn watch(mut client: OrderServiceClient<Channel>) -> Streaming<WatchOrdersResponse> {
    let mut watch = client.watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a bookmark");
    watch
}

/// A peer that sends the HTTP/2 preface and nothing more.
fn preface(gateway: &gateway::Gateway) -> TcpStream {
    let mut peer = TcpStream::connect(gateway.grpc_addr()).unwrap();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    peer
}

/// Waits until this many requests have been sent on a subject.
async fn sent(spy: &mut async_nats::Subscriber, count: usize) {
    let all = async {
        for _ in 0..count {
            spy.next().await.expect("a request");
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all are in flight");
}

#[tokio::test]
async fn a_drain_finishes_calls_in_flight_and_hands_watches_over() {
    let mut system = System::builder().workers(0).gateways(2).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.worker.nats.connection = nats::Options::at(proxy.url());
    system.add_worker().await;
    until("they are found", async || {
        system.gateways.iter().all(|one| one.up("orders.v1.OrderService") == Some(true))
    })
    .await;
    system.adjust("lamp", 1_000).await.unwrap();
    let gateways = Gateways::of(&system);
    let client = || OrderServiceClient::new(gateways.0[0].clone());
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(watch(client()).await);
    }
    let gateway = system.gateways.remove(0);
    let _peers = [TcpStream::connect(gateway.grpc_addr()).unwrap(), preface(&gateway)];
    let mut spy = system.nats().await.subscribe("check_inventory").await.unwrap();
    proxy.hold();
    let place = |_| {
        let mut client = client();
        tokio::spawn(async move { client.create_order(new_order("lamp", 1).request).await })
    };
    let calls: Vec<_> = (0..200).map(place).collect();
    sent(&mut spy, 200).await;

    let start = Instant::now();
    let drain = tokio::spawn(gateway.drain());
    let mut tokens = Vec::new();
    for mut watch in watches {
        let end = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an end in time").unwrap_err();
        let info = end.get_details_error_info().expect("details");
        assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
        tokens.push(info.metadata["resume_token"].clone());
    }
    proxy.restore();
    let mut placed: Vec<String> = Vec::new();
    for call in calls {
        placed
            .push(call.await.unwrap().expect("every call is answered").into_inner().order.unwrap().order_id);
    }
    drain.await.expect("the gateway drained");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());

    let resumed = WatchOrdersRequest { resume_token: tokens.remove(7), ..WatchOrdersRequest::default() };
    let mut elsewhere = OrderServiceClient::new(gateways.0[1].clone());
    let mut watch = elsewhere.watch_orders(resumed).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < placed.len() {
        let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an event in time").unwrap();
        seen.extend(next.unwrap().order.map(|order| order.order_id));
    }
    placed.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, placed);
}

#[tokio::test]
async fn a_worker_that_drains_answers_what_is_in_flight_and_silent_peers_do_not_hold_it() {
    let mut system = System::builder().workers(0).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.worker.nats.connection = nats::Options::at(proxy.url());
    system.add_worker().await;
    until("the worker is found", async || system.adjust("lamp", 1_000).await.is_ok()).await;
    let nats = system.nats().await;
    let reserve = |_| {
        let nats = nats.clone();
        let items = serde_json::json!({"orderId": uuid::Uuid::new_v4(), "items": [{"productId": "lamp", "quantity": 1}]});
        tokio::spawn(async move { nats.request("reserve_inventory", items.to_string().into()).await })
    };
    let first = system.workers.remove(0);
    let _silent = TcpStream::connect(first.health().await).unwrap();
    // It takes requests, and nothing that it appends is acknowledged.
    proxy.hold_after(APPEND);
    let calls: Vec<_> = (0..200).map(reserve).collect();
    until("the worker has all in flight", async || first.in_flight().await == 200).await;
    let start = Instant::now();
    tokio::join!(first.drain(), async { proxy.restore() });
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    for call in calls {
        let reply = call.await.unwrap().expect("every request is answered");
        assert!(reply.headers.is_none_or(|headers| headers.get("Nats-Service-Error").is_none()));
    }
    system.add_worker().await;
    until("the next one serves", async || system.check("lamp").await.is_ok()).await;
    assert_eq!(system.stock("lamp").await, (1_000, 200));
}

#[tokio::test]
async fn a_worker_whose_nats_is_gone_still_ends_soon_and_in_order() {
    let mut system = System::builder().workers(0).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.worker.nats.connection = nats::Options::at(proxy.url());
    system.add_worker().await;
    let worker = system.workers.remove(0);
    // A request in flight, whose append is not acknowledged.
    proxy.hold_after(APPEND);
    let nats = system.nats().await;
    let stock = r#"{"requestId":"first","adjustments":[{"productId":"lamp","delta":5}]}"#;
    let _call = tokio::spawn(async move { nats.request("adjust_stock", stock.into()).await });
    until("the worker has it in flight", async || worker.in_flight().await == 1).await;
    system.nats.kill();
    proxy.cut();
    let start = Instant::now();
    worker.drain().await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_drain_is_not_held_up_by_watches_silent_peers_and_reflection() {
    let mut system = System::builder().start().await;
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(watch(system.orders()).await);
    }
    let _silent = TcpStream::connect(system.gateways[0].grpc_addr()).unwrap();
    let http = system.gateways[0].http_addr();
    let accepted = async || get(http, "/metrics").await.contains("\ngateway_connections 2\n");
    until("the silent peer is accepted", accepted).await;
    let questions = futures_util::stream::pending::<ServerReflectionRequest>();
    let mut reflection = ServerReflectionClient::new(system.channel());
    let _answers = reflection.server_reflection_info(questions).await.unwrap();
    let start = Instant::now();
    system.drain_gateway().await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    for mut watch in watches {
        let end = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an end in time").unwrap_err();
        let info = end.get_details_error_info().expect("details");
        assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
        assert!(!info.metadata["resume_token"].is_empty());
    }
}
