//! `loadtest soak`: starts a cluster, gateways, workers and proxies on every connection, runs mixed load, injects
//! faults from a seed, and compares what callers were told with what is stored.

mod check;
mod history;
pub(crate) mod leader;
pub(crate) mod load;
pub(crate) mod plan;
pub(crate) mod proxy;
mod record;
pub(crate) mod site;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use serde_json::Value;
use tokio::sync::watch::Sender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use check::{Check, Evidence};
use history::History;
use load::Client;
use plan::{Fault, Kind, Plan, Size, Target};
use record::Row;
use site::{Setup, Site, Weight};
use watch::Seen;

const SIZE: Size = Size { nodes: 3, gateways: 2, workers: 3 };
const CLIENTS: u64 = 12;
const WATCHES: usize = 3;
/// Reservations without an order expire after this, in seconds.
const TTL: &str = "5";
/// How long the system may take to come to rest.
const REST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);
/// Writes have to succeed again within this time after a leader was killed.
const LEADER: Duration = Duration::from_secs(15);
/// How much a process may grow from beginning to end: bytes, open files, and tasks.
const GROWTH: (u64, usize, usize) = (96 << 20, 24, 32);

/// Options of `loadtest soak`
#[derive(clap::Args)]
pub(crate) struct Soak {
    /// Duration of the load, in minutes
    #[arg(long, default_value_t = 3.0, conflicts_with = "seconds")]
    minutes: f64,
    /// Duration of the load in seconds, instead of --minutes
    #[arg(long)]
    seconds: Option<u64>,
    /// Seed of the faults: the same seed gives the same plan
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the logs in this folder
    #[arg(long, value_name = "FOLDER")]
    logs: Option<std::path::PathBuf>,
}

/// Runs a soak. True if all checks passed.
pub(crate) async fn run(options: Soak) -> anyhow::Result<bool> {
    let length = options.seconds.map_or(Duration::from_secs_f64(options.minutes * 60.0), Duration::from_secs);
    let plan = Plan::new(options.seed, length, SIZE);
    cli::say!(
        "seed {}, {} s, {} faults of {} kinds",
        options.seed,
        length.as_secs(),
        plan.faults.len(),
        plan.kinds()
    );
    plan.faults.iter().for_each(|fault| cli::say!("{fault}"));
    let temporary = tempfile::tempdir()?;
    let logs = options.logs.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(logs)?;
    let passed = tokio::select! {
        passed = soak(&plan, length, options.seed, logs) => passed,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if !matches!(passed, Ok(true)) {
        let kept = if options.logs.is_some() { logs.to_owned() } else { temporary.keep() };
        cli::say!("the logs are in {}", kept.display());
        cli::say!("to repeat: loadtest soak --seconds {} --seed {}", length.as_secs(), options.seed);
    }
    passed
}

async fn soak(plan: &Plan, length: Duration, seed: u64, logs: &Path) -> anyhow::Result<bool> {
    let setup = Setup { size: SIZE, logs, nats: "", worker: &["--reservation-ttl", TTL] };
    let mut site = Site::open(&setup).await?;
    let urls = site.gateway_urls();
    let channels = || load::channels(&urls);
    prepare(channels()?).await?;
    let weights = site.weights().await?;
    let tap = Sender::new(Vec::<Row>::new());
    let _tap = spawn(record::tap(site.link().clone(), order_streams::INVENTORY, tap.clone()));
    let watches: Vec<Sender<Vec<Seen>>> = (0..WATCHES).map(|_| Sender::default()).collect();
    let mut followers = Vec::new();
    for (number, seen) in watches.iter().enumerate() {
        followers.push(spawn(watch::follow(channels()?, number, seen.clone())));
    }
    sleep(LOOK * 4).await;

    let (history, stop) = (Arc::new(History::new()), CancellationToken::new());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client =
            Client::new(format!("c{seed}-{number}"), channels()?, history.clone(), seed ^ (number << 32));
        clients.spawn(client.run(stop.clone()));
    }
    let mut findings = suffer(plan, length, &mut site).await;
    stop.cancel();
    while let Some(ended) = clients.join_next().await {
        ended.context("a client of the soak failed")?;
    }
    if let Err(error) = site.heal().await {
        findings.push(format!("{error:#}"));
    }
    rest(&site, &watches).await.unwrap_or_else(|error| findings.push(format!("{error:#}")));
    report(plan, length, &history);
    match site.weights().await {
        Ok(now) => findings.extend(heavier(&weights, &now)),
        Err(error) => findings.push(format!("a process has exited by itself: {error:#}")),
    }
    let checks = audit(&site, &history, &tap, &watches).await?;
    drop(followers);
    site.close().await.unwrap_or_else(|error| findings.push(format!("at shutdown: {error:#}")));
    findings.extend(panics(logs)?);
    Ok(verdict(&checks, &findings, plan, length, &history))
}

