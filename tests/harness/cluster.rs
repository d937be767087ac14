//! The whole system on a cluster of three nats-servers, clients who retry failed calls, and an audit that compares
//! every reply with every replica of the streams.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::inventory::v1::Item;
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CreateOrderRequest, ListOrdersRequest, Order};
use futures_util::{StreamExt, TryStreamExt};
use gateway::Gateway;
use nats::{Connection, Store};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::http;
use crate::harness::worker::WorkerThread;

const PRODUCT: &str = "lamp";
const CREATED: &str = "orders.event.order_created.";
/// Elections take 4 to 9 s, and failed ones are repeated.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a customer waits for a reply.
const ANSWER: Duration = Duration::from_secs(6);

/// The running system.
pub struct Cluster {
    pub nats: local_nats::Cluster,
    pub connection: Connection,
    pub gateway: Gateway,
    pub workers: Vec<WorkerThread>,
    worker: inventory_worker::config::Serve,
    channel: Channel,
    _turn: MutexGuard<'static, ()>,
}

/// The outcomes by customer. Each customer places one order, and has a unique name.
#[derive(Default)]
struct Outcomes {
    placed: BTreeMap<String, String>,
    /// Clients who were told that it was not done, and gave up.
    never: Vec<String>,
    /// Clients who were told that it may have been done, and gave up.
    open: Vec<String>,
    /// Clients who got a permanent error.
    wrong: Vec<String>,
    /// When orders were acknowledged.
    times: Vec<Instant>,
    /// When calls failed.
    failed: Vec<Instant>,
    errors: BTreeMap<String, usize>,
}

/// Running clients.
pub struct Clients {
    outcomes: Arc<std::sync::Mutex<Outcomes>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An entry of a stream as a replica has it.
type Stored = (u64, String, Bytes);

impl Cluster {
    /// Starts a gateway and two workers on three nodes, with enough stock.
    pub async fn start() -> Cluster {
        // One cluster at a time, as elections fail on a machine that is too busy.
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let nats =
            tokio::task::spawn_blocking(|| local_nats::Cluster::start(3)).await.unwrap().expect("a cluster");
        let mut config = gateway::config::Serve::at(nats.urls());
        (config.threads, config.replicas) = (1, 3);
        let gateway = Gateway::start(config).await.expect("a gateway");
        let mut config = inventory_worker::config::Serve::at(&nats.urls());
        config.nats.replicas = 3;
        config.reservation_ttl = Duration::from_secs(8);
        let workers =
            vec![WorkerThread::start(config.clone()).await, WorkerThread::start(config.clone()).await];
        let connection = Connection::connect(&config.nats.connection, "the auditor").await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", gateway.grpc_addr())).unwrap().connect_lazy();
        let cluster = Cluster { nats, connection, gateway, workers, worker: config, channel, _turn: turn };
        let stock = json!([{"productId": PRODUCT, "delta": 1_000_000}]);
        let body = json!({"requestId": "first", "adjustments": stock});
        until("there is stock", async || cluster.ask("adjust_stock", &body).await["stock"].is_array()).await;
        let names = ["", "orders.v1.OrderService", "inventory.v1.InventoryService"];
        until("all is up", async || names.iter().all(|name| cluster.gateway.up(name) == Some(true))).await;
        cluster
    }

