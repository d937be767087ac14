//! `loadtest grow`: how cost grows with the number of orders, products, watches, connections, workers and items per
//! order. Sizes are measured in turns. Starts everything itself.

mod seed;
mod watchers;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use contract::orders::v1::ListOrdersRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use tokio::time::sleep;
use tonic::transport::Endpoint;

use crate::compare::report::{Report, Series};
use crate::deployment::{self, Deployment};
use crate::load::{Kind, Load};
use crate::usage;

const PRODUCTS: usize = 1_000;
/// Concurrent callers when sizes are compared: enough for stable values, too few to queue.
const CALLERS: usize = 8;
/// Interval at which a starting gateway is asked for a list.
const LOOK: Duration = Duration::from_millis(10);
const LISTS: Duration = Duration::from_secs(120);
const MIB: f64 = 1_048_576.0;

/// Options of `loadtest grow`
#[derive(clap::Args)]
pub(crate) struct Grow {
    /// Rounds; each measures every size once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// What to grow; default: all
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Numbers of stored orders, with three events each
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    orders: Vec<usize>,
    /// Numbers of products
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    products: Vec<usize>,
    /// Numbers of watches on one gateway
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000])]
    watchers: Vec<usize>,
    /// Write all values to this file as JSON
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

/// What grows.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Stored orders
    Orders,
    /// Products in stock
    Products,
    /// Watches on one gateway
    Watchers,
    /// Client connections
    Connections,
    /// Competing workers
    Workers,
    /// Items per order
    Items,
}

/// Grows each in turn, and prints the results.
pub(crate) async fn run(options: Grow) -> anyhow::Result<bool> {
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let bench = Bench { rounds: options.rounds.max(1), seconds: options.seconds };
    let mut report = Report::default();
    if wanted(Part::Orders) {
        bench.orders(&options.orders, &mut report).await?;
    }
    if wanted(Part::Products) {
        bench.products(&options.products, &mut report).await?;
    }
    if wanted(Part::Watchers) {
        watchers::grow(&options.watchers).await?;
    }
    if wanted(Part::Connections) || wanted(Part::Items) {
        let deployment = Deployment::open(PRODUCTS, "").await?;
        if wanted(Part::Connections) {
            bench.connections(&deployment, &mut report).await?;
        }
        if wanted(Part::Items) {
            bench.items(&deployment, &mut report).await?;
        }
    }
    if wanted(Part::Workers) {
        bench.workers(&mut report).await?;
    }
    if let Some(file) = options.json {
        report.write(&file)?;
    }
    Ok(true)
}

struct Bench {
    rounds: usize,
    seconds: f64,
}

impl Bench {
    /// Measures all loads in turns.
    async fn turns(&self, loads: Vec<(String, Load)>) -> anyhow::Result<Vec<Series>> {
        let mut series: Vec<_> = loads.iter().map(|(name, _)| Series::of(name)).collect();
        for _ in 0..self.rounds {
            for ((_, load), series) in loads.iter().zip(&mut series) {
                series.rounds.push(Load { seconds: self.seconds, ..load.clone() }.measure().await?);
            }
        }
        Ok(series)
    }

    async fn orders(&self, sizes: &[usize], report: &mut Report) -> anyhow::Result<()> {
        let empty = Deployment::open(PRODUCTS, "").await?;
        let bare = usage::resident(empty.gateway.pid()?)?;
        cli::say!("no orders: gateway {:.1} MiB", bare as f64 / MIB);
        drop(empty);
        let mut deployments = Vec::new();
        for size in sizes {
            let (nats, known) = seed::record(PRODUCTS, *size).await?;
            let deployment = Deployment::on(nats).await?;
            std::fs::write(deployment.file("known"), known)?;
            // So that the next gateway reads the history alone.
            lists(deployment.grpc).await?;
            restarted(*size, deployment.gateway.pid()?, bare, &deployment).await?;
            deployments.push((*size, deployment));
        }
        for kind in [Kind::Get, Kind::List, Kind::Create] {
            let load = |(size, deployment): &(usize, Deployment)| -> anyhow::Result<(String, Load)> {
                let orders = deployment.file("known").to_str().context("the path is not UTF-8")?.to_owned();
                let load = Load { orders: Some(orders), ..Load::of(kind, &deployment.url()).alone() };
                Ok((format!("{size} orders"), deployment.watched(load)?))
            };
            let series = self.turns(deployments.iter().map(load).collect::<anyhow::Result<_>>()?).await?;
            report.section(&format!("{kind:?}, one at a time, by stored orders"), &series);
            if let [first, .., last] = &series[..] {
                report.ratio("p50, most orders / fewest", last.p50().over(first.p50()), "");
            }
        }
        Ok(())
    }

