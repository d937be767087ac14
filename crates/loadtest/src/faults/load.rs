//! The load of `loadtest faults`: CreateOrder in an open loop at a constant rate, alternating between the gateways; and
//! afterwards, whether every acknowledged order exists. Must not depend on the faults.

use std::sync::Arc;
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment, Item};
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CreateOrderRequest, GetOrderRequest};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::trouble::Trouble;

const PRODUCT: &str = "lamp";
const STOCK: i32 = 1_000_000_000;
/// How long after its deadline the client gives a call up.
const LATE: Duration = Duration::from_millis(500);
/// Deadline of a read in the audit, and how often it is repeated.
const READ: (Duration, u32) = (Duration::from_secs(3), 10);
const PAUSE: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 16;

/// A call, and how it ended.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Number of the gateway.
    pub(crate) gateway: usize,
    /// When it was sent, in seconds.
    pub(crate) at: f64,
    /// Duration, in seconds.
    pub(crate) took: f64,
    /// The id of the order, or code and reason.
    pub(crate) end: Result<String, String>,
}

/// The load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Calls per second, over all gateways.
    pub(crate) rate: u32,
    pub(crate) deadline: Duration,
}

/// Stocks enough of the product.
pub(crate) async fn stock(channel: Channel) -> anyhow::Result<()> {
    let adjustments = vec![Adjustment { product_id: PRODUCT.to_owned(), delta: STOCK }];
    let request = AdjustStockRequest { request_id: "faults".to_owned(), adjustments, reason: String::new() };
    InventoryServiceClient::new(channel).adjust_stock(request).await?;
    Ok(())
}

/// The calls that have ended.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// A copy, in the order in which they ended.
    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().clone()
    }

    /// Whether at least `number` calls have ended since a moment, all of them successfully.
    pub(crate) fn good_since(&self, moment: f64, number: usize) -> bool {
        let calls = self.0.lock();
        let mut ended = calls.iter().filter(|call| call.at + call.took >= moment).peekable();
        let count = ended.clone().count();
        count >= number && ended.all(|call| call.end.is_ok())
    }
}

/// Sends calls until told to stop, then waits for those in flight. Times are seconds since `zero`.
pub(crate) async fn run(
    load: Load,
    channels: Vec<Channel>,
    zero: Instant,
    calls: Calls,
    stop: CancellationToken,
) {
    let mut ticks = interval(Duration::from_secs(1) / load.rate.max(1));
    // If the machine was busy, missed calls are made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // Bounded by rate and deadline.
    let mut open = JoinSet::new();
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let gateway = number % channels.len();
        let call = place(channels[gateway].clone(), gateway, load.deadline, zero);
        let calls = calls.clone();
        open.spawn(async move {
            let call = call.await;
            calls.0.lock().push(call);
        });
        while open.try_join_next().is_some() {}
    }
    open.join_all().await;
}

async fn place(channel: Channel, gateway: usize, deadline: Duration, zero: Instant) -> Call {
    let items = vec![Item { product_id: PRODUCT.to_owned(), quantity: 1 }];
    let request = CreateOrderRequest { request_id: String::new(), customer_id: "faults".to_owned(), items };
    let begun = Instant::now();
    let mut client = OrderServiceClient::new(channel);
    let answer = timeout(deadline + LATE, client.create_order(within(request, deadline))).await;
    let end = match answer {
        Ok(Ok(reply)) => Ok(reply.into_inner().order.map(|order| order.order_id).unwrap_or_default()),
        Ok(Err(status)) => Err(Trouble::of(&status).kind()),
        Err(_) => Err(Trouble::late(deadline).kind()),
    };
    Call { gateway, at: since(zero, begun), took: begun.elapsed().as_secs_f64(), end }
}

/// Seconds from `zero` to a moment; negative before it.
pub(crate) fn since(zero: Instant, moment: Instant) -> f64 {
    moment.saturating_duration_since(zero).as_secs_f64()
        - zero.saturating_duration_since(moment).as_secs_f64()
}

/// Reads every acknowledged order back. Returns those that do not exist, with the reply.
pub(crate) async fn lost(calls: &[Call], channels: &[Channel]) -> Vec<String> {
    let acknowledged = calls.iter().filter_map(|call| call.end.as_ref().ok());
    let reads = acknowledged.enumerate().map(|(number, id)| {
        let (channel, id) = (channels[number % channels.len()].clone(), id.clone());
        async move { read(channel, &id).await.err().map(|status| told(&id, &status)) }
    });
    stream::iter(reads).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

fn told(id: &str, status: &Status) -> String {
    let what = if status.code() == Code::NotFound { "was lost" } else { "could not be read back" };
    format!("the acknowledged order {id} {what}: {status}")
}

async fn read(channel: Channel, id: &str) -> Result<(), Status> {
    let mut last = Status::unknown("not read");
    for _ in 0..READ.1 {
        let mut client = OrderServiceClient::new(channel.clone());
        let request = within(GetOrderRequest { order_id: id.to_owned() }, READ.0);
        match client.get_order(request).await {
            Ok(reply) if reply.get_ref().order.as_ref().is_some_and(|order| order.order_id == id) => {
                return Ok(());
            }
            Ok(_) => return Err(Status::data_loss("the reply has another order")),
            Err(status) if status.code() == Code::NotFound => return Err(status),
            Err(status) => last = status,
        }
        sleep(PAUSE).await;
    }
    Err(last)
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}
