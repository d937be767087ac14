//! `gateway reconcile`: compares the record of orders with the stock's ledger and repairs differences, after a restore
//! or after one of the two lost its end. Safe while the system runs: an order that changed between two reads is read
//! again.

mod diff;
mod repair;
mod report;
mod scan;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use nats::Connection;

pub use diff::Difference;
pub use report::{Fate, Finding, Report};
pub use scan::Unread;

use scan::{Overview, ScanResult, Scanner};

use crate::{OPERATORS, explained};

/// `gateway reconcile`.
#[derive(Debug, Clone, Args)]
pub struct Reconcile {
    /// Repair what can be repaired; without it, nothing is changed
    #[arg(long)]
    pub mend: bool,
    /// How long to wait for events that the workers have not processed yet, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub patience: u64,
    /// Print a JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: nats::Options,
}

/// Compares, repairs if asked to, and prints what it found. An error if a difference is left.
pub async fn run(config: Reconcile) -> anyhow::Result<()> {
    let link = Connection::connect(&config.nats, "gateway reconcile").await?;
    let patience = Duration::from_secs(config.patience);
    let report = link.permitted(reconcile(&link, config.mend, patience)).await.context(OPERATORS)?;
    let report = report.map_err(explained)?;
    let mut lines = cli::Report::new();
    report.lines(config.json).iter().for_each(|line| lines.line(line));
    let told = lines.end();
    if !config.mend {
        told?;
    }
    // A repair counts even if nobody reads the output.
    match (report.clean(), config.mend) {
        (true, _) => Ok(()),
        (false, _) if !report.whole() => {
            bail!("not everything could be read; the unread parts are listed above")
        }
        (false, true) => bail!("not everything could be repaired"),
        (false, false) => bail!("the record and the ledger differ; --mend repairs what can be repaired"),
    }
}

/// Compares every order with its reservation, and repairs differences if asked to.
pub async fn reconcile(link: &Connection, mend: bool, patience: Duration) -> anyhow::Result<Report> {
    let scanner = Scanner::new(link);
    let overview = scanner.overview().await?;
    let mut report = Report {
        orders: overview.orders,
        tombstones: overview.tombstones,
        reservations: overview.reservations,
        unread: overview.unread.clone(),
        unnamed: overview.unnamed,
        dead_letters: overview.letters,
        ..Report::default()
    };
    // Without all that the ledger knows, a repair could use a sequence of the record twice.
    let mend = mend && overview.whole;
    // First of all, as repairs write to the record.
    let cut = overview.end < overview.newest;
    if cut {
        report.findings.push(end_lost(&scanner, &overview, mend).await);
    }
    let filled = report.findings.iter().all(|finding| matches!(finding.fate, Fate::Mended));
    let found = report.take(scanner.sift(overview.suspects, patience).await);
    if !mend || !filled {
        report.findings.extend(found.iter().map(|found| Finding::of(found, Fate::Found)));
        return Ok(report);
    }
    let mended = repair::all(&scanner, found).await;
    // Every repair is verified by another look.
    let again = mended.iter().filter(|(_, mended)| mended.is_ok());
    let again = again.map(|(found, _)| (found.id, found.order.and_then(|order| order.shipped))).collect();
    let still = report.take(scanner.sift(again, patience).await);
    report
        .findings
        .extend(mended.iter().map(|(found, mended)| Finding::of(found, fate(found, mended, &still))));
    Ok(report)
}

fn fate(found: &ScanResult, mended: &Result<(), String>, still: &[ScanResult]) -> Fate {
    match mended {
        Err(why) => Fate::Left(why.clone()),
        Ok(()) if still.iter().any(|still| still.id == found.id) => Fate::Left("it differs again".to_owned()),
        Ok(()) => Fate::Mended,
    }
}

async fn end_lost(scanner: &Scanner, overview: &Overview, mend: bool) -> Finding {
    let Overview { newest, end, .. } = *overview;
    let fate = if mend {
        repair::fill(scanner, newest)
            .await
            .map_or_else(|error| Fate::Left(error.to_string()), |()| Fate::Mended)
    } else {
        Fate::Found
    };
    let said = format!("the record ends at entry {end}, but the ledger knows entry {newest}");
    Finding { kind: Difference::EndLost, order: None, said, fate }
}