/// Sets the initial stock.
async fn prepare(channels: Vec<tonic::transport::Channel>) -> anyhow::Result<()> {
    let line =
        |(product, units): &(&str, i32)| Adjustment { product_id: (*product).to_owned(), delta: *units };
    let adjustments = load::PRODUCTS.iter().map(line).collect();
    let request = AdjustStockRequest { request_id: "first".to_owned(), adjustments, reason: String::new() };
    let mut client = InventoryServiceClient::new(channels.first().context("no gateway")?.clone());
    client.adjust_stock(request).await.context("the initial stock")?;
    Ok(())
}

/// Injects the faults at their times, and waits for the end of the load. Returns what did not stop or come back.
async fn suffer(plan: &Plan, length: Duration, site: &mut Site) -> Vec<String> {
    let begun = Instant::now();
    let mut findings = Vec::new();
    for fault in &plan.faults {
        sleep_until(begun + fault.at).await;
        if let Err(error) = site.suffer(*fault).await {
            findings.push(format!("{fault}: {error:#}"));
        }
    }
    sleep_until(begun + length).await;
    findings
}

/// Waits until every event is processed, every reservation without an order has expired, and every watch has caught up.
async fn rest(site: &Site, watches: &[Sender<Vec<Seen>>]) -> anyhow::Result<()> {
    let limit = Instant::now() + REST;
    let mut what = String::new();
    while Instant::now() < limit {
        match resting(site, watches).await {
            Ok(None) => return Ok(()),
            Ok(Some(waits)) => what = waits,
            Err(error) => what = format!("{error:#}"),
        }
        sleep(LOOK).await;
    }
    anyhow::bail!("not at rest after {REST:?}: {what}")
}

/// What is still pending, if anything.
async fn resting(site: &Site, watches: &[Sender<Vec<Seen>>]) -> anyhow::Result<Option<String>> {
    let consumer =
        leader::ask(site.link(), "$JS.API.CONSUMER.INFO.ORDERS.inventory-worker", Value::Null).await?;
    let number = |name: &str| consumer[name].as_u64().with_context(|| format!("no {name}: {consumer}"));
    let (pending, unacknowledged) = (number("num_pending")?, number("num_ack_pending")?);
    if pending + unacknowledged > 0 {
        return Ok(Some(format!(
            "the consumer has {pending} pending and {unacknowledged} unacknowledged events"
        )));
    }
    let rows = record::read(site.link(), order_streams::ORDERS, 1).await?;
    let last =
        rows.iter().rev().find(|row| row.subject.starts_with("orders.event.")).map_or(0, |row| row.sequence);
    for (number, watch) in watches.iter().enumerate() {
        let at = watch.borrow().last().map_or(0, |seen| seen.sequence);
        if at < last {
            return Ok(Some(format!("watch {number} is at {at} of {last}")));
        }
    }
    // The workers answer again.
    let stock = leader::ask(site.link(), "get_stock", serde_json::json!({ "productId": "vase" })).await?;
    ensure!(stock["stock"].is_object(), "no stock: {stock}");
    Ok(None)
}