    /// A client.
    pub fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel.clone())
    }

    /// Starts another worker.
    pub async fn add_worker(&mut self) {
        self.workers.push(WorkerThread::start(self.worker.clone()).await);
    }

    /// The node of each connection with this name.
    pub async fn nodes_of(&self, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for (number, node) in self.nats.nodes().iter().enumerate() {
            let page = http::get(([127, 0, 0, 1], node.monitor_port()).into(), "/connz").await;
            let page: Value = serde_json::from_str(&page).unwrap();
            let names = page["connections"].as_array().unwrap().iter().filter(|c| c["name"] == name);
            found.extend(names.map(|_| number));
        }
        found
    }

    /// The reply to a request, or null.
    pub async fn ask(&self, subject: &str, body: &Value) -> Value {
        let limit = Instant::now() + Duration::from_secs(1);
        let reply =
            self.connection.request(subject, Default::default(), body.to_string().into(), limit).await;
        reply.ok().and_then(|reply| serde_json::from_slice(&reply.payload).ok()).unwrap_or_default()
    }

    /// Places an order with this deadline.
    pub async fn order(&self, time: Duration) -> Result<Order, Status> {
        let mut request = tonic::Request::new(wanted("", "somebody"));
        request.set_timeout(time);
        let reply = OrderServiceClient::new(self.channel.clone()).create_order(request).await?;
        Ok(reply.into_inner().order.expect("an order"))
    }

    /// Which node leads a stream.
    pub async fn leader(&self, stream: &str) -> usize {
        let limit = Instant::now() + PATIENCE;
        loop {
            let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({})).await;
            let leader = info["cluster"]["leader"].as_str().and_then(|name| self.nats.named(name));
            match leader {
                Some(node) => return node,
                None => assert!(Instant::now() < limit, "{stream} has no leader: {info}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for a new leader of a stream. Returns how long that took.
    pub async fn elected(&self, stream: &str, old: usize) -> Duration {
        let begin = Instant::now();
        until("there is a new leader", async || self.leader(stream).await != old).await;
        begin.elapsed()
    }

    /// Makes the leader of a stream step down, in favour of any other node or of this one.
    pub async fn step_down(&self, stream: &str, preferred: Option<usize>) -> bool {
        let body =
            preferred.map_or(json!({}), |node| json!({"placement": {"preferred": format!("node{node}")}}));
        self.ask(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), &body).await["success"] == true
    }

    /// Starts this many clients that place one order after the other until they are stopped. Every third gives an order
    /// up at the first error; the others retry until it is placed.
    pub fn clients(&self, count: usize) -> Clients {
        let clients =
            Clients { outcomes: Arc::default(), stop: CancellationToken::new(), tasks: TaskTracker::new() };
        for number in 0..count {
            let (client, outcomes) =
                (OrderServiceClient::new(self.channel.clone()), clients.outcomes.clone());
            let stop = clients.stop.clone();
            clients.tasks.spawn(async move {
                for turn in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    buy(client.clone(), &outcomes, &format!("{number}-{turn}"), number % 3 != 2).await;
                }
            });
        }
        clients
    }

    /// Stops the clients, and asserts that what they were told is true on all of these replicas, and that these are
    /// equal.
    pub async fn audit(&self, outcomes: Clients, nodes: &[usize]) {
        let outcomes = outcomes.finish().await;
        assert_eq!(outcomes.wrong.first(), None, "{:?}", outcomes.errors);
        // A leader that was frozen answers reads from what it had, until it learns of its successor.
        let mut orders = Vec::new();
        let complete = async || {
            orders = self.read(order_streams::ORDERS).await;
            let recorded = recorded(&orders);
            outcomes.placed.iter().all(|(customer, order)| recorded.get(customer) == Some(order))
        };
        until("every order that a client was told of is on the record", complete).await;
        let recorded = recorded(&orders);
        for customer in &outcomes.never {
            assert_eq!(recorded.get(customer), None, "{customer} was told that there is no order");
        }
        let known =
            |customer: &String| outcomes.placed.contains_key(customer) || outcomes.open.contains(customer);
        assert!(recorded.keys().all(known), "an order that nobody asked for");
        self.settled(&orders).await;
        let mut stock = Value::Null;
        let equal = async || {
            stock = self.ask("get_stock", &json!({"productId": PRODUCT})).await["stock"].clone();
            stock["reserved"] == recorded.len()
        };
        until("the reserved stock is that of the recorded orders", equal).await;
        // The system is at rest now.
        for stream in [order_streams::ORDERS, order_streams::INVENTORY] {
            let mut replicas = Vec::new();
            for node in nodes {
                self.make_leader(stream, *node).await;
                replicas.push(self.read(stream).await);
            }
            assert!(replicas.windows(2).all(|two| two[0] == two[1]), "replicas of {stream} differ");
        }
    }

    /// Waits until the workers' consumer and the gateway's lists have caught up with ORDERS.
    async fn settled(&self, orders: &[Stored]) {
        let consumer = format!("$JS.API.CONSUMER.INFO.{}.inventory-worker", order_streams::ORDERS);
        let done = async || {
            let info = self.ask(&consumer, &json!({})).await;
            info["num_pending"] == 0 && info["num_ack_pending"] == 0
        };
        until("every event is worked off", done).await;
        let created = |(_, subject, _): &&Stored| subject.starts_with(CREATED);
        let newest = orders.iter().rev().find(created).unwrap();
        let newest: Order = serde_json::from_slice(&newest.2).unwrap();
        let mut client = OrderServiceClient::new(self.channel.clone());
        let listed = async || {
            let request = ListOrdersRequest { page_size: 1, ..Default::default() };
            let reply = client.list_orders(request).await.map(tonic::Response::into_inner);
            reply.is_ok_and(|reply| reply.orders.first().is_some_and(|o| o.order_id == newest.order_id))
        };
        until("the newest order is listed", listed).await;
    }

    /// Makes this node the leader of a stream.
    pub async fn make_leader(&self, stream: &str, node: usize) {
        let leads = async || {
            let leader = self.leader(stream).await;
            if leader == node {
                return true;
            }
            // Without success it is asked again.
            if self.step_down(stream, Some(node)).await {
                let _ = timeout(Duration::from_secs(1), self.elected(stream, leader)).await;
            }
            false
        };
        until("the replica leads", leads).await;
    }

    /// Every entry, read from the leader.
    async fn read(&self, stream: &'static str) -> Vec<Stored> {
        let store = Store::new(self.connection.clone(), stream);
        let limit = Instant::now() + PATIENCE;
        let range = store.range(limit).await.unwrap();
        let entries = futures_util::stream::iter(range.first..=range.last).map(|sequence| {
            let store = &store;
            async move {
                let message = store.get(sequence, limit).await?.expect("an entry");
                Ok::<_, nats::StoreError>((sequence, message.subject.to_string(), message.payload))
            }
        });
        entries.buffered(64).try_collect().await.unwrap()
    }
}

