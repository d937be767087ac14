//! `loadtest unanswered`: the memory that requests without a reply leave behind in a gateway. Starts everything itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::inventory::v1::Item;
use contract::orders::v1::CheckInventoryRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use futures_util::{StreamExt as _, stream};
use local_nats::spare_port;
use nats::{Connection, Options};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::bar;
use crate::process::{Process, serves};

/// Limit on the growth of the gateway's memory.
const GROWTH: u64 = 10 << 20;
/// Calls before the first measurement, after which buffers and pools have their size.
const WARM_UP: usize = 20_000;
const CONNECTIONS: usize = 4;
const ROUTE: &str = "check_inventory";

/// Options of `loadtest unanswered`
#[derive(clap::Args)]
pub(crate) struct Unanswered {
    /// Number of requests without a reply
    #[arg(long, default_value_t = 200_000)]
    calls: usize,
    /// Deadline of each call, in milliseconds
    #[arg(long, default_value_t = 40)]
    deadline: u64,
    /// Concurrent calls; no more than the route's initial concurrency limit
    #[arg(long, default_value_t = 250)]
    concurrency: usize,
}

/// Starts a gateway and a service that never replies, and makes calls.
pub(crate) async fn run(options: Unanswered) -> anyhow::Result<bool> {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await??;
    let logs = tempfile::tempdir()?;
    let [grpc, http] = [spare_port()?, spare_port()?];
    let gateway = Process::gateway(&nats.url(), grpc, http, &[], &logs.path().join("gateway"))?;
    serves(grpc, "liveness").await?;
    let hole = Connection::connect(&Options::at(nats.url()), "a service that never replies").await?;
    let mut requests = hole.client().subscribe(ROUTE).await?;
    hole.client().flush().await?;
    let swallowed = Arc::new(AtomicUsize::new(0));
    let count = swallowed.clone();
    let swallow = tokio::spawn(async move {
        while requests.next().await.is_some() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });

    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{grpc}"))?;
    let channels: Vec<Channel> = (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect();
    call(&channels, WARM_UP, &options).await;
    let (before, already) = (gateway.resident()?, swallowed.load(Ordering::Relaxed));
    let codes = call(&channels, options.calls, &options).await;
    let (after, swallowed) = (gateway.resident()?, swallowed.load(Ordering::Relaxed) - already);
    drop(hole);
    swallow.abort();
    for (code, count) in codes {
        cli::say!("{count:>8}  {code}");
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    cli::say!(
        "{:.1} MiB before, {:.1} MiB after {swallowed} requests without a reply",
        mib(before),
        mib(after)
    );
    // Calls that the concurrency limit sheds leave nothing behind, so they do not count.
    anyhow::ensure!(swallowed * 10 >= options.calls * 9, "only {swallowed} requests reached the service");
    Ok(after.saturating_sub(before) < GROWTH)
}

/// Makes calls. Returns how they ended.
async fn call(channels: &[Channel], calls: usize, options: &Unanswered) -> BTreeMap<String, usize> {
    let bar = bar::bar(calls, "unanswered");
    let one = |number: usize| {
        let mut client = OrderServiceClient::new(channels[number % channels.len()].clone());
        let items = vec![Item { product_id: "lamp".to_owned(), quantity: 1 }];
        let mut request = Request::new(CheckInventoryRequest { items });
        request.set_timeout(Duration::from_millis(options.deadline));
        async move { client.check_inventory(request).await.map_or_else(|status| status.code(), |_| Code::Ok) }
    };
    let mut ends = stream::iter(0..calls).map(one).buffer_unordered(options.concurrency);
    let mut codes = BTreeMap::new();
    while let Some(code) = ends.next().await {
        *codes.entry(format!("{code:?}")).or_default() += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    codes
}
