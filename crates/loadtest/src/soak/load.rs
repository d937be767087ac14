//! The clients of a soak: they place orders, retry, update, read back, adjust and list, all mixed. Calls go to the
//! gateways in turn. Must not depend on the faults.

use std::sync::Arc;
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment as Line, Item};
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{
    CreateOrderRequest, CreateOrderResponse, GetOrderRequest, ListOrdersRequest, Order, OrderStatus,
    UpdateOrderStatusRequest,
};
use orders::order::request::order_id;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::history::{Adjustment, Create, End, History, TIMER, Update, etag};

/// Products and their stock; the last one is scarce.
pub(crate) const PRODUCTS: [(&str, i32); 6] = [
    ("lamp", 200_000),
    ("rug", 200_000),
    ("sofa", 200_000),
    ("desk", 200_000),
    ("bed", 200_000),
    ("vase", 150),
];
/// Deadlines in milliseconds, sent to the gateway.
const DEADLINES: [u64; 3] = [400, 2_000, 6_000];
/// How long after its deadline the client gives a call up.
const LATE: Duration = Duration::from_millis(500);
/// Attempts of an order. The outcome of some stays unknown.
const ATTEMPTS: u32 = 6;
/// How many of its own orders a client remembers.
const KNOWN: usize = 30;
const CONNECT: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(2);

/// A client's connections to the gateways.
pub(crate) fn channels(urls: &[String]) -> anyhow::Result<Vec<Channel>> {
    let channel = |url: &String| {
        let endpoint = Endpoint::from_shared(url.clone())?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect_lazy())
    };
    urls.iter().map(channel).collect()
}

/// One client.
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) channels: Vec<Channel>,
    pub(crate) history: Arc<History>,
    pub(crate) dice: fastrand::Rng,
    /// Own orders, as last seen.
    known: Vec<Order>,
    turn: usize,
}

impl Client {
    pub(crate) fn new(name: String, channels: Vec<Channel>, history: Arc<History>, seed: u64) -> Client {
        Client { name, channels, history, dice: fastrand::Rng::with_seed(seed), known: Vec::new(), turn: 0 }
    }

