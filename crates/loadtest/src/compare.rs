//! `loadtest compare`: what a call through the gateway costs, compared with a bare gRPC server and plain NATS. Targets
//! are measured in turns, so that noise on the machine affects all of them; ratios are taken within a round. Starts
//! everything itself.

mod peer;
pub(crate) mod report;
mod routes;
mod traces;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::Item;
use inventory_worker::config::Serve;
use inventory_worker::ledger::Ledger;
use inventory_worker::stock::Command;
use local_nats::{Server, spare_port};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::deployment::{self, Deployment};
use crate::load::{Kind, Load, product};
use crate::process::{Process, listens};
use report::Report;
use turns::{Bench, PRODUCTS};

const ALWAYS: &str = "jetstream { sync_interval: always }";
/// Concurrent appends, for the ledger to group.
const GROUP: usize = 256;
/// Most concurrent calls of an open loop: enough that the rate is the limit.
const OPEN: usize = 512;

/// Options of `loadtest compare`
#[derive(clap::Args)]
pub(crate) struct Compare {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Parts to measure; default: all
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The `loadtest` of the build before, whose compiled-in route `routes` compares with
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Write all values to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A part of the comparison.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// 64 concurrent calls: echo, gateway, NATS, durable orders
    Busy,
    /// One call at a time
    Alone,
    /// Open loop at half of the peak rate
    Half,
    /// Orders for one product against orders for many
    Hot,
    /// Four workers against one
    Workers,
    /// Every append synced to the disk
    Sync,
    /// Routes of a proto file against those that are compiled in, and streams against NATS
    Routes,
    /// Tracing of 1 % of the calls, and of all calls, against none
    Traces,
}

/// Measures each part in turn.
pub(crate) async fn run(options: Compare) -> anyhow::Result<bool> {
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let bench = Bench { rounds: options.rounds.max(1), seconds: options.seconds };
    let deployment = Deployment::open(PRODUCTS, "").await?;
    let echo = Echo::start(&deployment).await?;
    let mut report = Report::default();
    let mut peak = None;
    if wanted(Part::Busy) || wanted(Part::Half) {
        peak = Some(bench.busy(&deployment, &echo, &mut report).await?);
    }
    if wanted(Part::Alone) {
        bench.alone(&deployment, &echo, &mut report).await?;
    }
    if let Some(peak) = peak.filter(|_| wanted(Part::Half)) {
        bench.half(&deployment, &echo, peak, &mut report).await?;
    }
    if wanted(Part::Hot) {
        bench.hot(&deployment, &mut report).await?;
    }
    if wanted(Part::Workers) {
        bench.workers(&deployment, &mut report).await?;
    }
    if wanted(Part::Sync) {
        bench.sync(&mut report).await?;
    }
    if wanted(Part::Routes) {
        routes::measure(&bench, &deployment, options.before.as_deref(), &mut report).await?;
    }
    if wanted(Part::Traces) {
        traces::measure(&bench, &deployment, &mut report).await?;
    }
    if let Some(file) = options.json {
        report.write(&file)?;
    }
    Ok(true)
}

/// The bare server.
struct Echo {
    process: Process,
    url: String,
}

impl Echo {
    async fn start(deployment: &Deployment) -> anyhow::Result<Echo> {
        let port = spare_port()?;
        let process = Process::echo(port, &deployment.file("echo"))?;
        listens(port).await?;
        Ok(Echo { process, url: format!("http://127.0.0.1:{port}") })
    }

    fn load(&self) -> anyhow::Result<Load> {
        let watch = vec![("echo".to_owned(), self.process.pid()?)];
        Ok(Load { watch, ..Load::of(Kind::Check, &self.url) })
    }
}

/// The peak rates that were measured, in calls per second.
struct Peak {
    echo: f64,
    check: f64,
    create: f64,
}

impl Bench {
    async fn busy(&self, deployment: &Deployment, echo: &Echo, report: &mut Report) -> anyhow::Result<Peak> {
        let url = deployment.url();
        let loads = [
            ("echo: CheckInventory", echo.load()?),
            ("gateway: CheckInventory", deployment.watched(Load::of(Kind::Check, &url))?),
            ("NATS: check_inventory", deployment.watched(Load::of(Kind::Nats, &deployment.nats.url()))?),
            ("gateway: CreateOrder", deployment.watched(Load::of(Kind::Create, &url))?),
            ("  with a request_id", deployment.watched(Load::of(Kind::Named, &url))?),
        ];
        let [echo, check, nats, create, named] = self.turns(loads).await?;
        report
            .section("64 concurrent calls, 4 connections, 3 items", [&echo, &check, &nats, &create, &named]);
        report.ratio(
            "CPU per call, gateway's / echo's",
            check.cpu("gateway").over(echo.cpu("echo")),
            "at most 1.1",
        );
        report.ratio("rate, gateway's / echo's", check.rate().over(echo.rate()), "");
        report.ratio("rate, CreateOrder / CheckInventory", create.rate().over(check.rate()), "at least 0.3");
        report.ratio("  with a request_id", named.rate().over(check.rate()), "");
        Ok(Peak { echo: echo.rate().median(), check: check.rate().median(), create: create.rate().median() })
    }

