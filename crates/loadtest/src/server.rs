//! A client of the server: a few HTTP/2 connections used in turn, a deadline on every attempt, and retries while an
//! error is transient. Must not depend on why a call is made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contract::inventory::v1 as inventory;
use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::limits::PAGE_SIZE;
use contract::orders::v1 as orders;
use contract::orders::v1::order_service_client::OrderServiceClient;
use parking_lot::Mutex;
use server::client::{ClientOptions, Connection, Target, told};
use server::health_client::GatewayClient;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::trouble::{Trouble, Verdict};

/// Interval of HTTP/2 keep-alive PINGs, and their timeout.
const PING: Duration = Duration::from_secs(5);
/// The pause after the first attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between attempts, unless the server asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A page of 1,000 orders of 500 items with the longest ids is 36 MB.
const LARGEST_REPLY: usize = 64 << 20;
/// How long reads and adjustments are retried: a server that has just started may still build its index.
const PATIENCE: Duration = Duration::from_secs(120);
/// A call that is retried for longer is reported, once.
const SILENT: Duration = Duration::from_secs(2);

/// The server's address, and limits on calls.
#[derive(Debug, clap::Args)]
pub(crate) struct Reach {
    /// Address of the gateway: `HOST:PORT`, or a URL with http:// or https://
    #[arg(long, default_value = "http://127.0.0.1:50051", value_name = "URL")]
    addr: String,
    /// Time to wait for a gateway at the start, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: u64,
    #[command(flatten)]
    access: ClientOptions,
    /// HTTP/2 connections, used in turn
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Deadline of one attempt, in seconds; it is sent to the gateway
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    deadline: u64,
}

/// The server.
pub(crate) struct Server {
    target: Target,
    channels: Vec<Connection>,
    next: AtomicUsize,
    deadline: Duration,
    patience: Duration,
    /// Since when no call has had a reply.
    silent: Mutex<Option<Instant>>,
    repeats: Mutex<BTreeMap<String, u64>>,
    told: AtomicBool,
}

/// A call that was given up.
#[derive(Debug, Clone)]
pub(crate) struct GivenUp {
    /// How its last attempt ended.
    pub(crate) last: Trouble,
    /// Whether an attempt ended without a reply, so that it may have been carried out.
    pub(crate) unsure: bool,
}

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.last.fmt(f)
    }
}

impl std::error::Error for GivenUp {}

