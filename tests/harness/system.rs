//! The whole system in one line: a nats-server, gateways and workers of one test, and the calls of a client. Everything
//! stops when the system is dropped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest, Item, Stock};
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{
    CheckInventoryRequest, CreateOrderRequest, GetOrderRequest, ListOrdersRequest, ListOrdersResponse, Order,
    OrderStatus, UpdateOrderStatusRequest,
};
use gateway::Gateway;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::harness::roles;
use crate::harness::worker::WorkerThread;

/// How long a test waits for something that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Options of a system that is to be started.
pub struct SystemBuilder {
    stock: Vec<(String, i32)>,
    workers: usize,
    gateways: usize,
    worker: inventory_worker::config::Serve,
    gateway: gateway::config::Serve,
    user: Option<(String, String)>,
    roles: bool,
    provisioned: bool,
    nats: local_nats::Options,
}

/// A running system.
pub struct System {
    pub gateways: Vec<Gateway>,
    pub workers: Vec<WorkerThread>,
    pub worker: inventory_worker::config::Serve,
    pub gateway: gateway::config::Serve,
    pub nats: local_nats::Server,
    channels: Vec<Channel>,
    next: AtomicU32,
}

/// An order to place.
#[derive(Clone)]
pub struct NewOrder {
    pub request: CreateOrderRequest,
}

/// An order for some units of one product, by "ann", without a request id.
pub fn new_order(product: &str, quantity: u32) -> NewOrder {
    NewOrder {
        request: CreateOrderRequest {
            request_id: String::new(),
            customer_id: "ann".to_owned(),
            items: vec![Item { product_id: product.to_owned(), quantity }],
        },
    }
}

impl NewOrder {
    pub fn and(mut self, product: &str, quantity: u32) -> NewOrder {
        self.request.items.push(Item { product_id: product.to_owned(), quantity });
        self
    }

    pub fn id(mut self, request_id: &str) -> NewOrder {
        self.request.request_id = request_id.to_owned();
        self
    }

    pub fn by(mut self, customer: &str) -> NewOrder {
        self.request.customer_id = customer.to_owned();
        self
    }
}

impl System {
    /// One gateway and one worker by default.
    pub fn builder() -> SystemBuilder {
        SystemBuilder {
            stock: Vec::new(),
            workers: 1,
            gateways: 1,
            worker: inventory_worker::config::Serve::at(""),
            gateway: gateway::config::Serve { threads: 1, ..gateway::config::Serve::at("") },
            user: None,
            roles: false,
            provisioned: true,
            nats: local_nats::Options::default(),
        }
    }
}

impl SystemBuilder {
    /// Units on hand at the beginning.
    pub fn stock(mut self, product: &str, units: i32) -> SystemBuilder {
        self.stock.push((product.to_owned(), units));
        self
    }

    pub fn workers(mut self, count: usize) -> SystemBuilder {
        self.workers = count;
        self
    }

    pub fn gateways(mut self, count: usize) -> SystemBuilder {
        self.gateways = count;
        self
    }

    /// The service on this subject is NestJS.
    pub fn nest(mut self, subject: &str) -> SystemBuilder {
        self.gateway.nest_subjects.push(subject.to_owned());
        self
    }

    /// Changes the configuration of gateways.
    pub fn each_gateway(mut self, change: impl FnOnce(&mut gateway::config::Serve)) -> SystemBuilder {
        change(&mut self.gateway);
        self
    }

    /// Additional configuration of the nats-server.
    pub fn nats_config(mut self, lines: &str) -> SystemBuilder {
        self.nats.config = Some(lines.to_owned());
        self
    }

    /// The NATS user of all processes.
    pub fn user(mut self, name: &str, password: &str) -> SystemBuilder {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Every process has its user of deploy/nats/roles.conf.
    pub fn roles(mut self) -> SystemBuilder {
        self.nats.config = Some(roles::config());
        self.gateway.provision = gateway::config::Provision::Never;
        self.worker.nats.provision = inventory_worker::config::Provision::Never;
        SystemBuilder { roles: true, ..self }
    }

    /// The streams do not exist before.
    pub fn unprovisioned(self) -> SystemBuilder {
        SystemBuilder { provisioned: false, ..self }
    }

    /// Changes the configuration of workers.
    pub fn each_worker(mut self, change: impl FnOnce(&mut inventory_worker::config::Serve)) -> SystemBuilder {
        change(&mut self.worker);
        self
    }

    /// Starts the system.
    pub async fn start(mut self) -> System {
        let options = self.nats;
        let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options));
        let nats = nats.await.unwrap().expect("a nats-server");
        let walls = [self.worker.nats.connection.wall, self.gateway.nats.wall];
        self.worker.nats.connection = match &self.user {
            Some((name, password)) => roles::by(nats::Options::at(nats.url()), name, password),
            None => nats::Options::at(nats.url()),
        };
        self.gateway.nats = self.worker.nats.connection.clone();
        if self.roles {
            if self.provisioned {
                roles::provision(&nats.url()).await;
            }
            self.worker.nats.connection = roles::options(&nats.url(), "worker");
            self.gateway.nats = roles::options(&nats.url(), "gateway");
        }
        [self.worker.nats.connection.wall, self.gateway.nats.wall] = walls;
        let mut system = System {
            gateways: Vec::new(),
            workers: Vec::new(),
            worker: self.worker,
            gateway: self.gateway,
            nats,
            channels: Vec::new(),
            next: AtomicU32::new(0),
        };
        for _ in 0..self.workers {
            system.add_worker().await;
        }
        for _ in 0..self.gateways {
            system.add_gateway().await;
        }
        for (product, units) in self.stock {
            system.adjust(&product, units).await.expect("the first stock");
        }
        system
    }
}

