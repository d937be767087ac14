//! `gateway reconcile`: whether the record of orders and the stock's ledger agree, and what is done where they do not:
//! after a restore, or after one of the two lost its end. Safe while the system runs: what changed between two looks is
//! looked at again.

mod eyes;
mod judge;
mod mend;
mod report;

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use link::Link;

pub use judge::Kind;
pub use report::{Fate, Finding, Report, Unread};

use eyes::{Eyes, Found, Overview};

/// `gateway reconcile`.
#[derive(Debug, Clone, Args)]
pub struct Reconcile {
    /// Mend what can be mended; without it, nothing is changed
    #[arg(long)]
    pub mend: bool,
    /// How long what is on its way through the workers is waited for, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub patience: u64,
    /// An object per line
    #[arg(long)]
    pub json: bool,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: link::Options,
}

/// Compares, mends if asked to, and says what it found. An error where something is left.
pub async fn run(config: Reconcile) -> anyhow::Result<()> {
    let link = Link::connect(&config.nats, "gateway reconcile").await?;
    let patience = Duration::from_secs(config.patience);
    let report = link.permitted(reconcile(&link, config.mend, patience)).await??;
    let mut lines = cli::Report::new();
    report.lines(config.json).iter().for_each(|line| lines.line(line));
    let told = lines.end();
    if !config.mend {
        told?;
    }
    // What was mended is, whoever reads that.
    match (report.clean(), config.mend) {
        (true, _) => Ok(()),
        (false, _) if !report.whole() => bail!("not all of it could be read; what was not is named above"),
        (false, true) => bail!("not all of it could be mended"),
        (false, false) => bail!("the record and the ledger do not agree; --mend mends what can be mended"),
    }
}

/// Compares every order with its reservation, and mends what differs if asked to.
pub async fn reconcile(link: &Link, mend: bool, patience: Duration) -> anyhow::Result<Report> {
    let eyes = Eyes::new(link);
    let overview = eyes.overview().await?;
    let mut report = Report {
        orders: overview.orders,
        reservations: overview.reservations,
        unread: overview.unread.clone(),
        unnamed: overview.unnamed,
        letters: overview.letters,
        ..Report::default()
    };
    // Who does not know all that the ledger knows could give a number twice.
    let mend = mend && overview.whole;
    // First of all: what is mended writes to the record.
    let cut = overview.end < overview.newest;
    if cut {
        report.findings.push(end_lost(&eyes, &overview, mend).await);
    }
    let filled = report.findings.iter().all(|finding| matches!(finding.fate, Fate::Mended));
    let found = report.take(eyes.sift(overview.suspects, patience).await);
    if !mend || !filled {
        report.findings.extend(found.iter().map(|found| Finding::of(found, Fate::Found)));
        return Ok(report);
    }
    let mended = mend::all(&eyes, found).await;
    // Whoever says that all is well has looked.
    let again = mended.iter().filter(|(_, mended)| mended.is_ok());
    let again = again.map(|(found, _)| (found.id, found.order.and_then(|order| order.shipped))).collect();
    let still = report.take(eyes.sift(again, patience).await);
    report
        .findings
        .extend(mended.iter().map(|(found, mended)| Finding::of(found, fate(found, mended, &still))));
    Ok(report)
}

fn fate(found: &Found, mended: &Result<(), String>, still: &[Found]) -> Fate {
    match mended {
        Err(why) => Fate::Left(why.clone()),
        Ok(()) if still.iter().any(|still| still.id == found.id) => Fate::Left("it differs again".to_owned()),
        Ok(()) => Fate::Mended,
    }
}

async fn end_lost(eyes: &Eyes, overview: &Overview, mend: bool) -> Finding {
    let Overview { newest, end, .. } = *overview;
    let fate = if mend {
        mend::fill(eyes, newest).await.map_or_else(|error| Fate::Left(error.to_string()), |()| Fate::Mended)
    } else {
        Fate::Found
    };
    let said = format!("the record ends at {end}; the ledger knows its entry {newest}");
    Finding { kind: Kind::EndLost, order: None, said, fate }
}
