//! The program `gateway`: reads the command line, and runs one command. Must never do the command's work itself.

use std::process::ExitCode;

use cli::Parsed;
use gateway::commands::{Cli, Command};
#[cfg(feature = "dev")]
use gateway::dev;
use gateway::{backup, letters, reconcile, run};
use telemetry::log;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Parsed { cli, warnings } = match cli::read::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match start(cli, &warnings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::note!("error: {}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli, warnings: &[String]) -> anyhow::Result<()> {
    let command = cli.command.unwrap_or_else(|| Command::Serve(Box::new(cli.serve)));
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
