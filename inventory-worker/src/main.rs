//! The inventory worker's binary: parse arguments, start logging, run the command.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use cli::Parsed;
use inventory_worker::config::{Cli, Command, Config, Stock};
use inventory_worker::{file, remove, run};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let parsed = match cli::read::<Cli>(&cli::check::PATH) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    match work(parsed).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::note!("error: {}", telemetry::log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn work(parsed: Parsed<Cli>) -> anyhow::Result<()> {
    let Parsed { mut cli, warnings, mut problems, settings } = parsed;
    if let (Some(Command::Config { .. }), Err(error)) = (&cli.command, cli.log.check()) {
        problems.push(telemetry::log::chain(&error));
        cli.log.log = None;
    }
    let serving = matches!(cli.command, None | Some(Command::Serve(_)));
    cli.log.start(if serving { "info,async_nats=warn" } else { "warn" })?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(config) => run(config, told_to_stop()?).await,
        Command::Stock { action: Stock::Import { file, skip_bad, if_empty, nats } } => {
            file::import(&file, skip_bad, if_empty, &nats).await
        }
        Command::Stock { action: Stock::Export { file, nats } } => file::export(&file, &nats).await,
        Command::Stock { action: Stock::Remove { products, zero, dry_run, nats } } => {
            remove::remove(&products, zero, dry_run, &nats).await
        }
        Command::Config { action: Config::Check { print, serve } } => {
            serve.warnings().into_iter().for_each(|warning| tracing::warn!("{warning}"));
            problems.extend(serve.faults());
            Ok(cli::check::tell(&settings, print, &problems)?)
        }
        Command::Completions(wanted) => Ok(wanted.print(Cli::command())?),
        Command::Man(wanted) => Ok(wanted.print(Cli::command())?),
        Command::Healthcheck { addr } => healthcheck(addr).await,
    }
}

/// SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

async fn healthcheck(addr: std::net::SocketAddr) -> anyhow::Result<()> {
    let limit = std::time::Duration::from_secs(3);
    let check = async {
        let channel = Endpoint::from_shared(format!("http://{addr}"))?.connect().await?;
        let mut client = HealthClient::new(channel);
        anyhow::Ok(client.check(HealthCheckRequest::default()).await?.into_inner().status())
    };
    match tokio::time::timeout(limit, check).await.context("no answer in 3 s")?? {
        ServingStatus::Serving => Ok(()),
        status => anyhow::bail!(
            "the worker at {addr} reports {}; /healthz at its HTTP address (GW_HTTP_ADDR) says why",
            status.as_str_name()
        ),
    }
}
