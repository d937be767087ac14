//! The whole system on a cluster of three nats-servers, customers who retry failed calls, and an audit that compares
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
use local_nats::Cluster;
use nats::{Connection, Store};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::crew::Hand;
use crate::figures;

const PRODUCT: &str = "lamp";
const CREATED: &str = "orders.event.order_created.";
/// Elections take 4 to 9 s, and failed ones are repeated.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a customer waits for a reply.
const ANSWER: Duration = Duration::from_secs(6);

/// The running system.
pub struct Plant {
    pub cluster: Cluster,
    pub link: Connection,
    pub gateway: Gateway,
    pub workers: Vec<Hand>,
    worker: inventory_worker::config::Serve,
    channel: Channel,
    _turn: MutexGuard<'static, ()>,
}

/// The outcomes by customer. Each customer places one order, and has a unique name.
#[derive(Default)]
struct Told {
    placed: BTreeMap<String, String>,
    /// Customers who were told that it was not done, and gave up.
    never: Vec<String>,
    /// Customers who were told that it may have been done, and gave up.
    open: Vec<String>,
    /// Customers who got a permanent error.
    wrong: Vec<String>,
    /// When orders were acknowledged.
    times: Vec<Instant>,
    /// When calls failed.
    failed: Vec<Instant>,
    troubles: BTreeMap<String, usize>,
}

/// Running customers.
pub struct Customers {
    told: Arc<std::sync::Mutex<Told>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An entry of a stream as a replica has it.
type Stored = (u64, String, Bytes);

impl Plant {
    /// Starts a gateway and two workers on three nodes, with enough stock.
    pub async fn open() -> Plant {
        // One cluster at a time, as elections fail on a machine that is too busy.
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(3)).await.unwrap().expect("a cluster");
        let mut config = gateway::config::Serve::at(cluster.urls());
        (config.threads, config.replicas) = (1, 3);
        let gateway = Gateway::start(config).await.expect("a gateway");
        let mut config = inventory_worker::config::Serve::at(&cluster.urls());
        config.nats.replicas = 3;
        config.reservation_ttl = Duration::from_secs(8);
        let workers = vec![Hand::hire(config.clone()).await, Hand::hire(config.clone()).await];
        let link = Connection::connect(&config.nats.link, "the auditor").await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", gateway.grpc_addr())).unwrap().connect_lazy();
        let plant = Plant { cluster, link, gateway, workers, worker: config, channel, _turn: turn };
        let stock = json!([{"productId": PRODUCT, "delta": 1_000_000}]);
        let body = json!({"requestId": "first", "adjustments": stock});
        until("there is stock", async || plant.ask("adjust_stock", &body).await["stock"].is_array()).await;
        let names = ["", "orders.v1.OrderService", "inventory.v1.InventoryService"];
        until("all is up", async || names.iter().all(|name| plant.gateway.up(name) == Some(true))).await;
        plant
    }

