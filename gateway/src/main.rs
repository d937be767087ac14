//! The program `gateway`: reads the command line, and runs one command. Must never do the command's work itself.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "dev")]
use gateway::dev;
use gateway::{backup, config, letters, reconcile, run};
use telemetry::log;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Orders over gRPC, with NATS behind
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: config::Serve,
    #[command(flatten)]
    log: log::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Serve gRPC (the default)
    Serve(Box<config::Serve>),
    /// Run everything on this machine: NATS, workers, gateway, and a demo catalogue
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    /// Ask a gateway for its health; the exit code is 0 when it serves
    Healthcheck(config::Check),
    /// Make API keys
    Keys(config::access::Keys),
    /// Make the streams that are missing, and check them all
    Provision(config::Streams),
    /// Events that could not be worked off: list, show, replay
    DeadLetters(letters::DeadLetters),
    /// Copy all state into a folder, while the system runs
    Backup(backup::Backup),
    /// Make all state from a folder, on servers that have none
    Restore(backup::Restore),
    /// Say, or mend, in what the orders and the stock differ
    Reconcile(reconcile::Reconcile),
    /// A worker of `dev`
    #[cfg(feature = "dev")]
    #[command(hide = true)]
    Worker(dev::Worker),
}

impl Command {
    /// What is logged if nobody says.
    fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info,async_nats=warn,h2=error",
            Command::Healthcheck(_)
            | Command::Keys(_)
            | Command::Provision(_)
            | Command::DeadLetters(_)
            | Command::Backup(_)
            | Command::Restore(_)
            | Command::Reconcile(_) => "warn",
            #[cfg(feature = "dev")]
            Command::Dev(_) | Command::Worker(_) => dev::LOG,
        }
    }
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let command = cli.command.unwrap_or_else(|| Command::Serve(Box::new(cli.serve)));
    cli.log.start(command.default_log())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(config) => run::serve(*config).await,
            #[cfg(feature = "dev")]
            Command::Dev(config) => dev::run(config, &cli.log).await,
            Command::Healthcheck(config) => run::healthcheck(config).await,
            Command::Keys(config) => run::keys(config),
            Command::Provision(config) => run::provision(config).await,
            Command::DeadLetters(config) => letters::run(config).await,
            Command::Backup(config) => backup::backup(config).await,
            Command::Restore(config) => backup::restore(config).await,
            Command::Reconcile(config) => reconcile::run(config).await,
            #[cfg(feature = "dev")]
            Command::Worker(config) => dev::worker(config).await,
        }
    });
    // A blocking call that was given up, such as an installation, must not hold the end up.
    runtime.shutdown_background();
    ended
}
