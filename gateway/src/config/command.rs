//! `gateway config`. Must never check anything itself.

use clap::{Args, Subcommand};

use super::Serve;

/// `gateway config`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check it as a start of `serve` would, without serving or connecting; list all problems
    Check(Box<Asked>),
}

/// `gateway config check`.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Print all values with where they are from, as a file that says the same; no secret is shown
    #[arg(long)]
    pub print: bool,
    /// The configuration.
    #[command(flatten)]
    pub serve: Serve,
}
