//! `gateway routes`: checks contracts, and prints what they need on NATS. Must not connect.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use catalog::{Catalog, Encoding, Requirement, Route};
use catalog_sources::{Options, embedded};
use clap::{Args, Subcommand};
use cli::Report;

use crate::contracts;
use crate::permissions::permissions;

/// `gateway routes`.
#[derive(Debug, Clone, Args)]
pub struct Routes {
    /// The command.
    #[command(subcommand)]
    pub command: RoutesCommand,
}

/// The subcommands of `gateway routes`.
#[derive(Debug, Clone, Subcommand)]
pub enum RoutesCommand {
    /// Check contracts as `serve` would at start: print everything that is wrong, with file and line; the exit code is 1
    /// if there is anything
    Check(Checked),
    /// List the routes: rpc, kind, subject, queue group, encoding, timeout, retries, scope
    List(Contracts),
    /// Print the NATS permissions that the routes need, least privilege, as configuration of nats-server
    Permissions(Contracts),
    /// Write the protos of the options (`natsgateway/v1`) into a folder, for protoc, buf and editors
    Export(Export),
}

/// Which contracts.
#[derive(Debug, Clone, Args)]
pub struct Contracts {
    /// Proto files (`*.proto`) and descriptor sets, like --proto and --descriptor-set
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where contracts are.
    #[command(flatten)]
    pub sources: Options,
}

/// `gateway routes check`.
#[derive(Debug, Clone, Args)]
pub struct Checked {
    /// What is checked.
    #[command(flatten)]
    pub contracts: Contracts,
    /// Descriptor set that is served today: print what would break its clients, too
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}

/// `gateway routes export`.
#[derive(Debug, Clone, Args)]
pub struct Export {
    /// The folder
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Runs one of the commands.
///
/// # Errors
/// If a contract is refused, or the result cannot be written.
pub fn run(routes: Routes) -> anyhow::Result<()> {
    match routes.command {
        RoutesCommand::Check(Checked { contracts, against }) => {
            let served = against.map(|file| Options { descriptor_set: vec![file], ..Options::default() });
            check(&contracts.options(), served.as_ref())
        }
        RoutesCommand::List(contracts) => list(&*served(contracts)?),
        RoutesCommand::Permissions(contracts) => {
            let mut report = Report::new();
            report.line(permissions(&*served(contracts)?));
            Ok(report.whole()?)
        }
        RoutesCommand::Export(export) => {
            let mut report = Report::new();
            for path in embedded::export(&export.folder)? {
                report.line(path.display());
            }
            Ok(())
        }
    }
}

impl Contracts {
    /// The sources, with the files among them.
    pub(crate) fn options(self) -> Options {
        let Contracts { files, mut sources } = self;
        for file in files {
            let proto = file.extension().is_some_and(|extension| extension == "proto");
            if proto { &mut sources.proto } else { &mut sources.descriptor_set }.push(file);
        }
        sources
    }
}

fn served(contracts: Contracts) -> anyhow::Result<Arc<Catalog>> {
    contracts::catalog(&contracts.options(), false)
}

/// `served`: what is served today, if that is to be compared.
fn check(sources: &Options, served: Option<&Options>) -> anyhow::Result<()> {
    let mut report = Report::new();
    let problems = match compared(sources, served) {
        Ok((catalog, breaks)) if breaks.is_empty() => {
            catalog.warnings().iter().for_each(|warning| report.line(format_args!("warning: {warning}")));
            let (routes, services) = (catalog.routes().len(), catalog.services().len());
            report.line(format_args!("{routes} routes of {services} services: nothing is wrong"));
            return Ok(report.end()?);
        }
        Ok((_, breaks)) => breaks.join("\n"),
        Err(error) => format!("{error:#}"),
    };
    problems.lines().for_each(|problem| report.line(problem));
    report.end()?;
    bail!("{} must be corrected", problems.lines().count())
}

/// The catalog of these sources, and what of it breaks clients of what is served.
fn compared(sources: &Options, served: Option<&Options>) -> anyhow::Result<(Arc<Catalog>, Vec<String>)> {
    let catalog = contracts::read(sources, false)?;
    let Some(served) = served else { return Ok((catalog, Vec::new())) };
    let served = contracts::read(served, false).context("--against")?;
    let breaks = served.breaking(&catalog).iter().map(ToString::to_string).collect();
    Ok((catalog, breaks))
}

fn list(catalog: &Catalog) -> anyhow::Result<()> {
    let heads = ["RPC", "KIND", "SUBJECT", "QUEUE GROUP", "ENCODING", "TIMEOUT", "RETRIES", "SCOPE"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(catalog.routes().iter().map(|route| row(catalog, route)));
    let widths: Vec<usize> = (0..heads.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut report = Report::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        report.line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    Ok(report.end()?)
}

fn row(catalog: &Catalog, route: &Route) -> [String; 8] {
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let scope = match catalog.rule(&route.path) {
        _ if route.internal => "(internal)".to_owned(),
        Some(rule) => match &rule.requirement {
            Requirement::Scope(scope) => scope.to_string(),
            other => format!("({other})"),
        },
        None => "-".to_owned(),
    };
    let encoding = match route.encoding {
        Encoding::Json => "JSON",
        Encoding::Protobuf => "PROTOBUF",
    };
    [
        route.path.trim_start_matches('/').to_owned(),
        route.kind.name().to_owned(),
        route.subject.to_string(),
        or_none(&route.queue_group),
        encoding.to_owned(),
        format!("{:?}", route.timeout),
        route.retries.to_string(),
        scope,
    ]
}
