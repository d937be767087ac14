//! The command line of the gateway: which commands there are. Must never do their work.

use clap::{Parser, Subcommand};

#[cfg(feature = "dev")]
use crate::dev;
use crate::{backup, config, letters, reconcile};
use telemetry::log;

/// Orders over gRPC, with NATS behind
#[derive(Parser)]
#[command(version = version::FULL, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`.
    #[command(flatten)]
    pub serve: config::Serve,
    /// What is logged.
    #[command(flatten)]
    pub log: log::Options,
    /// The file that has the rest.
    #[command(flatten)]
    pub file: cli::document::Options,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve gRPC (the default)
    Serve(Box<config::Serve>),
    /// Run everything on this machine: NATS, workers, gateway, and a demo catalogue
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    /// Ask a gateway for its health; the exit code is 0 when it serves
    Healthcheck(config::Check),
    /// Check the configuration
    Config(config::command::Config),
    /// Make API keys
    Keys(config::access::Keys),
    /// Make the streams that are missing, and check them all
    Provision(config::Streams),
    /// Events that could not be worked off: list, show, replay, discard
    DeadLetters(letters::DeadLetters),
    /// Copy all state into a folder, while the system runs
    Backup(backup::Backup),
    /// Make all state from a folder, on servers that have none
    Restore(backup::Restore),
    /// Say, or mend, in what the orders and the stock differ
    Reconcile(reconcile::Reconcile),
    /// Print what a shell needs to complete these commands
    Completions(cli::check::Completions),
    /// Print the manual page, or write those of all commands
    Man(cli::check::Man),
    /// A worker of `dev`
    #[cfg(feature = "dev")]
    #[command(hide = true)]
    Worker(dev::Worker),
}

impl Command {
    /// What is logged if nobody says.
    pub fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info,async_nats=warn,h2=error",
            Command::Healthcheck(_)
            | Command::Keys(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Man(_)
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
