//! `loadtest outage`: how calls fail when NATS is down, how soon, and how long they fail after it is back. Starts
//! everything itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest, Item};
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CheckInventoryRequest, CreateOrderRequest, GetOrderRequest};
use futures_util::future::join_all;
use local_nats::spare_port;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::process::{Process, serves};
use crate::trouble::Trouble;

const PRODUCT: &str = "lamp";
/// How long after its deadline a call may end, for the round trip.
const LATE: Duration = Duration::from_millis(50);
const BACK: Duration = Duration::from_secs(60);
/// Interval of calls after NATS is back.
const PAUSE: Duration = Duration::from_millis(20);
/// Recovery is complete after this time without a failed call.
const WELL: Duration = Duration::from_secs(3);

/// Options of `loadtest outage`
#[derive(clap::Args)]
pub(crate) struct Outage {
    /// Number of calls, all at once
    #[arg(long, default_value_t = 3_000)]
    calls: usize,
    /// Deadline of each call, in milliseconds
    #[arg(long, default_value_t = 300)]
    deadline: u64,
    /// HTTP/2 connections
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
}

/// Starts a system, kills its nats-server, and calls.
pub(crate) async fn run(options: Outage) -> anyhow::Result<bool> {
    let mut nats = tokio::task::spawn_blocking(local_nats::Server::start).await??;
    let logs = tempfile::tempdir()?;
    let [grpc, http, health] = [spare_port()?, spare_port()?, spare_port()?];
    let _worker = Process::worker(&nats.url(), health, 0, &[], &logs.path().join("worker"))?;
    let _gateway = Process::gateway(&nats.url(), grpc, http, &[], &logs.path().join("gateway"))?;
    serves(grpc, "orders.v1.OrderService").await?;
    let clients = connect(grpc, options.connections).await?;
    let order = prepare(&clients[0]).await?;

    nats.kill();
    let limit = Duration::from_millis(options.deadline);
    let calls = (0..options.calls).map(|number| {
        let client = clients[number % clients.len()].clone();
        let order = order.clone();
        tokio::spawn(async move { timed(client, number, order, limit).await })
    });
    let ends: Vec<End> = join_all(calls).await.into_iter().collect::<Result<_, _>>()?;
    let told = report(&ends, limit);

    // Killed when dropped.
    let _nats = tokio::task::spawn_blocking(move || nats.restart().map(|()| nats)).await??;
    recover(&clients, &order).await?;
    Ok(told)
}

/// Keeps calling, and prints when the first call succeeded and when the last one failed, since NATS is back.
async fn recover(clients: &[Channel], order: &str) -> anyhow::Result<()> {
    let (back, mut calls, mut failed, mut sent) = (Instant::now(), JoinSet::new(), 0, 0);
    let (mut good, mut bad) = (None, Duration::ZERO);
    while good.is_none() || back.elapsed() < bad + WELL {
        ensure!(back.elapsed() < BACK, "calls still fail {BACK:?} after NATS came back");
        let (client, order) = (clients[sent % clients.len()].clone(), order.to_owned());
        calls.spawn(async move {
            let result = call(client, sent, &order, Duration::from_secs(1)).await;
            (result, back.elapsed())
        });
        sent += 1;
        sleep(PAUSE).await;
        while let Some(ended) = calls.try_join_next() {
            match ended? {
                (Ok(()), at) => good = good.or(Some(at)),
                (Err(_), at) => (failed, bad) = (failed + 1, bad.max(at)),
            }
        }
    }
    let first = good.unwrap_or_default().as_secs_f64();
    let last = bad.as_secs_f64();
    cli::say!(
        "NATS is back: first successful call after {first:.2} s, last failed call after {last:.2} s, {failed} of {sent} failed"
    );
    Ok(())
}

async fn connect(port: u16, count: u16) -> anyhow::Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(endpoint.connect().await?);
    }
    Ok(channels)
}

/// Creates stock, and an order for GetOrder.
async fn prepare(client: &Channel) -> anyhow::Result<String> {
    let adjustments = vec![Adjustment { product_id: PRODUCT.to_owned(), delta: 1_000_000 }];
    let request = AdjustStockRequest { request_id: "outage".to_owned(), adjustments, reason: String::new() };
    InventoryServiceClient::new(client.clone()).adjust_stock(request).await?;
    let reply = OrderServiceClient::new(client.clone()).create_order(create()).await?;
    Ok(reply.into_inner().order.context("no order")?.order_id)
}

fn items() -> Vec<Item> {
    vec![Item { product_id: PRODUCT.to_owned(), quantity: 1 }]
}

fn create() -> CreateOrderRequest {
    CreateOrderRequest { request_id: String::new(), customer_id: "outage".to_owned(), items: items() }
}

/// How a call ended, and its duration.
struct End {
    result: Result<(), Status>,
    took: Duration,
}

async fn timed(client: Channel, number: usize, order: String, limit: Duration) -> End {
    let begun = Instant::now();
    let result = call(client, number, &order, limit).await;
    End { result, took: begun.elapsed() }
}

/// One of the four kinds of calls, in turn.
async fn call(client: Channel, number: usize, order: &str, limit: Duration) -> Result<(), Status> {
    let (mut orders, mut stock) =
        (OrderServiceClient::new(client.clone()), InventoryServiceClient::new(client));
    match number % 4 {
        0 => orders.create_order(within(create(), limit)).await.map(drop),
        1 => orders.get_order(within(GetOrderRequest { order_id: order.to_owned() }, limit)).await.map(drop),
        2 => orders.check_inventory(within(CheckInventoryRequest { items: items() }, limit)).await.map(drop),
        _ => {
            stock.get_stock(within(GetStockRequest { product_id: PRODUCT.to_owned() }, limit)).await.map(drop)
        }
    }
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// Prints the results. True if every call failed with UNAVAILABLE in time.
fn report(ends: &[End], limit: Duration) -> bool {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for end in ends {
        let kind =
            end.result.as_ref().map_or_else(|status| Trouble::of(status).to_string(), |()| "OK".to_owned());
        *kinds.entry(kind).or_default() += 1;
    }
    for (kind, count) in &kinds {
        cli::say!("{count:>7}  {kind}");
    }
    let mut times: Vec<Duration> = ends.iter().map(|end| end.took).collect();
    times.sort_unstable();
    let at = |share: usize| {
        times.get((times.len() * share / 1_000).min(times.len() - 1)).copied().unwrap_or_default()
    };
    let worst = at(1_000);
    cli::say!("failed after {:.1?} (median), {:.1?} (p99), {worst:.1?} (maximum)", at(500), at(990));
    let unavailable = |end: &End| end.result.as_ref().is_err_and(|status| status.code() == Code::Unavailable);
    let told = ends.iter().all(unavailable) && worst <= limit + LATE;
    cli::say!(
        "{}",
        if told {
            "all calls failed with UNAVAILABLE in time"
        } else {
            "FAILED: not all calls failed with UNAVAILABLE in time"
        }
    );
    told
}
