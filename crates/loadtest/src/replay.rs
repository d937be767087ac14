//! `loadtest replay`: reads the files, sets the stock, reads the server's state, places the orders, reads the state
//! again, and reports. Each step has its own file. Must not depend on the wire format of requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::input;
use crate::server::{self, Server};

mod audit;
mod basket;
mod discrepancy;
mod place;
mod readback;
mod snapshot;
mod stock;
mod tally;

use snapshot::Snapshot;

/// How often the server is read while something may still change by itself.
const LOOK: Duration = Duration::from_secs(3);

/// Options of `loadtest replay`
#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// CSV with the columns order, customer, product, quantity, time: one line per product. `-` is standard input
    #[arg(long, value_name = "FILE")]
    orders: PathBuf,
    /// CSV with the columns product, on_hand: stock to set before the run
    #[arg(long, value_name = "FILE")]
    stock: Option<PathBuf>,
    /// Orders that are placed concurrently
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Place only the first N orders of the file
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Time for all attempts of one order, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    budget: u64,
    /// Time that the audit waits for reservations without an order to expire, in seconds
    #[arg(long, default_value_t = 150, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    settle: u64,
    /// Time limit for the whole run, in seconds; without it, the run lasts as long as the gateway answers
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    within: Option<u64>,
    #[command(flatten)]
    server: server::Reach,
}

/// Replays the orders. True if the audit finds nothing.
pub(crate) async fn run(options: Replay) -> anyhow::Result<bool> {
    let Some(within) = options.within else { return replay(options).await };
    let done = tokio::time::timeout(Duration::from_secs(within), replay(options)).await;
    done.unwrap_or_else(|_| {
        bail!("not done within {within} s (--within); nothing was audited. Run it again: orders are not placed twice")
    })
}

async fn replay(options: Replay) -> anyhow::Result<bool> {
    let mut baskets = input::file(&options.orders, basket::read)?;
    baskets.truncate(options.limit.unwrap_or(usize::MAX));
    let wanted = options.stock.as_deref().map(|path| input::file(path, stock::read)).transpose()?;
    let server = Arc::new(Server::new(&options.server)?);
    server.greet().await?;
    let settle = Duration::from_secs(options.settle);

    if let Some(wanted) = &wanted {
        stock::set(&server, wanted).await.context("the stock could not be set")?;
    }
    let before = settled(&server, settle).await.context("the server could not be read before the run")?;

    let plan = place::Plan { callers: options.concurrency, budget: Duration::from_secs(options.budget) };
    let placing = place::all(&server, baskets, plan).await?;
    let tally = tally::Tally::of(&placing, &before.orders);
    cli::say!("{}", tally.table(&placing, &server.repeats()));

    if server.gone(plan.budget).is_some() {
        bail!(
            "the gateway no longer answers; the placed orders were not audited. Run it again: orders are not placed twice"
        );
    }
    let run = audit::Run { placing: &placing, wanted: wanted.as_ref() };
    let report = audit(&server, &run, &before, plan.callers, settle).await;
    let report = report.context("the server could not be read after the run")?;
    cli::say!("{}", report.to_string().trim_end());
    Ok(report.clean())
}

/// Reads the server before the run, once no stock is reserved without an order. Reservations that an interrupted run
/// left would expire during this one and show up as a discrepancy.
async fn settled(server: &Server, patience: Duration) -> anyhow::Result<Snapshot> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let snapshot = Snapshot::read(server, None).await?;
        let loose = snapshot.loose();
        if loose == 0 {
            return Ok(snapshot);
        }
        if start.elapsed() >= patience {
            cli::note!("{loose} products still have stock reserved without a listed order; continuing");
            return Ok(snapshot);
        }
        if !told {
            cli::note!(
                "{loose} products have stock reserved without a listed order; waiting for these reservations to expire"
            );
            told = true;
        }
        tokio::time::sleep(LOOK.min(patience.saturating_sub(start.elapsed()))).await;
    }
}

/// Reads every placed order back, then compares stock and orders before and after. Repeats that while a difference may
/// still go away by itself.
async fn audit(
    server: &Server,
    run: &audit::Run<'_>,
    before: &Snapshot,
    callers: u16,
    patience: Duration,
) -> anyhow::Result<audit::Report> {
    let unreadable = readback::all(server, run.placing, callers).await?;
    let start = Instant::now();
    let mut waited = Duration::ZERO;
    loop {
        let after = Snapshot::read(server, Some(&before.orders)).await?;
        let mut report = audit::compare(before, &after, run);
        if !report.may_pass() || start.elapsed() >= patience {
            report.prepend(unreadable, waited);
            return Ok(report);
        }
        if waited.is_zero() {
            cli::note!("orders and reservations do not match yet; reading them again for up to {patience:?}");
        }
        tokio::time::sleep(LOOK.min(patience.saturating_sub(start.elapsed()))).await;
        waited = start.elapsed();
    }
}
