//! A well-behaved client: it calls at a fixed rate on existing connections, lists, and watches. Must not depend on the
//! attacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use contract::inventory::v1::Item;
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{
    CheckInventoryRequest, CreateOrderRequest, ListOrdersRequest, WatchOrdersRequest, WatchOrdersResponse,
};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::load::product;

/// Enough that each of the gateway's threads serves some.
const CONNECTIONS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(5);
const PRODUCTS: usize = 1_000;
/// One call in five is an order.
const ORDERS: usize = 5;
/// One call in eight is a list, of ten orders.
const LISTS: (usize, i32) = (8, 10);
/// Whose orders they are.
const CUSTOMER: &str = "ann";
/// Pause before a broken watch is reopened.
const AGAIN: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(5);

/// Results of one period.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// p99 of lists, and of the time from an order's record until a watch receives it.
    pub(super) lists: Duration,
    pub(super) events: Duration,
    /// Number of events received.
    pub(super) watched: u64,
}

/// What a latency belongs to.
#[derive(Debug, Clone, Copy)]
enum Sort {
    Call,
    List,
    Event,
}

/// Calls of one period, until all have ended.
struct While {
    times: [Histogram<u64>; 3],
    begun: u64,
    ended: u64,
    failed: u64,
    failure: Option<String>,
}

/// A client in an open loop. It stops when dropped.
pub(super) struct Healthy {
    now: Arc<Mutex<Arc<Mutex<While>>>>,
    stop: Arc<AtomicBool>,
    watch: AbortHandle,
}

impl While {
    fn new() -> anyhow::Result<Arc<Mutex<While>>> {
        let times = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
        let times = [times()?, times()?, times()?];
        Ok(Arc::new(Mutex::new(While { times, begun: 0, ended: 0, failed: 0, failure: None })))
    }

    fn took(&mut self, sort: Sort, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.times[sort as usize].saturating_record(nanos);
    }

    fn failed(&mut self, failure: String) {
        self.failed += 1;
        self.failure.get_or_insert(failure);
    }

    fn seen(&self) -> Seen {
        let at = |sort: Sort, share| Duration::from_nanos(self.times[sort as usize].value_at_quantile(share));
        Seen {
            calls: self.begun,
            failed: self.failed,
            failure: self.failure.clone(),
            p50: at(Sort::Call, 0.5),
            p99: at(Sort::Call, 0.99),
            lists: at(Sort::List, 0.99),
            events: at(Sort::Event, 0.99),
            watched: self.times[Sort::Event as usize].len(),
        }
    }
}

impl Healthy {
    /// Connects and starts.
    pub(super) async fn open(endpoint: &Endpoint, rate: f64) -> anyhow::Result<Healthy> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(endpoint.connect().await?);
        }
        let (now, stop) = (Arc::new(Mutex::new(While::new()?)), Arc::new(AtomicBool::new(false)));
        let watch = tokio::spawn(watch(channels[0].clone(), now.clone())).abort_handle();
        let healthy = Healthy { now: now.clone(), stop: stop.clone(), watch };
        let handle = Handle::current();
        // The runtime's timers have a resolution of one millisecond.
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

    /// Starts a new period.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        let next = While::new()?;
        *lock(&self.now) = next;
        Ok(())
    }

    /// Results of the period, once every call has ended.
    pub(super) async fn end(&self) -> anyhow::Result<Seen> {
        let next = While::new()?;
        let past = std::mem::replace(&mut *lock(&self.now), next);
        let limit = Instant::now() + 2 * DEADLINE;
        loop {
            {
                let past = lock(&past);
                if past.ended == past.begun {
                    return Ok(past.seen());
                }
            }
            ensure!(Instant::now() < limit, "calls of the well-behaved client do not end");
            sleep(LOOK).await;
        }
    }

    /// Results of a period of this length.
    pub(super) async fn watch(&self, length: Duration) -> anyhow::Result<Seen> {
        self.begin()?;
        sleep(length).await;
        self.end().await
    }
}

impl Drop for Healthy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.watch.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}

async fn timed(channel: Channel, number: usize, due: Instant, now: Arc<Mutex<While>>) {
    let sort = if number % LISTS.0 == 1 { Sort::List } else { Sort::Call };
    let ended = match sort {
        Sort::List => list(channel).await,
        Sort::Call | Sort::Event => call(channel, number).await,
    };
    let mut now = lock(&now);
    now.ended += 1;
    match ended {
        Ok(()) => now.took(sort, due.elapsed()),
        Err(failure) => now.failed(failure),
    }
}

/// Watches the customer's orders until aborted.
async fn watch(channel: Channel, now: Arc<Mutex<Arc<Mutex<While>>>>) {
    let mut client = OrderServiceClient::new(channel);
    let mut resume_token = String::new();
    loop {
        let customer_id = CUSTOMER.to_owned();
        let request =
            WatchOrdersRequest { customer_id, resume_token: resume_token.clone(), ..Default::default() };
        let failure = match client.watch_orders(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            if let Some(late) = late(&event) {
                                lock(&lock(&now).clone()).took(Sort::Event, late);
                            }
                            resume_token = event.resume_token;
                        }
                        Ok(None) => break "the watch ended".to_owned(),
                        Err(status) => break told(&status),
                    }
                }
            }
            Err(status) => told(&status),
        };
        lock(&lock(&now).clone()).failed(format!("watch: {failure}"));
        sleep(AGAIN).await;
    }
}

/// How long ago the order was recorded; `None` for a bookmark.
fn late(event: &WatchOrdersResponse) -> Option<Duration> {
    let time = event.order.as_ref()?.update_time.as_ref()?;
    let (seconds, nanos) = (u64::try_from(time.seconds).ok()?, u32::try_from(time.nanos).ok()?);
    let recorded = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    Some(recorded.elapsed().unwrap_or_default())
}

async fn list(channel: Channel) -> Result<(), String> {
    let request =
        ListOrdersRequest { customer_id: CUSTOMER.to_owned(), page_size: LISTS.1, ..Default::default() };
    let listed = OrderServiceClient::new(channel).list_orders(within(request)).await;
    listed.map(drop).map_err(|status| told(&status))
}

fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// One call with a deadline; every fifth is an order.
pub(super) async fn call(channel: Channel, number: usize) -> Result<(), String> {
    let item = |step| Item { product_id: product((number + step) % PRODUCTS), quantity: 1 };
    let items: Vec<Item> = (0..3).map(item).collect();
    let mut client = OrderServiceClient::new(channel);
    if number.is_multiple_of(ORDERS) {
        let order = CreateOrderRequest { customer_id: CUSTOMER.to_owned(), items, ..Default::default() };
        return client.create_order(within(order)).await.map(drop).map_err(|status| told(&status));
    }
    let answer = client.check_inventory(within(CheckInventoryRequest { items })).await;
    let answer = answer.map_err(|status| told(&status))?;
    if answer.into_inner().available { Ok(()) } else { Err("unexpected reply: not available".to_owned()) }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}
