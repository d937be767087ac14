//! The arguments of `gateway keys`. Must not make a key.

use clap::{Args, Subcommand};
use server::config::access::NewKey;

/// `gateway keys`.
#[derive(Debug, Clone, Args)]
pub struct Keys {
    /// The command.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// The subcommands of `gateway keys`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Create a key: the first line of the output is the key, shown only once, the second is for the file GW_API_KEYS
    New(New),
}

/// `gateway keys new`.
#[derive(Debug, Clone, Args)]
pub struct New {
    /// The key.
    #[command(flatten)]
    pub key: NewKey,
    /// Contracts whose scopes it may have, beside those that are compiled in.
    #[command(flatten)]
    pub sources: catalog_sources::Options,
}