impl System {
    /// Starts another worker.
    pub async fn add_worker(&mut self) {
        self.workers.push(WorkerThread::start(self.worker.clone()).await);
    }

    /// Starts another gateway, and waits until all of its services are up.
    pub async fn add_gateway(&mut self) {
        let gateway = Gateway::start(self.gateway.clone()).await.expect("a gateway");
        let services = ["", "orders.v1.OrderService", "inventory.v1.InventoryService"];
        if !self.workers.is_empty() {
            until("the gateway serves", async || services.iter().all(|name| gateway.up(name) == Some(true)))
                .await;
        }
        let uri = format!("http://{}", gateway.grpc_addr());
        self.channels.push(Channel::from_shared(uri).unwrap().connect_lazy());
        self.gateways.push(gateway);
    }

    /// Drains the oldest gateway.
    pub async fn drain_gateway(&mut self) {
        self.channels.remove(0);
        self.gateways.remove(0).drain().await;
    }

    /// A client that uses the gateways in turn.
    pub fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel())
    }

    /// A client that leaves deadlines to the gateway. tonic's own also has a timer, which may expire first on a busy
    /// machine, with CANCELLED.
    pub fn untimed_orders(&self) -> OrderServiceClient<Client<HttpConnector, Body>> {
        OrderServiceClient::with_origin(http(), self.origin())
    }

    /// A client of the InventoryService.
    pub fn untimed_inventory(&self) -> InventoryServiceClient<Client<HttpConnector, Body>> {
        InventoryServiceClient::with_origin(http(), self.origin())
    }

    fn origin(&self) -> http::Uri {
        format!("http://{}", self.gateways[0].grpc_addr()).parse().unwrap()
    }

    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.channel())
    }

    pub fn channel(&self) -> Channel {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        self.channels[turn % self.channels.len()].clone()
    }

    /// A plain NATS client.
    pub async fn nats(&self) -> async_nats::Client {
        async_nats::connect(self.nats.url()).await.expect("a NATS client")
    }

    pub async fn place(&self, order: &NewOrder) -> Result<Order, Status> {
        let reply = self.orders().create_order(order.request.clone()).await?;
        Ok(reply.into_inner().order.expect("an order in the reply"))
    }

    pub async fn order(&self, product: &str, quantity: u32) -> Result<Order, Status> {
        self.place(&new_order(product, quantity)).await
    }

    pub async fn get(&self, order_id: &str) -> Result<Order, Status> {
        let reply = self.orders().get_order(GetOrderRequest { order_id: order_id.to_owned() }).await?;
        Ok(reply.into_inner().order.expect("an order in the reply"))
    }

    pub async fn update(&self, order: &Order, status: OrderStatus, etag: &str) -> Result<Order, Status> {
        let request = UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: status.into(),
            etag: etag.to_owned(),
            reason: String::new(),
        };
        let reply = self.orders().update_order_status(request).await?;
        Ok(reply.into_inner().order.expect("an order in the reply"))
    }

    pub async fn list(&self, request: ListOrdersRequest) -> Result<ListOrdersResponse, Status> {
        Ok(self.orders().list_orders(request).await?.into_inner())
    }

    /// Changes stock on hand.
    pub async fn adjust(&self, product: &str, delta: i32) -> Result<Stock, Status> {
        let request = AdjustStockRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            adjustments: vec![Adjustment { product_id: product.to_owned(), delta }],
            reason: String::new(),
        };
        let reply = self.inventory().adjust_stock(request).await?;
        Ok(reply.into_inner().stock.pop().expect("a stock in the reply"))
    }

    /// On hand and reserved.
    pub async fn stock(&self, product: &str) -> (u32, u32) {
        let request = GetStockRequest { product_id: product.to_owned() };
        let stock = self.inventory().get_stock(request).await.expect("the stock").into_inner().stock.unwrap();
        assert_eq!(stock.available, stock.on_hand - stock.reserved);
        (stock.on_hand, stock.reserved)
    }

    /// Whether a unit of a product is available.
    pub async fn check(&self, product: &str) -> Result<bool, Status> {
        let items = vec![Item { product_id: product.to_owned(), quantity: 1 }];
        let reply = self.orders().check_inventory(CheckInventoryRequest { items }).await?;
        Ok(reply.into_inner().available)
    }

    pub async fn available(&self, product: &str) -> u32 {
        let (on_hand, reserved) = self.stock(product).await;
        on_hand - reserved
    }
}

fn http() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// Waits until something holds, and panics if it takes too long.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < limit, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The reason in a status.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, expected: &str) {
    let status = result.expect_err("a refusal");
    assert_eq!(reason(&status), expected, "{status:?}");
}

/// The order id that an anonymous caller's request id stands for.
pub fn order_id(request_id: &str) -> String {
    orders::order::request::order_id("", request_id).to_string()
}
