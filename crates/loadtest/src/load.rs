//! `loadtest load`: a load generator in a separate process, which other subcommands start. It makes one kind of call in
//! a closed loop (each caller waits for its reply) or an open loop (calls are sent at fixed times), and prints the
//! results as a line of JSON. Must not depend on what is compared.

mod call;
mod options;
mod routed;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use call::product;
use call::{Caller, Calls};
pub(crate) use options::{Kind, Load};

use crate::usage;

/// The histograms' upper bound, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Calls that succeeded.
    pub(crate) calls: u64,
    /// Calls that failed.
    pub(crate) failed: u64,
    /// The error of the first failed call.
    pub(crate) failure: Option<String>,
    /// Duration, in seconds.
    pub(crate) seconds: f64,
    /// Latency in microseconds: median, 99th and 99.9th percentile, maximum. In an open loop it counts from when the
    /// call was due.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) most: f64,
    /// Per watched process.
    pub(crate) used: Vec<Used>,
}

/// What a process used during the measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) name: String,
    /// CPU time per call, in microseconds.
    pub(crate) cpu: f64,
    /// Resident memory at the end, in bytes.
    pub(crate) resident: u64,
}

impl Load {
    fn arguments(&self) -> Vec<String> {
        let kind = clap::ValueEnum::to_possible_value(&self.kind);
        let kind = kind.map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut arguments = vec!["load".to_owned(), self.url.clone(), "--kind".to_owned(), kind];
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        add("connections", self.connections.to_string());
        add("callers", self.callers.to_string());
        add("seconds", self.seconds.to_string());
        add("warm", self.warm.to_string());
        add("items", self.items.to_string());
        add("products", self.products.to_string());
        self.rate.into_iter().for_each(|rate| add("rate", rate.to_string()));
        self.orders.iter().for_each(|orders| add("orders", orders.clone()));
        self.watch.iter().for_each(|(name, pid)| add("watch", format!("{name}={pid}")));
        arguments
    }

    /// Runs the load in a separate process.
    pub(crate) async fn measure(&self) -> anyhow::Result<Measured> {
        let output = tokio::process::Command::new(std::env::current_exe()?)
            .args(self.arguments())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("the load generator exited with {}", output.status);
        }
        let measured: Measured =
            serde_json::from_slice(&output.stdout).context("the load generator printed no result")?;
        if let Some(failure) = &measured.failure {
            cli::note!("{} of {} calls failed: {failure}", measured.failed, measured.calls + measured.failed);
        }
        Ok(measured)
    }
}

/// Generates the load, and prints the results.
pub(crate) async fn run(mut load: Load) -> anyhow::Result<bool> {
    load.watch.push(("load".to_owned(), std::process::id()));
    let calls = Arc::new(Calls::open(&load).await?);
    let run = Arc::new(Run::default());
    let pace = load.rate.map(|rate| Pace::start(rate, &run));
    let mut callers = JoinSet::new();
    for number in 0..load.callers {
        let (caller, run, pace) = (calls.caller(number), run.clone(), pace.clone());
        callers.spawn(async move { run.call(caller, pace.as_deref()).await });
    }
    sleep(Duration::from_secs_f64(load.warm)).await;
    let before = used(&load)?;
    let begun = Instant::now();
    run.counts.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs_f64(load.seconds)).await;
    run.counts.store(false, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let after = used(&load)?;
    run.stop.store(true, Ordering::Relaxed);
    pace.inspect(|pace| pace.due.close());

    let mut times = histogram()?;
    let (mut failed, mut failure) = (0, None);
    for ended in callers.join_all().await {
        let ended = ended?;
        times.add(&ended.times)?;
        failed += ended.failed;
        failure = failure.or(ended.failure);
    }
    let cpu =
        |before: Duration, after: Duration| (after - before).as_secs_f64() * 1e6 / times.len().max(1) as f64;
    let used = load.watch.iter().zip(before.iter().zip(&after)).map(|((name, _), (before, after))| Used {
        name: name.clone(),
        cpu: cpu(before.0, after.0),
        resident: after.1,
    });
    let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let measured = Measured {
        calls: times.len(),
        failed,
        failure,
        seconds,
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        most: times.max() as f64 / 1e3,
        used: used.collect(),
    };
    cli::say!("{}", serde_json::to_string(&measured)?);
    Ok(true)
}

fn used(load: &Load) -> anyhow::Result<Vec<(Duration, u64)>> {
    load.watch.iter().map(|(_, pid)| Ok((usage::cpu(*pid)?, usage::resident(*pid)?))).collect()
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

/// Shared by all callers.
#[derive(Default)]
struct Run {
    /// Set during the measurement: calls that end now count.
    counts: AtomicBool,
    stop: AtomicBool,
}

/// Results of one caller.
struct Ended {
    times: Histogram<u64>,
    failed: u64,
    failure: Option<String>,
}

impl Run {
    async fn call(&self, mut caller: Caller, pace: Option<&Pace>) -> anyhow::Result<Ended> {
        let mut ended = Ended { times: histogram()?, failed: 0, failure: None };
        while !self.stop.load(Ordering::Relaxed) {
            let begun = match pace {
                None => Instant::now(),
                Some(pace) => match pace.next().await {
                    Some(due) => due,
                    None => break,
                },
            };
            let answer = timeout(caller.deadline, caller.call()).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no reply within {:?}", caller.deadline)));
            if !self.counts.load(Ordering::Relaxed) {
                continue;
            }
            match answer {
                Ok(()) => {
                    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(LONGEST);
                    ended.times.saturating_record(nanos);
                }
                Err(failure) => {
                    ended.failed += 1;
                    ended.failure.get_or_insert(failure);
                }
            }
        }
        Ok(ended)
    }
}

/// When calls are due. A dedicated thread wakes callers, as the runtime's timers have a resolution of one millisecond.
struct Pace {
    begun: Instant,
    rate: f64,
    taken: AtomicU64,
    due: Semaphore,
}

impl Pace {
    fn start(rate: f64, run: &Arc<Run>) -> Arc<Pace> {
        let (taken, due) = (AtomicU64::new(0), Semaphore::new(0));
        let pace = Arc::new(Pace { begun: Instant::now(), rate, taken, due });
        let (paces, run) = (pace.clone(), run.clone());
        std::thread::spawn(move || {
            let mut sent = 0;
            while !run.stop.load(Ordering::Relaxed) {
                let due = (paces.begun.elapsed().as_secs_f64() * rate) as u64;
                paces.due.add_permits(usize::try_from(due - sent).unwrap_or(0));
                sent = due;
                let next = paces.at(sent + 1).saturating_duration_since(Instant::now());
                std::thread::sleep(next);
            }
        });
        pace
    }

    fn at(&self, number: u64) -> Instant {
        self.begun + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Waits until a call is due, and returns when it was due. `None` at the end.
    async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        Some(self.at(self.taken.fetch_add(1, Ordering::Relaxed) + 1))
    }
}