    async fn alone(&self, deployment: &Deployment, echo: &Echo, report: &mut Report) -> anyhow::Result<()> {
        let url = deployment.url();
        let loads = [
            ("echo: CheckInventory", echo.load()?.alone()),
            (
                "NATS: check_inventory",
                deployment.watched(Load::of(Kind::Nats, &deployment.nats.url()))?.alone(),
            ),
            ("gateway: CheckInventory", deployment.watched(Load::of(Kind::Check, &url))?.alone()),
            ("gateway: CreateOrder", deployment.watched(Load::of(Kind::Create, &url))?.alone()),
        ];
        let [echo, nats, check, create] = self.turns(loads).await?;
        report.section("one call at a time", [&echo, &nats, &check, &create]);
        let beyond = check.p50().minus(echo.p50()).minus(nats.p50());
        report.ratio("p50, gateway's − echo's − NATS's, in µs", beyond, "at most 60");
        Ok(())
    }

    async fn half(
        &self,
        deployment: &Deployment,
        echo: &Echo,
        peak: Peak,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let open = |load: Load, rate: f64| Load { rate: Some(rate / 2.0), callers: OPEN, ..load };
        let url = deployment.url();
        let loads = [
            ("echo: CheckInventory", open(echo.load()?, peak.echo)),
            ("gateway: CheckInventory", open(deployment.watched(Load::of(Kind::Check, &url))?, peak.check)),
            ("gateway: CreateOrder", open(deployment.watched(Load::of(Kind::Create, &url))?, peak.create)),
        ];
        let [echo, check, create] = self.turns(loads).await?;
        report.section(
            "open loop at half of that rate (latency counts from when a call is due)",
            [&echo, &check, &create],
        );
        report.ratio("p99 / p50, CreateOrder", create.p99().over(create.p50()), "at most 5");
        Ok(())
    }

    async fn hot(&self, deployment: &Deployment, report: &mut Report) -> anyhow::Result<()> {
        let load = Load { items: 1, ..Load::of(Kind::Create, &deployment.url()) };
        let loads = [
            ("CreateOrder of 1,000 products", deployment.watched(load.clone())?),
            ("CreateOrder of one product", deployment.watched(Load { products: 1, ..load })?),
        ];
        let [spread, hot] = self.turns(loads).await?;
        report.section("orders of one item", [&spread, &hot]);
        report.ratio("rate, one product / many", hot.rate().over(spread.rate()), "at least 0.8");
        Ok(())
    }

    async fn workers(&self, one: &Deployment, report: &mut Report) -> anyhow::Result<()> {
        let mut four = Deployment::open(PRODUCTS, "").await?;
        for _ in 1..4 {
            four.hire().await?;
        }
        let loads = [
            ("CreateOrder, 1 worker", one.watched(Load::of(Kind::Create, &one.url()))?),
            ("CreateOrder, 4 workers", four.watched(Load::of(Kind::Create, &four.url()))?),
        ];
        let [one, four] = self.turns(loads).await?;
        report.section("competing workers", [&one, &four]);
        report.ratio("rate, 4 workers / 1", four.rate().over(one.rate()), "at least 0.6");
        Ok(())
    }

    async fn sync(&self, report: &mut Report) -> anyhow::Result<()> {
        let deployment = Deployment::open(PRODUCTS, ALWAYS).await?;
        let [create] = self
            .turns([("CreateOrder", deployment.watched(Load::of(Kind::Create, &deployment.url()))?)])
            .await?;
        drop(deployment);
        let nats = deployment::nats(ALWAYS).await?;
        let (mut single, mut grouped) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            single.push(self.appends(&nats, 1).await?);
            grouped.push(self.appends(&nats, GROUP).await?);
        }
        report.section("every append synced to the disk (sync_interval: always)", [&create]);
        let (single, grouped) = (report::Figures(single), report::Figures(grouped));
        report.ratio("reservations/s, one at a time", single.clone(), "");
        report.ratio("reservations/s, 256 at a time", grouped.clone(), "");
        report.ratio("256 at a time / one at a time", grouped.over(single), "at least 3");
        Ok(())
    }

    /// Reservations per second of a ledger, with this many concurrent callers.
    async fn appends(&self, nats: &Server, at_once: usize) -> anyhow::Result<f64> {
        let (_link, ledger) = inventory_worker::open(&Serve::at(&nats.url()).nats, 512).await?;
        deployment::fill(&ledger, 1).await?;
        let (done, end) =
            (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs_f64(self.seconds));
        let mut callers = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..at_once {
            callers.spawn(reserve(ledger.clone(), done.clone(), end));
        }
        for ended in callers.join_all().await {
            ended?;
        }
        Ok(done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Reserves until `end`, one after the other.
async fn reserve(ledger: Ledger, done: Arc<AtomicU64>, end: Instant) -> anyhow::Result<()> {
    while Instant::now() < end {
        let items = [Item { product: product(0).into(), quantity: 1 }].into();
        deployment::submit(&ledger, Command::Reserve { order: Uuid::new_v4(), items, expires_at: None })
            .await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
