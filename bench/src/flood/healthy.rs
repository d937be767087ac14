//! Clients that mean well: one that calls at a fixed rate on connections that it has, and newcomers that connect for
//! each call. Must never know who else is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use contract::inventory::v1::Item;
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CheckInventoryRequest, CreateOrderRequest};
use hdrhistogram::Histogram;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::load::product;

/// Enough that each of the gateway's threads has some.
const CONNECTIONS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(5);
const PRODUCTS: usize = 1_000;
/// One call of so many is an order.
const ORDERS: usize = 5;
/// Between two newcomers, and what each may take.
const NEWCOMERS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
const LOOK: Duration = Duration::from_millis(5);

/// What was seen for a while.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// Calls of one while, until all have ended.
struct While {
    times: Histogram<u64>,
    begun: u64,
    ended: u64,
    failed: u64,
    failure: Option<String>,
}

/// A client that calls at fixed times, whatever becomes of the calls before. It ends when it is dropped.
pub(super) struct Healthy {
    now: Arc<Mutex<Arc<Mutex<While>>>>,
    stop: Arc<AtomicBool>,
}

impl While {
    fn new() -> anyhow::Result<Arc<Mutex<While>>> {
        let times = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Arc::new(Mutex::new(While { times, begun: 0, ended: 0, failed: 0, failure: None })))
    }
}

impl Healthy {
    /// Connects, and begins.
    pub(super) async fn open(endpoint: &Endpoint, rate: f64) -> anyhow::Result<Healthy> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(endpoint.connect().await?);
        }
        let healthy =
            Healthy { now: Arc::new(Mutex::new(While::new()?)), stop: Arc::new(AtomicBool::new(false)) };
        let (now, stop, handle) = (healthy.now.clone(), healthy.stop.clone(), Handle::current());
        // Timers of the runtime are a millisecond coarse.
        std::thread::spawn(move || {
            let begun = Instant::now();
            for number in 0.. {
                let due = begun + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let now = lock(&now).clone();
                lock(&now).begun += 1;
                handle.spawn(timed(channels[number % CONNECTIONS].clone(), number, due, now));
            }
        });
        Ok(healthy)
    }

    /// Begins to count anew.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        let next = While::new()?;
        *lock(&self.now) = next;
        Ok(())
    }

    /// What was seen since then, when every call has ended.
    pub(super) async fn end(&self) -> anyhow::Result<Seen> {
        let next = While::new()?;
        let past = std::mem::replace(&mut *lock(&self.now), next);
        let limit = Instant::now() + 2 * DEADLINE;
        loop {
            {
                let past = lock(&past);
                if past.ended == past.begun {
                    let at = |quantile| Duration::from_nanos(past.times.value_at_quantile(quantile));
                    return Ok(Seen {
                        calls: past.begun,
                        failed: past.failed,
                        failure: past.failure.clone(),
                        p50: at(0.5),
                        p99: at(0.99),
                    });
                }
            }
            ensure!(Instant::now() < limit, "calls of a healthy client do not end");
            sleep(LOOK).await;
        }
    }

    /// What is seen for so long.
    pub(super) async fn watch(&self, length: Duration) -> anyhow::Result<Seen> {
        self.begin()?;
        sleep(length).await;
        self.end().await
    }
}

impl Drop for Healthy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn timed(channel: Channel, number: usize, due: Instant, now: Arc<Mutex<While>>) {
    let ended = call(channel, number).await;
    let mut now = lock(&now);
    now.ended += 1;
    match ended {
        Ok(()) => now.times.saturating_record(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        Err(failure) => {
            now.failed += 1;
            now.failure.get_or_insert(failure);
        }
    }
}

/// A call, one of five an order, in its deadline.
async fn call(channel: Channel, number: usize) -> Result<(), String> {
    let item = |step| Item { product_id: product((number + step) % PRODUCTS), quantity: 1 };
    let items: Vec<Item> = (0..3).map(item).collect();
    let mut client = OrderServiceClient::new(channel);
    let told = |status: tonic::Status| format!("{:?}: {}", status.code(), status.message());
    if number.is_multiple_of(ORDERS) {
        let order = CreateOrderRequest { customer_id: "ann".to_owned(), items, ..Default::default() };
        return client.create_order(within(order)).await.map(drop).map_err(told);
    }
    let answer = client.check_inventory(within(CheckInventoryRequest { items })).await.map_err(told)?;
    if answer.into_inner().available { Ok(()) } else { Err("another answer".to_owned()) }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Those that came while something else was going on.
#[derive(Debug, Clone, Default)]
pub(super) struct Newcomers {
    pub(super) came: u64,
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
    /// The longest time that one took to connect and to be answered.
    pub(super) longest: Duration,
}

/// Connects and calls, again and again, for so long.
pub(super) async fn newcomers(endpoint: &Endpoint, length: Duration) -> Newcomers {
    let (end, mut seen) = (Instant::now() + length, Newcomers::default());
    for number in 1.. {
        sleep(NEWCOMERS.0).await;
        if Instant::now() >= end {
            break;
        }
        let begun = Instant::now();
        let come = async {
            let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
            call(channel, number).await
        };
        let ended = timeout(NEWCOMERS.1, come).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        seen.came += 1;
        seen.longest = seen.longest.max(begun.elapsed());
        if let Err(failure) = ended {
            seen.failed += 1;
            seen.failure.get_or_insert(failure);
        }
    }
    seen
}
