//! Many watches on one gateway: when the first and the last of them receive an order, and what an idle one costs. Must
//! not depend on how a gateway implements them.

use std::time::Duration;

use anyhow::Context as _;
use contract::inventory::v1::Item;
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CreateOrderRequest, WatchOrdersRequest, WatchOrdersResponse};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::deployment::Deployment;
use crate::load::product;
use crate::table::duration;
use crate::usage;

/// Watches per connection.
const EACH: usize = 100;
const ORDERS: usize = 10;
const LIMIT: Duration = Duration::from_secs(30);
/// Time until memory that opening watches needed is returned.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures each number of watches on a new gateway.
pub(super) async fn grow(sizes: &[usize]) -> anyhow::Result<()> {
    cli::say!("\nwatches on one gateway\n");
    cli::say!(
        "{:>9} {:>12} {:>12} {:>12} {:>16}",
        "watches",
        "first event",
        "last event",
        "(most)",
        "KiB per watch"
    );
    for size in sizes {
        let deployment = Deployment::open(10, "").await?;
        let before = usage::resident(deployment.gateway.pid()?)?;
        let mut watches = open(&deployment, *size).await?;
        sleep(SETTLE).await;
        let idle = usage::resident(deployment.gateway.pid()?)?.saturating_sub(before);
        let mut orders = OrderServiceClient::new(channel(&deployment).await?);
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for _ in 0..ORDERS {
            let begun = Instant::now();
            let mut hears = JoinSet::new();
            for watch in watches.drain(..) {
                hears.spawn(hear(watch, begun));
            }
            orders.create_order(order()).await?;
            let mut times = Vec::new();
            for heard in hears.join_all().await {
                let (watch, time) = heard?;
                times.push(time);
                watches.push(watch);
            }
            times.sort_unstable();
            first.push(times[0]);
            last.push(times[times.len() - 1]);
        }
        first.sort_unstable();
        last.sort_unstable();
        let each = idle as f64 / 1_024.0 / *size as f64;
        cli::say!(
            "{size:>9} {:>12} {:>12} {:>12} {each:>16.1}",
            duration(first[ORDERS / 2]),
            duration(last[ORDERS / 2]),
            duration(last[ORDERS - 1])
        );
    }
    Ok(())
}

async fn channel(deployment: &Deployment) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(deployment.url())?.connect().await?)
}

async fn open(deployment: &Deployment, count: usize) -> anyhow::Result<Vec<Streaming<WatchOrdersResponse>>> {
    let (mut watches, mut client) = (Vec::new(), None);
    for number in 0..count {
        if number % EACH == 0 {
            client = Some(OrderServiceClient::new(channel(deployment).await?));
        }
        let client = client.as_mut().context("no connection")?;
        let mut watch = client.watch_orders(WatchOrdersRequest::default()).await?.into_inner();
        // The bookmark: the watch is established.
        watch.message().await?.context("no bookmark")?;
        watches.push(watch);
    }
    Ok(watches)
}

/// Waits for the next order on all watches. Returns how long that took.
async fn hear(
    mut watch: Streaming<WatchOrdersResponse>,
    begun: Instant,
) -> anyhow::Result<(Streaming<WatchOrdersResponse>, Duration)> {
    let heard = async {
        loop {
            let message = watch.message().await?.context("a watch ended")?;
            if message.order.is_some() {
                return anyhow::Ok(begun.elapsed());
            }
        }
    };
    let time = timeout(LIMIT, heard).await.context("a watch received nothing")??;
    Ok((watch, time))
}

fn order() -> CreateOrderRequest {
    let items = vec![Item { product_id: product(0), quantity: 1 }];
    CreateOrderRequest { request_id: Uuid::new_v4().to_string(), customer_id: "ann".to_owned(), items }
}