async fn audit(
    site: &Site,
    history: &History,
    tap: &Sender<Vec<Row>>,
    watches: &[Sender<Vec<Seen>>],
) -> anyhow::Result<Vec<Check>> {
    // Time for reservations without an order to expire: five seconds, and some more.
    sleep(Duration::from_secs(8)).await;
    let orders = record::replicas(site.link(), order_streams::ORDERS, site.nodes()).await?;
    let ledger = record::replicas(site.link(), order_streams::INVENTORY, site.nodes()).await?;
    let kept = ledger.first().map(Vec::as_slice).unwrap_or_default();
    let first = kept.first().map_or(u64::MAX, |row| row.sequence);
    // Of the tap only purged entries are used; the rest are read from the stream.
    let mut whole: Vec<Row> = tap.borrow().iter().filter(|row| row.sequence < first).cloned().collect();
    whole.extend_from_slice(kept);
    let watched: Vec<Vec<Seen>> = watches.iter().map(|seen| seen.borrow().clone()).collect();
    let book = history.book();
    Ok(check::all(&Evidence {
        book: &book,
        orders: &orders,
        ledger: &ledger,
        whole: &whole,
        watched: &watched,
    }))
}

/// Prints the longest time without a write for each fault, and how calls ended.
fn report(plan: &Plan, length: Duration, history: &History) {
    let book = history.book();
    cli::say!("\n   faults, and the longest time without a write until the next");
    for (fault, gap) in gaps(plan, &book, length) {
        cli::say!("{fault:<60} {:>6.2} s", gap.as_secs_f64());
    }
    cli::say!("\n   results of calls");
    for (kind, count) in &book.kinds {
        cli::say!("{count:>8}  {kind}");
    }
}

fn gaps(plan: &Plan, book: &history::Book, length: Duration) -> Vec<(String, Duration)> {
    let ends = plan.faults.iter().skip(1).map(|fault| fault.at).chain([length]);
    let gap = |(fault, end): (&Fault, Duration)| (fault.to_string(), book.gap(fault.at, end));
    plan.faults.iter().zip(ends).map(gap).collect()
}

/// Processes that grew.
fn heavier(before: &[Weight], after: &[Weight]) -> Vec<String> {
    let mut findings = Vec::new();
    cli::say!("\n   memory, open files and tasks, at the beginning and at the end");
    for ((name, memory, files, tasks), (_, memory_now, files_now, tasks_now)) in before.iter().zip(after) {
        let mib = |bytes: &u64| bytes >> 20;
        cli::say!(
            "{name:<10} {:>4} MiB {files:>4} {tasks:>4}   {:>4} MiB {files_now:>4} {tasks_now:>4}",
            mib(memory),
            mib(memory_now)
        );
        if *memory_now > memory + GROWTH.0 || *files_now > files + GROWTH.1 || *tasks_now > tasks + GROWTH.2 {
            findings.push(format!("{name} grew beyond the limit"));
        }
    }
    findings
}

/// Panics found in the logs.
fn panics(logs: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in std::fs::read_dir(logs)? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        findings.extend(
            text.lines()
                .filter(|line| line.contains("panicked at"))
                .map(|line| format!("{}: {line}", path.display())),
        );
    }
    Ok(findings)
}

fn verdict(checks: &[Check], findings: &[String], plan: &Plan, length: Duration, history: &History) -> bool {
    cli::say!("\n   checks");
    for check in checks {
        let word = if check.wrong.is_empty() { "ok" } else { "FAILED" };
        cli::say!("{word:<8} {} ({})", check.name, check.count);
        check.wrong.iter().take(10).for_each(|wrong| cli::say!("         {wrong}"));
    }
    let mut late = Vec::new();
    let book = history.book();
    for (fault, (name, gap)) in plan.faults.iter().zip(gaps(plan, &book, length)) {
        let leader = matches!(fault.target, Target::OrdersLeader | Target::StockLeader);
        if leader && fault.kind == Kind::Kill && gap > LEADER {
            late.push(format!("{name}: no write for {:.1} s", gap.as_secs_f64()));
        }
    }
    findings.iter().chain(&late).for_each(|finding| cli::say!("FAILED   {finding}"));
    let passed = checks.iter().all(|check| check.wrong.is_empty()) && findings.is_empty() && late.is_empty();
    cli::say!("{}", if passed { "pass" } else { "FAILED" });
    passed
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