    /// A client.
    pub fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel.clone())
    }

    /// Starts another worker.
    pub async fn hire(&mut self) {
        self.workers.push(Hand::hire(self.worker.clone()).await);
    }

    /// The node of each connection with this name.
    pub async fn nodes_of(&self, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for (number, node) in self.cluster.nodes().iter().enumerate() {
            let page = figures::get(([127, 0, 0, 1], node.monitor_port()).into(), "/connz").await;
            let page: Value = serde_json::from_str(&page).unwrap();
            let names = page["connections"].as_array().unwrap().iter().filter(|c| c["name"] == name);
            found.extend(names.map(|_| number));
        }
        found
    }

    /// The reply to a request, or null.
    pub async fn ask(&self, subject: &str, body: &Value) -> Value {
        let limit = Instant::now() + Duration::from_secs(1);
        let reply = self.link.request(subject, Default::default(), body.to_string().into(), limit).await;
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
            let leader = info["cluster"]["leader"].as_str().and_then(|name| self.cluster.named(name));
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
    pub fn customers(&self, count: usize) -> Customers {
        let customers =
            Customers { told: Arc::default(), stop: CancellationToken::new(), tasks: TaskTracker::new() };
        for number in 0..count {
            let (client, told) = (OrderServiceClient::new(self.channel.clone()), customers.told.clone());
            let stop = customers.stop.clone();
            customers.tasks.spawn(async move {
                for turn in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    buy(client.clone(), &told, &format!("{number}-{turn}"), number % 3 != 2).await;
                }
            });
        }
        customers
    }

    /// Stops the customers, and asserts that what they were told is true on all of these replicas, and that these are
    /// equal.
    pub async fn audit(&self, told: Customers, nodes: &[usize]) {
        let told = told.home().await;
        assert_eq!(told.wrong.first(), None);
        let orders = self.read(order_streams::ORDERS).await;
        let recorded = recorded(&orders);
        for (customer, order) in &told.placed {
            assert_eq!(recorded.get(customer), Some(order), "{customer} was told of an order");
        }
        for customer in &told.never {
            assert_eq!(recorded.get(customer), None, "{customer} was told that there is no order");
        }
        let known = |customer: &String| told.placed.contains_key(customer) || told.open.contains(customer);
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
        println!("{} orders, told to {}; {:?}", recorded.len(), told.placed.len(), told.troubles);
    }

    /// Waits until the workers' consumer and the gateway's lists have caught up with ORDERS.
    async fn settled(&self, orders: &[Stored]) {
        let begin = Instant::now();
        let consumer = format!("$JS.API.CONSUMER.INFO.{}.inventory-worker", order_streams::ORDERS);
        let done = async || {
            let info = self.ask(&consumer, &json!({})).await;
            info["num_pending"] == 0 && info["num_ack_pending"] == 0
        };
        until("every event is worked off", done).await;
        let worked_off = begin.elapsed();
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
        println!("worked off after {worked_off:?}, listed after {:?}", begin.elapsed());
    }

    async fn make_leader(&self, stream: &str, node: usize) {
        let leads = async || {
            if self.leader(stream).await == node {
                return true;
            }
            self.step_down(stream, Some(node)).await;
            sleep(Duration::from_millis(300)).await;
            false
        };
        until("the replica leads", leads).await;
    }

    /// Every entry, read from the leader.
    async fn read(&self, stream: &'static str) -> Vec<Stored> {
        let store = Store::new(self.link.clone(), stream);
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

impl Customers {
    /// How many orders were acknowledged so far.
    pub fn placed(&self) -> usize {
        self.told.lock().unwrap().placed.len()
    }

    /// Waits for this many more orders.
    pub async fn buy_more(&self, count: usize) {
        let goal = self.placed() + count;
        until("more orders are placed", async || self.placed() >= goal).await;
    }

    /// The longest time without an acknowledged order.
    pub fn longest_gap(&self) -> Duration {
        let told = self.told.lock().unwrap();
        told.times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }

    /// When the last call failed, as the time since this instant.
    pub fn failed_until(&self, since: Instant) -> Duration {
        let told = self.told.lock().unwrap();
        told.failed.iter().max().map(|at| at.saturating_duration_since(since)).unwrap_or_default()
    }

    /// Stops the customers, and waits for their last replies.
    async fn home(self) -> Told {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("everybody has an answer");
        std::mem::take(&mut self.told.lock().unwrap())
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
    told: &std::sync::Mutex<Told>,
    customer: &str,
    stubborn: bool,
) {
    let request = wanted(customer, customer);
    loop {
        let mut request = tonic::Request::new(request.clone());
        request.set_timeout(ANSWER);
        let status = match client.create_order(request).await {
            Ok(reply) => {
                let order = reply.into_inner().order.expect("an order").order_id;
                let mut told = told.lock().unwrap();
                told.placed.insert(customer.to_owned(), order);
                told.times.push(Instant::now());
                return;
            }
            Err(status) => status,
        };
        let ends = note(&status, &mut told.lock().unwrap(), customer, stubborn);
        // Also before the next order, as the gateway has to release the stock of an order that was given up.
        sleep(Duration::from_millis(100)).await;
        if ends {
            return;
        }
    }
}

/// Records what a customer was told. Returns whether the customer gives up.
fn note(status: &Status, told: &mut Told, customer: &str, stubborn: bool) -> bool {
    // If the client's own timer expires first, the status has no details.
    let info = status.get_details_error_info();
    let reason = info.as_ref().map_or("", |info| info.reason.as_str());
    let delivered =
        info.as_ref().and_then(|info| info.metadata.get("delivered")).map_or("unknown", String::as_str);
    told.failed.push(Instant::now());
    *told.troubles.entry(format!("{:?} {reason} {delivered}", status.code())).or_default() += 1;
    let passing = match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Aborted => ["RESERVATION_EXPIRED", "CONTENTION"].contains(&reason),
        _ => false,
    };
    if !passing {
        told.wrong.push(format!("{customer}: {status:?}"));
    } else if stubborn {
        return false;
    } else if delivered == "no" {
        told.never.push(customer.to_owned());
    } else {
        told.open.push(customer.to_owned());
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

/// As `shop::until`, with time for elections.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < limit, "waited too long until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
