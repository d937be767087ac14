//! The command line of the gateway: its commands. Must not implement them.

use clap::{Parser, Subcommand};

#[cfg(feature = "dev")]
use crate::dev;
use crate::{bucket, config, doctor, routes};
use orders::{backup, dead_letters, reconcile};
use telemetry::log;

/// Orders over gRPC, backed by NATS
#[derive(Parser)]
#[command(version = version::FULL, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command; `serve` by default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`.
    #[command(flatten)]
    pub serve: config::Serve,
    /// What is logged.
    #[command(flatten)]
    pub log: log::Options,
    /// The configuration file.
    #[command(flatten)]
    pub file: cli::document::Options,
}

/// A command.
#[derive(Subcommand)]
pub enum Command {
    /// Serve gRPC (the default)
    Serve(Box<config::Serve>),
    /// Run everything on this machine: NATS, workers, gateway, and a demo catalogue
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    /// Check the health of a gateway; the exit code is 0 if it is SERVING
    Healthcheck(config::Check),
    /// Check the configuration
    Config(config::command::Config),
    /// Create API keys
    Keys(config::keys::Keys),
    /// Contracts: check them, list their routes, print the NATS permissions that they need
    Routes(routes::Routes),
    /// Look at the live system: responders, streams, permissions, limits; print what is wrong, each with its cure
    Doctor(Box<doctor::Doctor>),
    /// Contracts on NATS, for gateways with --catalog-bucket: push, pull, list
    Catalog(bucket::CatalogCommand),
    /// Create missing streams, and check all of them
    Provision(config::Streams),
    /// Events that could not be processed (dead letters): list, show, replay, discard
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Back up all state into a folder, while the system runs
    Backup(backup::Backup),
    /// Restore all state from a backup folder, on servers that have none
    Restore(backup::Restore),
    /// Report, or repair, differences between orders and stock
    Reconcile(reconcile::Reconcile),
    /// Print the completion script of a shell
    Completions(cli::check::Completions),
    /// Print the manual page, or write those of all commands
    Man(cli::check::Man),
    /// A worker of `dev`
    #[cfg(feature = "dev")]
    #[command(hide = true)]
    Worker(dev::Worker),
}

impl Command {
    /// The default log filter of this command.
    pub fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info,async_nats=warn,h2=error",
            Command::Healthcheck(_)
            | Command::Keys(_)
            | Command::Routes(_)
            | Command::Doctor(_)
            | Command::Catalog(_)
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
