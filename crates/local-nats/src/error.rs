//! Why a server did not start. Must not depend on how errors are shown to a user.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::find::Missing;

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no nats-server on this machine, and none could be installed.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Another running server uses the data folder.
    #[error("the data folder {} is in use by another nats-server{}", folder.display(), of(*.pid))]
    Busy {
        /// The data folder.
        folder: PathBuf,
        /// The process that uses it, if known.
        pid: Option<u32>,
    },
    /// Another process listens on a port that the server needs.
    #[error("port {0} of 127.0.0.1 is taken by another process")]
    PortTaken(u16),
    /// The server ended before it was ready.
    #[error("nats-server ended while it started; the end of its log:\n{log}")]
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// The server runs, but was not ready in time; it was stopped.
    #[error("nats-server was not ready within {} s; the end of its log:\n{log}", limit.as_secs())]
    Late {
        /// How long it was given.
        limit: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// A file of the data folder, or the process, could not be created.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was attempted.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// Adds what was attempted to a system error.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        |source| Error::System { doing, source }
    }
}

fn of(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