    /// Makes calls until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut number = 0;
        while !stop.is_cancelled() {
            number += 1;
            match self.dice.u8(0..100) {
                0..45 => self.create(number, false).await,
                45..55 => self.create(number, true).await,
                55..78 => self.update().await,
                78..92 => self.read().await,
                92..96 => self.adjust(number).await,
                _ => self.list().await,
            }
            sleep(Duration::from_millis(self.dice.u64(5..40))).await;
        }
    }

    /// The next gateway.
    fn channel(&mut self) -> Channel {
        self.turn += 1;
        self.channels[self.turn % self.channels.len()].clone()
    }

    fn limit(&mut self) -> Duration {
        Duration::from_millis(DEADLINES[self.dice.usize(0..DEADLINES.len())])
    }

    /// Places an order, and retries until its outcome is known or the attempts are used up. With `twin`, the first
    /// attempt is made twice concurrently.
    async fn create(&mut self, number: u64, twin: bool) {
        let request_id = format!("{}-{number}", self.name);
        let id = order_id("", &request_id).to_string();
        let items = self.basket();
        let request = CreateOrderRequest {
            request_id,
            customer_id: self.name.clone(),
            items: items
                .iter()
                .map(|(product, quantity)| Item { product_id: product.clone(), quantity: *quantity })
                .collect(),
        };
        self.history.book().creates.insert(id.clone(), Create { items, ends: Vec::new() });
        for attempt in 0..ATTEMPTS {
            let limit = self.limit();
            let mine = place(self.channel(), request.clone(), limit);
            let (mine, other) = if twin && attempt == 0 {
                let (mine, other) = tokio::join!(mine, place(self.channel(), request.clone(), limit));
                (mine, Some(other))
            } else {
                (mine.await, None)
            };
            let mut answers = vec![mine];
            answers.extend(other);
            let mut again = true;
            for answer in answers {
                let (order, end) = self.history.judge("create", answer, etag);
                again &= matches!(end, End::Not | End::Open);
                self.history.book().creates.entry(id.clone()).or_default().ends.push(end);
                if let Some(order) = order {
                    self.history.wrote();
                    self.learn(order.clone());
                    // An acknowledged order is there at once, also at another gateway.
                    if self.dice.u8(0..4) == 0 {
                        self.look(&order).await;
                    }
                }
            }
            if !again {
                return;
            }
            let pause = self.dice.u64(50..600);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// One to three products; sometimes far too many units, and sometimes of the scarce product.
    fn basket(&mut self) -> Vec<(String, u32)> {
        let hopeless = self.dice.u8(0..100) < 3;
        let count = self.dice.usize(1..=3);
        self.dice
            .choose_multiple(PRODUCTS.iter(), count)
            .into_iter()
            .map(|(product, _)| ((*product).to_owned(), if hopeless { 900_000 } else { 1 }))
            .collect()
    }

    fn learn(&mut self, order: Order) {
        self.known.retain(|known| known.order_id != order.order_id);
        if self.known.len() >= KNOWN {
            self.known.remove(0);
        }
        self.known.push(order);
    }

    /// Changes the status of one of its orders, or tries a change that is not permitted.
    async fn update(&mut self) {
        let Some(order) = self.dice.choice(&self.known).cloned() else { return };
        let to = match (order.status(), self.dice.u8(0..10)) {
            (_, 0) => OrderStatus::Delivered,
            (OrderStatus::Pending | OrderStatus::Confirmed, 1 | 2) => OrderStatus::Cancelled,
            (OrderStatus::Pending, _) => OrderStatus::Confirmed,
            (OrderStatus::Confirmed, _) => OrderStatus::Shipped,
            _ => OrderStatus::Delivered,
        };
        let from = (self.dice.u8(0..10) < 8).then(|| etag(&order));
        let request = UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: to.into(),
            etag: from.map(|etag| etag.to_string()).unwrap_or_default(),
            reason: String::new(),
        };
        let limit = self.limit();
        let mut client = OrderServiceClient::new(self.channel());
        let answer = within(limit, client.update_order_status(told(request, limit))).await;
        let answer = answer.map(|reply| reply.order.unwrap_or_default());
        let (updated, end) = self.history.judge("update", answer, etag);
        self.history.book().updates.push(Update { order_id: order.order_id.clone(), from, to, end });
        match updated {
            Some(updated) => {
                self.history.wrote();
                self.learn(updated);
            }
            None => self.look(&order).await,
        }
    }

    /// Reads one of its orders back at another gateway: what was acknowledged has to be there.
    async fn read(&mut self) {
        if let Some(order) = self.dice.choice(&self.known).cloned() {
            self.look(&order).await;
        }
    }

    async fn look(&mut self, known: &Order) {
        let limit = self.limit();
        let mut client = OrderServiceClient::new(self.channel());
        let request = GetOrderRequest { order_id: known.order_id.clone() };
        let answer = within(limit, client.get_order(told(request, limit))).await;
        let answer = answer.map(|reply| reply.order.unwrap_or_default());
        match self.history.judge("get", answer, etag) {
            (Some(order), _) if etag(&order) < etag(known) => {
                let (old, new) = (etag(&order), etag(known));
                self.history.violation(format!("{} was read at {old} after {new}", known.order_id));
            }
            (Some(order), _) => self.learn(order),
            (None, End::Refused(reason)) => {
                self.history.violation(format!("the acknowledged {} was read as {reason}", known.order_id));
            }
            (None, _) => {}
        }
    }

    /// Adjusts stock, and retries until the outcome is known.
    async fn adjust(&mut self, number: u64) {
        let product = PRODUCTS[self.dice.usize(0..PRODUCTS.len())].0;
        let delta = self.dice.i32(1..50);
        let request_id = format!("{}-stock-{number}", self.name);
        let adjustments = vec![Line { product_id: product.to_owned(), delta }];
        let request =
            AdjustStockRequest { request_id: request_id.clone(), adjustments, reason: String::new() };
        let new = Adjustment { product: product.to_owned(), delta, ends: Vec::new() };
        self.history.book().adjustments.insert(request_id.clone(), new);
        for _ in 0..ATTEMPTS {
            let limit = self.limit();
            let mut client = InventoryServiceClient::new(self.channel());
            let answer = within(limit, client.adjust_stock(told(request.clone(), limit))).await;
            let (_, end) = self.history.judge("adjust", answer, |_| 0);
            let again = matches!(end, End::Not | End::Open);
            if end == End::Ok(0) {
                self.history.wrote();
            }
            if let Some(adjustment) = self.history.book().adjustments.get_mut(&request_id) {
                adjustment.ends.push(end);
            }
            if !again {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Lists its orders: newest first, and no other customer's.
    async fn list(&mut self) {
        let request = ListOrdersRequest {
            customer_id: self.name.clone(),
            page_size: 20,
            ..ListOrdersRequest::default()
        };
        let limit = self.limit();
        let mut client = OrderServiceClient::new(self.channel());
        let answer = within(limit, client.list_orders(told(request, limit))).await;
        let (Some(reply), _) = self.history.judge("list", answer, |_| 0) else { return };
        if reply.orders.iter().any(|order| order.customer_id != self.name) {
            self.history.violation(format!("the list of {} has orders of another customer", self.name));
        }
    }
}

async fn place(channel: Channel, request: CreateOrderRequest, limit: Duration) -> Result<Order, Status> {
    let mut client = OrderServiceClient::new(channel);
    let reply: CreateOrderResponse = within(limit, client.create_order(told(request, limit))).await?;
    Ok(reply.order.unwrap_or_default())
}

/// A request with its deadline in the metadata, as `set_timeout` would also start the client's own timer.
fn told<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(limit + LATE, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(TIMER)),
    }
}
