//! A test fixture: a real nats-server, the streams, and a fake inventory service with scripted answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use async_nats::{Client, HeaderMap, Message};
use contract::header;
use contract::inventory::v1 as inventory;
use contract::orders::v1 as pb;
use futures_util::StreamExt;
use local_nats::Server;
use nats::{Connection, Options, Store};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use wire::Failure;

use super::{Feed, Limits};
use crate::service::{Orders, Places};
use bridge::Bridge;
use bridge::call::CallContext;
use contract::subject::entries;
use server::supervisor::Supervisor;

pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) link: Connection,
    pub(crate) identity: String,
    pub(crate) feed: Arc<Feed>,
    pub(crate) orders: Orders,
    pub(crate) inventory: Arc<FakeInventory>,
    /// Work that goes on without its caller.
    tasks: TaskTracker,
}

/// The fake inventory service.
#[derive(Default)]
pub(crate) struct FakeInventory {
    /// Answers to reserve requests; once they are used up, the fence is the order's tombstone, or 0.
    pub(crate) reserve: Mutex<VecDeque<Result<i64, Failure>>>,
    /// What `check_inventory` says is missing.
    pub(crate) short: Mutex<bool>,
    /// Whether its answer leaves an item out.
    pub(crate) omits_an_item: Mutex<bool>,
    /// Whether every reservation is given up before its order is recorded.
    pub(crate) expires_reservations: Mutex<bool>,
    /// Whether reservations are made but their answers are lost.
    pub(crate) loses_answers: Mutex<bool>,
    /// The number of reserve requests so far.
    pub(crate) reserve_requests: Mutex<usize>,
    /// How long a reservation takes.
    pub(crate) delay: Mutex<Duration>,
    /// The orders whose release was requested.
    pub(crate) released: Mutex<Vec<String>>,
}

impl Fixture {
    pub(crate) async fn open() -> Fixture {
        Fixture::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Fixture {
        let (server, link) = nats().await;
        let identity = order_streams::open(&link, 1, true).await.unwrap().identity(order_streams::ORDERS);
        Fixture::on(server, link, identity, limits).await
    }

    /// With a record from which entries can be removed, as a power failure may do.
    pub(crate) async fn deletable() -> Fixture {
        let (server, link) = nats().await;
        let config = Config {
            name: order_streams::ORDERS.to_owned(),
            subjects: vec!["orders.event.*.*".to_owned(), "orders.fence.expired.*".to_owned()],
            ..Config::default()
        };
        jetstream::new(link.client().clone()).create_stream(config).await.unwrap();
        Fixture::on(server, link, "frail".to_owned(), Limits::default()).await
    }

    /// Removes an entry from such a record.
    pub(crate) async fn lose(&self, sequence: u64) {
        let context = jetstream::new(self.link.client().clone());
        let stream = context.get_stream_no_info(order_streams::ORDERS).await.unwrap();
        assert!(stream.delete_message(sequence).await.unwrap());
    }

    async fn on(server: Server, link: Connection, identity: String, limits: Limits) -> Fixture {
        let inventory = Arc::new(FakeInventory::default());
        for subject in ["check_inventory", "reserve_inventory", "release_inventory"] {
            let mut requests = link.client().subscribe(subject).await.unwrap();
            let (inventory, link) = (Arc::clone(&inventory), link.clone());
            tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    tokio::spawn(Arc::clone(&inventory).answer(link.clone(), request));
                }
            });
        }
        link.client().flush().await.unwrap();
        let (feed, orders, tasks) = gateway(&link, &identity, limits).await;
        Fixture { server, link, identity, feed, orders, inventory, tasks }
    }

    /// Another gateway on the same streams.
    pub(crate) async fn gateway(&self, limits: Limits) -> (Arc<Feed>, Orders) {
        let (feed, orders, _) = gateway(&self.link, &self.identity, limits).await;
        (feed, orders)
    }

    /// Waits until all work that goes on without its caller has ended, releases included.
    pub(crate) async fn idle(&self) {
        until("all work has ended", async || self.tasks.is_empty()).await;
    }

    /// Waits until the fake service is reached again.
    pub(crate) async fn connected(&self) {
        until("the service is reached", async || {
            self.link.connected() && self.link.client().request("check_inventory", "[]".into()).await.is_ok()
        })
        .await;
    }

    pub(crate) async fn create(&self, request_id: &str, customer: &str) -> Result<pb::Order, Failure> {
        self.orders.create(request(request_id, customer, 1), soon()).await
    }

    pub(crate) async fn update(&self, order: &pb::Order, to: pb::OrderStatus) -> Result<pb::Order, Failure> {
        let request = pb::UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: to.into(),
            etag: order.etag.clone(),
            reason: "why not".into(),
        };
        self.orders.update(request, soon()).await
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.link.clone(), order_streams::ORDERS)
    }

    /// What a worker writes before it frees a reservation.
    pub(crate) async fn write_tombstone(&self, order_id: &str) -> u64 {
        self.append(&format!("orders.fence.expired.{order_id}")).await
    }

    /// Writes an entry without the gateway.
    pub(crate) async fn append(&self, subject: &str) -> u64 {
        let (store, headers) = (self.store(), HeaderMap::new());
        store.append(subject, headers, "{}".into(), nats::Expect::Any, soon().deadline).await.unwrap()
    }

    pub(crate) fn released(&self) -> usize {
        self.inventory.released.lock().len()
    }
}

