//! `gateway doctor`: compares the live system with the catalog, and says what is wrong and what cures it. Must
//! never publish on a route's subject, and must change nothing.

mod diagnosis;
mod examination;
mod rights;
mod server;
mod services;
mod streams;

use std::future::pending;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use cli::Report;
use nats::{Connection, PermissionViolation};
use tokio::time::{Instant, timeout_at};

pub use diagnosis::{Diagnosis, Finding, Place, Severity, Unseen};

use examination::Examination;

use crate::config::{MAX_REQUEST_BYTES, bytes};
use crate::contracts;

/// How long the command may take by default.
const WITHIN: u64 = 30;

/// `gateway doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// Contracts that are served.
    #[command(flatten)]
    pub sources: catalog_sources::Options,
    /// Whether the order system is served; default: if neither --proto nor --descriptor-set is given
    #[arg(long, env = "GW_ORDERS", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub orders: Option<bool>,
    /// Maximum size of a request message, as `serve` has it
    #[arg(long, env = "GW_MAX_REQUEST_BYTES", default_value = "1MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_request_bytes: usize,
    /// The NATS user is not the gateway's, but an operator's: its permissions are not compared with the routes
    #[arg(long)]
    pub as_operator: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Timeout of the whole command, in seconds; what was not looked at by then is listed
    #[arg(long, default_value_t = WITHIN, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub within: u64,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: nats::Options,
}

impl Doctor {
    /// The defaults, for NATS at this URL and these contracts.
    pub fn at(nats_url: impl Into<String>, sources: catalog_sources::Options) -> Doctor {
        Doctor {
            sources,
            orders: None,
            max_request_bytes: MAX_REQUEST_BYTES,
            as_operator: false,
            json: false,
            within: WITHIN,
            nats: nats::Options::at(nats_url),
        }
    }
}

/// Looks, and prints what it found.
///
/// # Errors
/// If a contract is refused, NATS cannot be reached, or there is a finding that is an error.
pub async fn run(config: Doctor) -> anyhow::Result<()> {
    let json = config.json;
    let found = diagnose(config).await?;
    let mut report = Report::new();
    if json {
        report.line(found.json());
    } else {
        found.lines().iter().for_each(|line| report.line(line));
    }
    report.end()?;
    match found.count(Severity::Error) {
        0 => Ok(()),
        errors => bail!("{} must be cured", diagnosis::several(errors, "error")),
    }
}

/// Looks at everything.
///
/// # Errors
/// If a contract is refused, or NATS cannot be reached.
pub async fn diagnose(config: Doctor) -> anyhow::Result<Diagnosis> {
    let Doctor { sources, orders, nats, .. } = &config;
    let orders = orders.unwrap_or_else(|| sources.is_empty());
    let catalog = contracts::catalog(sources, orders)?;
    let deadline = Instant::now() + Duration::from_secs(config.within);
    let link = timeout_at(deadline, Connection::connect(nats, "gateway doctor")).await;
    let link = link.context("no connection to NATS in time")??;
    let mut exam = Examination {
        link,
        catalog,
        orders,
        as_operator: config.as_operator,
        max_request_bytes: config.max_request_bytes,
        inbox_prefix: nats.inbox_prefix.clone(),
        monitor: nats.monitor(),
        deadline,
        user: Err(String::new()),
        skew: None,
        jetstream: Err(String::new()),
    };
    let mut found = Diagnosis { routes: exam.routes().count(), ..Diagnosis::default() };
    let link = exam.link.clone();
    tokio::select! {
        () = exam.acquaint(nats.wall) => {}
        denied = deaf(&link) => {
            let text = denied.to_string();
            let (problem, cure) = text.split_once("; ").unwrap_or((&text, "allow it"));
            found.error("permissions", Place::default(), problem, cure);
            found.not_looked_at("all", Place::default(), "no reply can be received");
            return Ok(found);
        }
    }
    found.merge(server::check(&exam));
    found.merge(rights::check(&exam));
    let (services, streams) = tokio::join!(services::check(&exam), streams::check(&exam));
    found.merge(services);
    found.merge(streams);
    Ok(found)
}

/// Returns when the server does not let us subscribe to our inbox: without replies, nothing can be learned.
async fn deaf(link: &Connection) -> PermissionViolation {
    match link.permitted(pending::<()>()).await {
        Err(denied) if !denied.publish => denied,
        // A request ends by itself where we may not publish.
        _ => pending().await,
    }
}