impl Server {
    /// Connections are opened when first used, and reopened after they break.
    pub(crate) fn new(options: &Reach) -> anyhow::Result<Server> {
        let target = options.access.target(&options.addr)?;
        let target =
            target.tuned(|endpoint| endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING));
        Ok(Server {
            channels: (0..options.connections).map(|_| target.lazy()).collect(),
            target,
            next: AtomicUsize::new(0),
            deadline: Duration::from_secs(options.deadline),
            patience: Duration::from_secs(options.connect_timeout),
            silent: Mutex::default(),
            repeats: Mutex::default(),
            told: AtomicBool::new(false),
        })
    }

    /// Waits until a gateway answers. If none does, the error says what to change.
    pub(crate) async fn greet(&self) -> anyhow::Result<()> {
        let end = Instant::now() + self.patience;
        loop {
            let asked = async { GatewayClient::reach(self.target.clone()).await?.health("").await };
            let error = match timeout_at(end, asked).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => return Err(told::silent(&self.target.uri, self.patience)),
            };
            // It may be about to start. Other errors are permanent.
            if !format!("{error:#}").contains("refused") || Instant::now() + LONGEST_PAUSE >= end {
                return Err(error);
            }
            sleep(LONGEST_PAUSE / 4).await;
        }
    }

    /// Creates an order; `budget` bounds all attempts together.
    pub(crate) async fn create(
        &self,
        request: &orders::CreateOrderRequest,
        budget: Duration,
    ) -> Result<orders::Order, GivenUp> {
        let reply = self
            .repeat(budget, |channel, limit| {
                let request = within(request.clone(), limit);
                async move { OrderServiceClient::new(channel).create_order(request).await }
            })
            .await?;
        reply.order.ok_or_else(|| nonsense("the reply of CreateOrder has no order"))
    }

    /// Reads an order.
    pub(crate) async fn order(&self, order_id: &str) -> Result<orders::Order, GivenUp> {
        let reply = self
            .repeat(PATIENCE, |channel, limit| {
                let request = within(orders::GetOrderRequest { order_id: order_id.to_owned() }, limit);
                async move { OrderServiceClient::new(channel).get_order(request).await }
            })
            .await?;
        reply.order.ok_or_else(|| nonsense("the reply of GetOrder has no order"))
    }

    /// A page of all orders, newest first, and the token of the next page; `None` on the last.
    pub(crate) async fn orders(&self, token: &str) -> Result<(Vec<orders::Order>, Option<String>), GivenUp> {
        let reply = self
            .repeat(PATIENCE, |channel, limit| {
                let page = orders::ListOrdersRequest {
                    page_size: PAGE_SIZE as i32,
                    page_token: token.to_owned(),
                    ..Default::default()
                };
                let request = within(page, limit);
                let mut client = OrderServiceClient::new(channel).max_decoding_message_size(LARGEST_REPLY);
                async move { client.list_orders(request).await }
            })
            .await?;
        Ok((reply.orders, next_page(token, reply.next_page_token)?))
    }

    /// A page of all stock, and the token of the next page; `None` on the last.
    pub(crate) async fn stock(
        &self,
        token: &str,
    ) -> Result<(Vec<inventory::Stock>, Option<String>), GivenUp> {
        let reply = self
            .repeat(PATIENCE, |channel, limit| {
                let page =
                    inventory::ListStockRequest { page_size: PAGE_SIZE as i32, page_token: token.to_owned() };
                let request = within(page, limit);
                async move { InventoryServiceClient::new(channel).list_stock(request).await }
            })
            .await?;
        Ok((reply.stock, next_page(token, reply.next_page_token)?))
    }

    /// Adjusts stock, with retries. It is applied once.
    pub(crate) async fn adjust(&self, request: &inventory::AdjustStockRequest) -> Result<(), GivenUp> {
        self.repeat(PATIENCE, |channel, limit| {
            let request = within(request.clone(), limit);
            async move { InventoryServiceClient::new(channel).adjust_stock(request).await }
        })
        .await?;
        Ok(())
    }

    /// How often calls were retried so far, by error.
    pub(crate) fn repeats(&self) -> BTreeMap<String, u64> {
        self.repeats.lock().clone()
    }

    async fn repeat<T, F>(
        &self,
        budget: Duration,
        attempt: impl Fn(Connection, Duration) -> F,
    ) -> Result<T, GivenUp>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let start = Instant::now();
        let end = start + budget;
        let (mut unsure, mut round) = (false, 0_u32);
        loop {
            let limit = self.deadline.min(end.saturating_duration_since(Instant::now()));
            if let Some(trouble) = self.gone(budget) {
                return Err(GivenUp { last: trouble, unsure });
            }
            let trouble = match timeout(limit, attempt(self.channel(), limit)).await {
                Ok(Ok(response)) => {
                    self.heard(true);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => self.told(&status),
                Err(_) => Trouble::late(limit),
            };
            self.heard(trouble.answered());
            if trouble.verdict() != Verdict::Repeat {
                return Err(GivenUp { last: trouble, unsure });
            }
            unsure = true;
            let pause = pause(round, trouble.retry(), chance());
            if pause >= end.saturating_duration_since(Instant::now()) {
                return Err(GivenUp { last: trouble, unsure });
            }
            self.count(&trouble);
            self.tell(&trouble, start);
            sleep(pause).await;
            round = round.saturating_add(1);
        }
    }

    /// The error; if it is permanent, with what to change.
    fn told(&self, status: &Status) -> Trouble {
        let trouble = Trouble::of(status);
        match trouble.verdict() {
            Verdict::Failed => trouble.saying(self.target.told(status).to_string()),
            _ => trouble,
        }
    }

    /// Notes whether an attempt had a reply of the server.
    fn heard(&self, answered: bool) {
        let mut silent = self.silent.lock();
        *silent = if answered { None } else { silent.or_else(|| Some(Instant::now())) };
    }

    /// An error if there has been no reply for longer than a call may take. Then no more calls are sent.
    pub(crate) fn gone(&self, budget: Duration) -> Option<Trouble> {
        let silent = *self.silent.lock();
        let silence = silent?.elapsed();
        (silence >= budget).then(|| Trouble::late(silence))
    }

    fn channel(&self) -> Connection {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }

    fn count(&self, trouble: &Trouble) {
        let mut repeats = self.repeats.lock();
        *repeats.entry(trouble.kind()).or_default() += 1;
    }

    fn tell(&self, trouble: &Trouble, start: Instant) {
        if start.elapsed() > SILENT && !self.told.swap(true, Ordering::Relaxed) {
            cli::note!("still retrying: {trouble}");
        }
    }
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn nonsense(message: &str) -> GivenUp {
    GivenUp { last: Trouble::nonsense(message), unsure: true }
}

/// Rejects a page that names itself as the next one, which would be read forever.
fn next_page(token: &str, next: String) -> Result<Option<String>, GivenUp> {
    if next.is_empty() {
        return Ok(None);
    }
    if next == token {
        return Err(nonsense("the page names itself as the next page"));
    }
    Ok(Some(next))
}

/// At least what the server asks for, and up to an exponential backoff on top; `chance` is 0 to 1.
fn pause(round: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let backoff = FIRST_PAUSE.saturating_mul(1 << round.min(16)).min(LONGEST_PAUSE);
    match asked {
        Some(asked) => asked.saturating_add(backoff.mul_f64(chance)),
        None => backoff.mul_f64((1.0 + chance) / 2.0),
    }
}

/// The low bits of a random UUID, as a number from 0 to 1.
fn chance() -> f64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    f64::from(low as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