/// The seed of a test's random choices. A test that fails prints it, and the variable TEST_SEED gives it.
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new() -> Seed {
        let given = std::env::var("TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        Seed(given.unwrap_or_else(|| nats::backoff::jitter(u64::from(u32::MAX))))
    }

    /// The choices of one of several participants.
    pub(crate) fn random(&self, participant: u64) -> Random {
        Random(self.0.wrapping_add(participant << 32))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            cli::note!("run it again with TEST_SEED={}", self.0);
        }
    }
}

/// Pseudorandom numbers (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// A number below this.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % most
    }
}

async fn nats() -> (Server, Connection) {
    let server = Server::start().unwrap();
    let link = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
    (server, link)
}

async fn gateway(link: &Connection, identity: &str, limits: Limits) -> (Arc<Feed>, Orders, TaskTracker) {
    let supervisor = Supervisor::new(CancellationToken::new());
    let feed = Feed::start(link.clone(), identity.to_owned(), limits, &supervisor).await.unwrap();
    let bridge = Bridge::new(link.clone(), crate::served::states());
    let tasks = bridge.tasks().clone();
    let orders = Orders::new(
        bridge,
        Store::new(link.clone(), order_streams::ORDERS),
        Arc::clone(&feed),
        Arc::new(Places::new(1_024)),
    );
    (feed, orders, tasks)
}

/// Waits until something holds, and panics if it takes too long.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < limit, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn soon() -> CallContext {
    CallContext::until(Instant::now() + Duration::from_secs(10))
}

pub(crate) fn request(request_id: &str, customer: &str, quantity: u32) -> pb::CreateOrderRequest {
    pb::CreateOrderRequest {
        request_id: request_id.into(),
        customer_id: customer.into(),
        items: vec![inventory::Item { product_id: "lamp".into(), quantity }],
    }
}

impl FakeInventory {
    async fn answer(self: Arc<FakeInventory>, link: Connection, request: Message) {
        let client = link.client();
        match request.subject.as_str() {
            "check_inventory" => {
                let items: Vec<inventory::Item> = serde_json::from_slice(&request.payload).unwrap();
                let short = *self.short.lock();
                let items = items.into_iter().map(|item| inventory::ItemAvailability {
                    available: if short { item.quantity - 1 } else { item.quantity },
                    product_id: item.product_id,
                    requested: item.quantity,
                });
                let forgotten = usize::from(*self.omits_an_item.lock());
                let items = items.skip(forgotten).collect();
                let reply = pb::CheckInventoryResponse { available: !short, items };
                say(client, &request, Ok(reply)).await;
            }
            "reserve_inventory" => {
                let order: inventory::ReserveInventoryRequest =
                    serde_json::from_slice(&request.payload).unwrap();
                *self.reserve_requests.lock() += 1;
                let delay = *self.delay.lock();
                tokio::time::sleep(delay).await;
                if *self.loses_answers.lock() {
                    return;
                }
                let told = self.reserve.lock().pop_front();
                let fence = match told {
                    Some(told) => told,
                    None => Ok(fence(&link, &order.order_id).await),
                };
                if *self.expires_reservations.lock() {
                    let subject = format!("orders.fence.expired.{}", order.order_id);
                    client.request(subject, "{}".into()).await.unwrap();
                }
                let reply = fence.map(|fence| inventory::ReserveInventoryResponse {
                    order_id: order.order_id,
                    reserved: true,
                    expires_at: None,
                    fence,
                });
                say(client, &request, reply).await;
            }
            _ => {
                let order: inventory::ReleaseInventoryRequest =
                    serde_json::from_slice(&request.payload).unwrap();
                self.released.lock().push(order.order_id.clone());
                let reply = inventory::ReleaseInventoryResponse { order_id: order.order_id, released: true };
                say(client, &request, Ok(reply)).await;
            }
        }
    }
}

/// The sequence of an order's tombstone, if that is its last entry.
async fn fence(link: &Connection, order_id: &str) -> i64 {
    let store = Store::new(link.clone(), order_streams::ORDERS);
    let filter = entries(Uuid::parse_str(order_id).unwrap());
    let last = store.last(&filter, soon().deadline).await.unwrap();
    last.filter(|last| last.subject.starts_with("orders.fence")).map_or(0, |last| last.sequence.cast_signed())
}

async fn say<T: Serialize>(client: &Client, request: &Message, reply: Result<T, Failure>) {
    let to = request.reply.clone().unwrap();
    let sent = match reply {
        Ok(reply) => client.publish(to, serde_json::to_vec(&reply).unwrap().into()).await,
        Err(failure) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::SERVICE_ERROR, "refused");
            headers.insert(header::SERVICE_ERROR_CODE, failure.number().to_string());
            client.publish_with_headers(to, headers, failure.to_json().into()).await
        }
    };
    sent.unwrap();
}