impl Clients {
    /// How many orders were acknowledged so far.
    pub fn placed(&self) -> usize {
        self.outcomes.lock().unwrap().placed.len()
    }

    /// Waits for this many more orders.
    pub async fn place_more(&self, count: usize) {
        let goal = self.placed() + count;
        until("more orders are placed", async || self.placed() >= goal).await;
    }

    /// The longest time without an acknowledged order.
    pub fn longest_gap(&self) -> Duration {
        let outcomes = self.outcomes.lock().unwrap();
        outcomes.times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }

    /// When the last call failed, as the time since this instant.
    pub fn failed_until(&self, since: Instant) -> Duration {
        let outcomes = self.outcomes.lock().unwrap();
        outcomes.failed.iter().max().map(|at| at.saturating_duration_since(since)).unwrap_or_default()
    }

    /// Stops the clients, and waits for their last replies.
    async fn finish(self) -> Outcomes {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("everybody has an answer");
        std::mem::take(&mut self.outcomes.lock().unwrap())
    }
}

/// Places one order.
fn wanted(id: &str, customer: &str) -> CreateOrderRequest {
    CreateOrderRequest {
        request_id: id.to_owned(),
        customer_id: customer.to_owned(),
        items: vec![Item { product_id: PRODUCT.to_owned(), quantity: 1 }],
    }
}

async fn buy(
    mut client: OrderServiceClient<Channel>,
    outcomes: &std::sync::Mutex<Outcomes>,
    customer: &str,
    retries: bool,
) {
    let request = wanted(customer, customer);
    loop {
        let mut request = tonic::Request::new(request.clone());
        request.set_timeout(ANSWER);
        let status = match client.create_order(request).await {
            Ok(reply) => {
                let order = reply.into_inner().order.expect("an order").order_id;
                let mut outcomes = outcomes.lock().unwrap();
                outcomes.placed.insert(customer.to_owned(), order);
                outcomes.times.push(Instant::now());
                return;
            }
            Err(status) => status,
        };
        let ends = record(&status, &mut outcomes.lock().unwrap(), customer, retries);
        // Also before the next order, as the gateway has to release the stock of an order that was given up.
        sleep(Duration::from_millis(100)).await;
        if ends {
            return;
        }
    }
}

/// Records what a customer was told. Returns whether the customer gives up.
fn record(status: &Status, outcomes: &mut Outcomes, customer: &str, retries: bool) -> bool {
    // If the client's own timer expires first, the status has no details.
    let info = status.get_details_error_info();
    let reason = info.as_ref().map_or("", |info| info.reason.as_str());
    let delivered =
        info.as_ref().and_then(|info| info.metadata.get("delivered")).map_or("unknown", String::as_str);
    outcomes.failed.push(Instant::now());
    *outcomes.errors.entry(format!("{:?} {reason} {delivered}", status.code())).or_default() += 1;
    let passing = match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Aborted => ["RESERVATION_EXPIRED", "CONTENTION"].contains(&reason),
        _ => false,
    };
    if !passing {
        outcomes.wrong.push(format!("{customer}: {status:?}"));
    } else if retries {
        return false;
    } else if delivered == "no" {
        outcomes.never.push(customer.to_owned());
    } else {
        outcomes.open.push(customer.to_owned());
    }
    true
}

/// The orders in ORDERS, by customer. Asserts that no customer has two.
fn recorded(entries: &[Stored]) -> HashMap<String, String> {
    let mut orders = HashMap::new();
    for (_, subject, payload) in entries {
        if !subject.starts_with(CREATED) {
            continue;
        }
        let order: Order = serde_json::from_slice(payload).unwrap();
        let before = orders.insert(order.customer_id.clone(), order.order_id);
        assert_eq!(before, None, "{} has two orders", order.customer_id);
    }
    orders
}

/// As `system::until`, with time for elections.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < limit, "waited too long until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
