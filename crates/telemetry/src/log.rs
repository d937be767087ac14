//! Log output: standard error, as text or JSON. Must not contain data that a caller sent.

use std::io::IsTerminal;

use anyhow::Context;
use clap::{Args, ValueEnum};
use cli::out::Quiet;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::limit::Limit;

/// The log options.
#[derive(Debug, Clone, Args)]
// Without an explicit id, clap would confuse it with other `Options`.
#[group(skip)]
pub struct Options {
    /// Format of log lines
    #[arg(long, env = "GW_LOG_FORMAT", value_enum, default_value_t = Format::Text, global = true, value_name = "FORMAT")]
    pub log_format: Format,
    /// Log filter, as in `info` or `info,nats=debug`
    #[arg(long, env = "RUST_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: an object per line.
    Json,
}

impl Options {
    /// Starts logging, once per process. `default` is the filter if none is set. Each source location may log ten lines
    /// per second and sixty per minute; one more line says how many were suppressed.
    ///
    /// # Errors
    ///
    /// The filter is invalid, logging has been started before, or the thread that reports suppressed lines cannot be
    /// started.
    pub fn start(&self, default: &str) -> anyhow::Result<()> {
        let filter = self.log.as_deref().unwrap_or(default);
        let filter = EnvFilter::try_new(filter)
            .with_context(|| format!("{filter:?} is not a valid log filter (RUST_LOG)"))?;
        let colours = std::io::stderr().is_terminal();
        // The library would report a write error to the same stream, and panic.
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(colours)
            .with_writer(Quiet::default)
            .log_internal_errors(false);
        let (limit, heard) = Limit::new();
        let started = match self.log_format {
            Format::Text => subscriber.finish().with(limit.clone()).try_init(),
            Format::Json => subscriber.json().finish().with(limit.clone()).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
        limit.tell(heard).context("cannot start the thread of the log limit")
    }

    /// Checks the log filter.
    ///
    /// # Errors
    /// The filter is invalid.
    pub fn check(&self) -> anyhow::Result<()> {
        let filter = self.log.as_deref().unwrap_or_default();
        EnvFilter::try_new(filter)
            .map(drop)
            .with_context(|| format!("{filter:?} is not a valid log filter (RUST_LOG)"))
    }

    /// Arguments that pass the same options to a child process.
    pub fn arguments(&self) -> Vec<String> {
        let format = match self.log_format {
            Format::Text => "--log-format=text",
            Format::Json => "--log-format=json",
        };
        let filter = self.log.iter().map(|filter| format!("--log={filter}"));
        [format.to_owned()].into_iter().chain(filter).collect()
    }
}

/// An error with its causes, except those that its text already includes.
pub fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.contains(&cause) => said,
        said => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full").context("no start");
        assert_eq!(chain(&error), "no start: cannot write: disk full");
    }
}
