//! `loadtest restart`: how long a worker takes from its start until it serves, with a large stock in a snapshot, and
//! how much memory it has then. Starts everything itself.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contract::Item;
use futures_util::{StreamExt as _, stream};
use inventory_worker::config::Serve;
use inventory_worker::ledger::Ledger;
use inventory_worker::stock::Command;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use uuid::Uuid;

use crate::deployment::submit;
use crate::{bar, usage};

/// Entries between snapshots while the ledger is filled, so that the last snapshot is near its end.
const SNAPSHOT_EVERY: u64 = 50;
const CHUNK: usize = 5_000;
const LIMIT: Duration = Duration::from_secs(60);
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Options of `loadtest restart`
#[derive(clap::Args)]
pub(crate) struct Restart {
    /// Products in stock
    #[arg(long, default_value_t = 100_000)]
    products: usize,
    /// Open reservations, with three products each
    #[arg(long, default_value_t = 200_000)]
    reservations: usize,
    /// Number of starts to measure
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Options of `loadtest started`
#[derive(clap::Args)]
pub(crate) struct Started {
    nats_url: String,
}

/// Fills a ledger and starts workers on it, one after the other.
pub(crate) async fn run(options: Restart) -> anyhow::Result<bool> {
    let server = tokio::task::spawn_blocking(local_nats::Server::start).await??;
    let mut config = Serve::at(&server.url());
    config.nats.snapshot_every = SNAPSHOT_EVERY;
    let (_link, ledger) = inventory_worker::open(&config.nats, 512).await?;
    fill(&ledger, &options).await?;
    let entries = ledger.stock().sequence();
    cli::say!(
        "{} products, {} open reservations, {entries} ledger entries",
        options.products,
        options.reservations
    );
    let mut times = Vec::new();
    for _ in 0..options.rounds.max(1) {
        let (took, memory) = start(&server.url()).await?;
        cli::say!("ready after {:.2} s, {memory} MiB", took.as_secs_f64());
        times.push(took);
    }
    times.sort_unstable();
    cli::say!("median {:.2} s", times[times.len() / 2].as_secs_f64());
    Ok(true)
}

/// Runs the worker: prints that it is ready, and waits to be killed.
pub(crate) async fn started(options: Started) -> anyhow::Result<bool> {
    let _worker = inventory_worker::Worker::start(Serve::at(&options.nats_url)).await?;
    cli::say!("ready");
    std::future::pending().await
}

async fn fill(ledger: &Ledger, options: &Restart) -> anyhow::Result<()> {
    let bar = bar::bar(options.reservations, "reserve");
    let names: Vec<Box<str>> =
        (0..options.products).map(|number| format!("product-{number:06}").into()).collect();
    for chunk in names.chunks(CHUNK) {
        let counted = chunk.iter().map(|name| (name.clone(), 1_000_000)).collect();
        submit(ledger, Command::Count(counted)).await?;
    }
    let expires_at = Some(u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())? + DAY_MS);
    let reserve = |number: usize| {
        let item = |step: usize| Item {
            product: names[(number * 7 + step * 31) % names.len()].clone(),
            quantity: 1,
        };
        let items = (0..3).map(item).collect();
        submit(ledger, Command::Reserve { order: Uuid::new_v4(), items, expires_at })
    };
    let mut reserved = stream::iter(0..options.reservations).map(reserve).buffer_unordered(2_048);
    while let Some(result) = reserved.next().await {
        result?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Starts a worker in a separate process. Returns the time until it serves, and its resident memory in MiB.
async fn start(nats_url: &str) -> anyhow::Result<(Duration, u64)> {
    let begun = Instant::now();
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["started", nats_url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    match tokio::time::timeout(LIMIT, lines.next_line()).await.context("not ready in time")?? {
        Some(line) if line == "ready" => {}
        other => bail!("the worker printed {other:?}"),
    }
    let took = begun.elapsed();
    let memory = usage::resident(child.id().context("the worker has exited")?)? >> 20;
    child.kill().await?;
    Ok((took, memory))
}
