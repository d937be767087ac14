//! `loadtest faults`: the fault table. Starts three nats-servers, two gateways and two workers, places orders at a
//! constant rate, injects one fault after the other, and compares health, console and alerts with whether calls failed.

mod alerts;
mod drill;
mod fault;
mod fill;
mod load;
mod report;
mod row;
mod sample;
mod truth;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use alerts::Prometheus;
use fault::{Cause, Fault};
use load::{Calls, Load, since};
use row::{Observed, Row};
use sample::Sampler;

use crate::soak::load::channels;
use crate::soak::plan::{Kind, Size, Target};
use crate::soak::site::{Setup, Site};

const SIZE: Size = Size { nodes: 3, gateways: 2, workers: 2 };
/// Load before a fault, so that there are calls that can fail.
const LEAD: Duration = Duration::from_secs(5);
/// A fault is over when every call has succeeded for this long, in seconds.
const CALM: f64 = 3.0;
/// How long recovery may take.
const RECOVERY: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(200);
/// How long alerts may take to fire, and to resolve.
const FIRES: Duration = Duration::from_secs(60);
const RESOLVES: Duration = Duration::from_secs(60);
/// A node's storage limit: small enough to be filled.
const STORAGE: &str = "jetstream { sync_interval: always, max_file_store: 160MB }";
/// Downtime in the fault that restarts everything.
const RESTART: Duration = Duration::from_secs(2);

/// Options of `loadtest faults`
#[derive(clap::Args)]
pub(crate) struct Faults {
    /// Only these faults, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT")]
    only: Vec<Cause>,
    /// Duration of each fault, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Durations for which a node is frozen, in seconds: one freeze for each
    #[arg(long, default_value = "20,120", value_delimiter = ',', value_name = "SECONDS")]
    freeze: Vec<u64>,
    /// Orders per second
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Deadline of each call, in seconds
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    deadline: u64,
    /// Time within which health and alerts have to follow the calls, in seconds
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    within: f64,
    /// Prometheus program to start, for the alerts
    #[arg(long, value_name = "PROGRAM")]
    prometheus: Option<PathBuf>,
    /// Alerting rules for it
    #[arg(long, default_value = "deploy/prometheus/alerts.yml", value_name = "FILE")]
    rules: PathBuf,
    /// Check only that the alerts of each fault fire during it and resolve after it; use rules with shorter times than
    /// those that are shipped
    #[arg(long, requires = "prometheus")]
    fire: bool,
    /// Also write all results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the logs in this folder
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

impl Faults {
    fn list(&self) -> Vec<Fault> {
        let causes = match (self.only.is_empty(), self.fire) {
            (false, _) => self.only.clone(),
            (true, false) => Cause::table(),
            (true, true) => Cause::drills(),
        };
        let faults = |cause: &Cause| match cause {
            Cause::NodeFrozen => {
                self.freeze.iter().map(|time| (*cause, Duration::from_secs(*time))).collect()
            }
            Cause::AllRestarted => vec![(*cause, RESTART)],
            _ => vec![(*cause, Duration::from_secs(self.seconds))],
        };
        causes.iter().flat_map(faults).map(|(cause, lasts)| Fault { cause, lasts }).collect()
    }
}

/// Runs the table. True if every bound holds.
pub(crate) async fn run(options: Faults) -> anyhow::Result<bool> {
    let temporary = tempfile::tempdir()?;
    let logs = options.logs.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(logs)?;
    let passed = tokio::select! {
        passed = table(&options, logs) => passed,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if !matches!(passed, Ok(true)) {
        let kept = if options.logs.is_some() { logs.to_owned() } else { temporary.keep() };
        cli::say!("the logs are in {}", kept.display());
    }
    passed
}

async fn table(options: &Faults, logs: &Path) -> anyhow::Result<bool> {
    let setup = Setup { size: SIZE, logs, nats: STORAGE, worker: &[] };
    let mut site = Site::open(&setup).await?;
    let channels = channels(&site.gateway_urls())?;
    load::stock(channels.first().context("no gateway")?.clone()).await.context("the first stock")?;
    let mut rows = Vec::new();
    for fault in options.list() {
        let observed =
            observe(fault, options, &mut site, &channels).await.with_context(|| fault.to_string())?;
        let row = Row::judge(observed, (!options.fire).then_some(options.within));
        report::note(&row);
        rows.push(row);
    }
    if options.fire {
        report::fired(&rows)
    } else {
        report::table(&rows)
    }
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report::json(&rows)))
            .with_context(|| format!("--json {}", file.display()))?;
    }
    let passed = rows.iter().all(|row| row.findings.is_empty());
    cli::say!("\n{}", if passed { "pass" } else { "FAILED" });
    Ok(passed)
}

