//! Where log lines go: standard error, as text or JSON. Must never hold what a caller sent.

use std::io::IsTerminal;

use anyhow::Context;
use clap::{Args, ValueEnum};
use cli::out::Quiet;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::limit::Limit;

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
// By its name alone clap would take it for other `Options`.
#[group(skip)]
pub struct Options {
    /// How log lines are written
    #[arg(long, env = "GW_LOG_FORMAT", value_enum, default_value_t = Format::Text, global = true, value_name = "FORMAT")]
    pub log_format: Format,
    /// What is logged, as in `info` or `gateway=debug`
    #[arg(long, env = "RUST_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: an object per line.
    Json,
}

impl Options {
    /// Starts logging, once per process. `default` is what is logged if nobody says. Of each place in the code there are at
    /// most ten lines a second and sixty a minute, and a line that says how many were left out.
    pub fn start(&self, default: &str) -> anyhow::Result<()> {
        let filter = self.log.as_deref().unwrap_or(default);
        let filter = EnvFilter::try_new(filter)
            .with_context(|| format!("{filter:?} does not say what to log (RUST_LOG)"))?;
        let colours = std::io::stderr().is_terminal();
        // The library would say that it cannot write where it cannot write, and panic.
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
        started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))?;
        limit.tell(heard).context("the thread that counts log lines cannot start")
    }

    /// Whether what says what is logged makes sense.
    ///
    /// # Errors
    /// That it does not.
    pub fn check(&self) -> anyhow::Result<()> {
        let filter = self.log.as_deref().unwrap_or_default();
        EnvFilter::try_new(filter)
            .map(drop)
            .with_context(|| format!("{filter:?} does not say what to log (RUST_LOG)"))
    }

    /// The arguments that say the same to a child process.
    pub fn arguments(&self) -> Vec<String> {
        let format = match self.log_format {
            Format::Text => "--log-format=text",
            Format::Json => "--log-format=json",
        };
        let filter = self.log.iter().map(|filter| format!("--log={filter}"));
        [format.to_owned()].into_iter().chain(filter).collect()
    }
}

/// An error with its causes, less those that its own words include already.
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
