//! Why a server did not start. Must never know how that is shown to a user.

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
    /// Another live server has the data folder.
    #[error("the data folder {} is in use by another nats-server{}", folder.display(), of(*.pid))]
    Busy {
        /// The data folder.
        folder: PathBuf,
        /// The process that has it, when it said so.
        pid: Option<u32>,
    },
    /// Somebody else listens on a port that the server must have.
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
    /// A file of the data folder, or the process, could not be made.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was attempted.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Names what was attempted when the system refused.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        |source| Error::System { doing, source }
    }
}

fn of(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