/// One fault, from some load before it until the system has recovered.
async fn observe(
    fault: Fault,
    options: &Faults,
    site: &mut Site,
    channels: &[Channel],
) -> anyhow::Result<Observed> {
    let aims = fault.aim(site, SIZE).await?;
    let instances = site.instances();
    let mut prometheus = match &options.prometheus {
        Some(program) => Some(Prometheus::start(program, &options.rules, &instances).await?),
        None => None,
    };
    let zero = Instant::now() + LEAD;
    prometheus.iter_mut().for_each(|prometheus| prometheus.watch(zero));
    let load = Load { rate: options.rate, deadline: Duration::from_secs(options.deadline) };
    let (calls, stop) = (Calls::default(), CancellationToken::new());
    let running = load::run(load, channels.to_vec(), zero, calls.clone(), stop.clone());
    let running = AbortOnDropHandle::new(tokio::spawn(running));
    let sampler = Sampler::start(&instances, zero);
    sleep_until(zero).await;

    let struck = fault.begin(&aims, site).await?;
    if let Some(prometheus) = &prometheus {
        let left = |target: Target| !struck.aims.contains(&(Kind::Kill, target));
        let left: Vec<_> = site.instances().into_iter().filter(|instance| left(instance.target)).collect();
        prometheus.discover(&left)?;
    }
    let mut broken = Vec::new();
    let alerts = if options.fire { fault.cause.alerts() } else { &[] };
    if let Some(prometheus) = prometheus.as_ref().filter(|_| options.fire) {
        let silent =
            prometheus.until(alerts, FIRES, |alert| alert.is_some_and(|alert| alert.fired.is_some())).await;
        broken.extend(silent.iter().map(|name| format!("the alert {name} did not fire within {FIRES:?}")));
    } else {
        sleep(fault.lasts).await;
    }
    broken.extend(fault.end(struck, site, SIZE).await.err().map(|error| format!("{error:#}")));
    let ended = since(zero, Instant::now());
    prometheus.as_ref().map_or(Ok(()), |prometheus| prometheus.discover(&instances))?;
    if !recovered(site, &calls, zero, options.rate).await? {
        broken.push(format!("calls still fail {RECOVERY:?} after the end of the fault"));
    }
    if let Some(prometheus) = prometheus.as_ref().filter(|_| options.fire) {
        let on = prometheus.until(alerts, RESOLVES, |alert| alert.is_none_or(|alert| !alert.now)).await;
        broken.extend(
            on.iter().map(|name| format!("the alert {name} is still active {RESOLVES:?} after the fault")),
        );
    } else {
        sleep(Duration::from_secs_f64(options.within + CALM)).await;
    }

    stop.cancel();
    running.await.context("the load")?;
    let signals = sampler.stop();
    broken.extend(site.heal().await.err().map(|error| format!("{error:#}")));
    let calls = calls.all();
    let lost = load::lost(&calls, channels).await;
    let alerts = prometheus.as_ref().map(Prometheus::seen);
    Ok(Observed { fault, ended, calls, signals, alerts, lost, broken })
}

/// Waits until calls succeed and keep succeeding. A process that exits meanwhile is restarted, because at start it
/// waits for JetStream for a limited time only.
async fn recovered(site: &mut Site, calls: &Calls, zero: Instant, rate: u32) -> anyhow::Result<bool> {
    let limit = Instant::now() + RECOVERY;
    let begun = since(zero, Instant::now());
    while Instant::now() < limit {
        site.revive()?;
        let from = since(zero, Instant::now()) - CALM;
        if from >= begun && calls.good_since(from, rate as usize) {
            return Ok(true);
        }
        sleep(LOOK).await;
    }
    Ok(false)
}
