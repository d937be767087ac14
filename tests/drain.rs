//! A gateway that ends: callers that go on elsewhere lose nothing, and nobody holds it up.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{WatchOrdersRequest, WatchOrdersResponse};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

use crate::shop::{PATIENCE, Shop, reason, until, wish};

/// Far below the limit of a drain, which is 20 s.
const SOON: Duration = Duration::from_secs(10);
const TASKS: usize = 16;
const CONNECTIONS: usize = 4;

/// One client's connections to two gateways, the first of which goes away.
#[derive(Clone)]
struct Doors(Vec<Channel>);

impl Doors {
    fn of(shop: &Shop) -> Doors {
        let door = |gateway: &gateway::Gateway| {
            Endpoint::from_shared(format!("http://{}", gateway.grpc_addr())).unwrap().connect_lazy()
        };
        Doors(shop.gateways.iter().map(door).collect())
    }

    /// Places an order at the first door that is open.
    async fn place(&self, id: &str) -> Result<String, Status> {
        let limit = Instant::now() + PATIENCE;
        let mut door = 0;
        loop {
            let mut client = OrderServiceClient::new(self.0[door % self.0.len()].clone());
            match client.create_order(wish("lamp", 1).id(id).request).await {
                Ok(reply) => return Ok(reply.into_inner().order.unwrap().order_id),
                Err(status) if closed(&status) && Instant::now() < limit => door += 1,
                Err(status) => return Err(status),
            }
        }
    }
}

/// Whether to go on elsewhere. A call that had not reached the gateway when it said goodbye has no status of it: where
/// other clients repeat it by themselves, tonic's says CANCELLED if it was not sent, or INTERNAL if it was sent after
/// the last that the GOAWAY counts, and names the transport's error as the source.
fn closed(status: &Status) -> bool {
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
    let mut shop = Shop::open().stock("lamp", 1_000_000).gateways(2).ready().await;
    let (stop, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let doors: Vec<Doors> = (0..CONNECTIONS).map(|_| Doors::of(&shop)).collect();
    let buyer = |number: usize| {
        let (doors, stop, placed) = (doors[number % CONNECTIONS].clone(), stop.clone(), placed.clone());
        tokio::spawn(async move {
            let mut orders = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                orders
                    .push(doors.place(&format!("buyer-{number}-{}", orders.len())).await.expect("an order"));
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
    let start = Instant::now();
    shop.close_gateway().await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    so_many(200).await;
    stop.store(true, Ordering::Relaxed);
    let mut orders = Vec::new();
    for buyer in buyers {
        orders.extend(buyer.await.expect("no call was lost"));
    }
    let (all, (_, reserved)) = (orders.len(), shop.stock("lamp").await);
    orders.sort_unstable();
    orders.dedup();
    assert_eq!((orders.len(), reserved as usize), (all, all));
}

async fn watch(shop: &Shop) -> Streaming<WatchOrdersResponse> {
    let mut watch = shop.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("a bookmark");
    watch
}

#[tokio::test]
async fn a_drain_is_not_held_up_by_watches_silent_peers_and_reflection() {
    let mut shop = Shop::open().ready().await;
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(watch(&shop).await);
    }
    let _silent = TcpStream::connect(shop.gateways[0].grpc_addr()).unwrap();
    let questions = futures_util::stream::pending::<ServerReflectionRequest>();
    let mut reflection = ServerReflectionClient::new(shop.channel());
    let _answers = reflection.server_reflection_info(questions).await.unwrap();
    let start = Instant::now();
    shop.close_gateway().await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    for mut watch in watches {
        let end = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an end in time").unwrap_err();
        let info = end.get_details_error_info().expect("details");
        assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
        assert!(!info.metadata["resume_token"].is_empty());
    }
}
