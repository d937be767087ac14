//! The arguments of `gateway config`. Must not check anything itself.

use clap::{Args, Subcommand};

use super::Serve;

/// `gateway config`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// The command.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The subcommands of `gateway config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check it as `serve` would at start, without serving or connecting; list all problems
    Check(Box<Asked>),
}

/// `gateway config check`.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Print all values with their sources, as an equivalent configuration file; secrets are not shown
    #[arg(long)]
    pub print: bool,
    /// The configuration.
    #[command(flatten)]
    pub serve: Serve,
}