    async fn products(&self, sizes: &[usize], report: &mut Report) -> anyhow::Result<()> {
        let mut deployments = Vec::new();
        for size in sizes {
            let mut deployment = Deployment::open(*size, "").await?;
            // Filling affects a worker's memory: measure one that starts on the stored stock.
            deployment.rehire().await?;
            let memory = usage::resident(deployment.workers[0].pid()?)? as f64 / MIB;
            cli::say!("{size} products: a freshly started worker has {memory:.0} MiB");
            deployments.push((*size, deployment));
        }
        for kind in [Kind::Check, Kind::Create] {
            let load = |(size, deployment): &(usize, Deployment)| -> anyhow::Result<(String, Load)> {
                let load = Load { callers: CALLERS, products: *size, ..Load::of(kind, &deployment.url()) };
                Ok((format!("{size} products"), deployment.watched(load)?))
            };
            let series = self.turns(deployments.iter().map(load).collect::<anyhow::Result<_>>()?).await?;
            report.section(&format!("{kind:?}, {CALLERS} at a time, by products"), &series);
        }
        Ok(())
    }

    async fn connections(&self, deployment: &Deployment, report: &mut Report) -> anyhow::Result<()> {
        let load = |connections: usize| {
            let load = Load {
                connections,
                callers: connections.max(64),
                ..Load::of(Kind::Check, &deployment.url())
            };
            Ok((format!("{connections} connections"), deployment.watched(load)?))
        };
        let loads = [1, 10, 100, 1_000].map(load).into_iter().collect::<anyhow::Result<_>>()?;
        let series = self.turns(loads).await?;
        report
            .section("CheckInventory, at least 64 and one per connection at a time, by connections", &series);
        Ok(())
    }

    async fn items(&self, deployment: &Deployment, report: &mut Report) -> anyhow::Result<()> {
        for kind in [Kind::Check, Kind::Create] {
            let load = |items: usize| {
                let load = Load { callers: CALLERS, items, ..Load::of(kind, &deployment.url()) };
                Ok((format!("{items} items"), deployment.watched(load)?))
            };
            let loads = [1, 10, 100, 500].map(load).into_iter().collect::<anyhow::Result<_>>()?;
            let series = self.turns(loads).await?;
            report.section(&format!("{kind:?}, {CALLERS} at a time, by items"), &series);
        }
        Ok(())
    }

    async fn workers(&self, report: &mut Report) -> anyhow::Result<()> {
        let mut deployments = Vec::new();
        for workers in 1..=4 {
            let mut deployment = Deployment::open(PRODUCTS, "").await?;
            for _ in 1..workers {
                deployment.hire().await?;
            }
            deployments.push(deployment);
        }
        let load = |deployment: &Deployment| {
            let load = Load::of(Kind::Create, &deployment.url());
            Ok((format!("{} workers", deployment.workers.len()), deployment.watched(load)?))
        };
        let series = self.turns(deployments.iter().map(load).collect::<anyhow::Result<_>>()?).await?;
        report.section("CreateOrder, 64 at a time, by workers", &series);
        Ok(())
    }
}

/// Starts another gateway and worker on the same streams, and prints how long they take.
async fn restarted(orders: usize, beside: u32, bare: u64, deployment: &Deployment) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (gateway, port) =
        deployment::gateway(&deployment.nats, &[], deployment.file("second gateway")).await?;
    let serves = begun.elapsed();
    lists(port).await?;
    let listed = begun.elapsed();
    let resident = usage::resident(gateway.pid()?)?;
    let peak = usage::peak(gateway.pid()?)?;
    let each = |bytes: u64| bytes.saturating_sub(bare) as f64 / orders as f64;
    cli::say!(
        "{orders} orders: a gateway serves after {:.2} s, lists after {:.2} s, {:.1} MiB ({:.0} bytes per order), peak \
        {:.1} MiB ({:.0}); the first has {:.1} MiB, nats-server {:.1} MiB",
        serves.as_secs_f64(),
        listed.as_secs_f64(),
        resident as f64 / MIB,
        each(resident),
        peak as f64 / MIB,
        each(peak),
        usage::resident(beside)? as f64 / MIB,
        usage::resident(deployment.nats.pid())? as f64 / MIB
    );
    let begun = Instant::now();
    let _worker = deployment::worker(&deployment.nats, &[], deployment.file("second worker")).await?;
    cli::say!("{orders} orders: a worker serves after {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until a gateway lists orders.
async fn lists(port: u16) -> anyhow::Result<()> {
    let begun = Instant::now();
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?;
    let mut client = OrderServiceClient::new(channel);
    while let Err(status) = client.list_orders(ListOrdersRequest::default()).await {
        anyhow::ensure!(begun.elapsed() < LISTS, "orders are not listed after {LISTS:?}: {status}");
        sleep(LOOK).await;
    }
    Ok(())
}
