//! The program `gateway`: parses the command line and runs one command. Must not implement a command itself.

use std::process::ExitCode;

use clap::CommandFactory as _;
use cli::Parsed;
use gateway::commands::{Cli, Command};
#[cfg(feature = "dev")]
use gateway::dev;
use gateway::{bucket, check, doctor, routes, run};
use orders::{backup, dead_letters, reconcile};
use telemetry::log;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let parsed = match cli::read::<Cli>(&cli::check::PATH) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    match start(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::note!("error: {}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(parsed: Parsed<Cli>) -> anyhow::Result<()> {
    let Parsed { mut cli, warnings, mut problems, settings } = parsed;
    let command = cli.command.unwrap_or_else(|| Command::Serve(Box::new(cli.serve)));
    if let (Command::Config(_), Err(error)) = (&command, cli.log.check()) {
        problems.push(log::chain(&error));
        cli.log.log = None;
    }
    cli.log.start(command.default_log())?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(config) => run::serve(*config).await,
            #[cfg(feature = "dev")]
            Command::Dev(config) => dev::run(config, &cli.log).await,
            Command::Healthcheck(config) => run::healthcheck(config).await,
            Command::Keys(config) => run::keys(config),
            Command::Routes(config) => routes::run(config),
            Command::Doctor(config) => doctor::run(*config).await,
            Command::Catalog(config) => bucket::run(config).await,
            Command::Config(config) => check::run(config, &settings, problems).await,
            Command::Completions(wanted) => Ok(wanted.print(Cli::command())?),
            Command::Man(wanted) => Ok(wanted.print(Cli::command())?),
            Command::Provision(config) => run::provision(config).await,
            Command::DeadLetters(config) => dead_letters::run(config).await,
            Command::Backup(config) => backup::backup(config).await,
            Command::Restore(config) => backup::restore(config).await,
            Command::Reconcile(config) => reconcile::run(config).await,
            #[cfg(feature = "dev")]
            Command::Worker(config) => dev::worker(config).await,
        }
    });
    // A blocking call that was abandoned, such as an installation, must not delay the exit.
    runtime.shutdown_background();
    ended
}
