//! A private nats-server with JetStream, for its owner. Must not depend on what is sent over it.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::binary::Binary;
use crate::config::{Options, Ports, Ready};
use crate::error::Error;
use crate::find::find;
use crate::folder::Folder;
use crate::port::{free, spare_port};
use crate::ready;
use crate::wait::until;
use crate::watchdog::Watched;

/// A start on an empty data folder takes 0.1 s; this leaves room for a busy machine.
const START: Duration = Duration::from_secs(10);

/// A private nats-server with JetStream on 127.0.0.1. It ends when this is dropped, and when the owner's
/// process ends, in whatever way.
#[derive(Debug)]
pub struct Server {
    // Dropped from top to bottom: the process ends before its folder is unlocked or removed.
    process: Watched,
    ports: Ports,
    folder: Folder,
    binary: Binary,
    options: Options,
}

impl Server {
    /// Starts a server on free ports with a temporary data folder.
    ///
    /// # Errors
    /// See [`Server::with`].
    pub fn start() -> Result<Server, Error> {
        Server::with(Options::default())
    }

    /// Starts a server. On a machine without nats-server the first start takes longer, because one is installed.
    ///
    /// # Errors
    /// No nats-server can be found or installed, the data folder is in use, a port is taken, or the server is not ready
    /// in time.
    pub fn with(options: Options) -> Result<Server, Error> {
        let binary = find()?;
        let folder = Folder::open(&options)?;
        let port = |chosen: Option<u16>| chosen.map_or_else(spare_port, Ok);
        let wanted = Ports { client: port(options.port)?, monitor: port(options.monitor_port)? };
        let (process, ports) = launch(&binary, &folder, &options, wanted)?;
        Ok(Server { process, ports, folder, binary, options })
    }

    /// The URL for clients: `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.client)
    }

    /// The port for clients. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.ports.client
    }

    /// The URL of the monitoring port: `http://127.0.0.1:PORT`, with `/healthz`, `/varz`, `/jsz` and others.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitor)
    }

    /// The port for monitoring. It stays the same over restarts.
    pub fn monitor_port(&self) -> u16 {
        self.ports.monitor
    }

    /// The process id of nats-server itself. It changes with each restart.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The folder with the streams, the configuration, the log and the lock.
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// The server's log file.
    pub fn log(&self) -> &Path {
        self.folder.log()
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        self.folder.log_tail()
    }

    /// The program, and where it was found.
    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    /// Whether the process exists, even if it is paused.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Whether its streams are recovered and, in a cluster, it has found the leader.
    pub fn is_healthy(&self) -> bool {
        ready::healthy(self.ports.monitor, Ready::Healthy)
    }

    /// Stops the server gracefully (SIGTERM), or by force after 5 s. Returns when it is gone.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Kills the server like a crash (SIGKILL). Returns when it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same ports and data folder, after stopping it if it runs.
    ///
    /// # Errors
    /// A port was taken meanwhile, or the server is not ready in time. The restart may be tried again.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop();
        (self.process, self.ports) = launch(&self.binary, &self.folder, &self.options, self.ports)?;
        Ok(())
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers. Returns when it is frozen.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Resumes a paused server (SIGCONT).
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}

/// Starts a server process in its folder and waits until it is ready.
fn launch(
    binary: &Binary,
    folder: &Folder,
    options: &Options,
    wanted: Ports,
) -> Result<(Watched, Ports), Error> {
    for port in [wanted.client, wanted.monitor] {
        free(port)?;
    }
    let spawn = || {
        let config = folder.prepare(options, wanted)?;
        // The folder is a flag, because a flag overrides the caller's configuration of JetStream.
        let arguments =
            ["--config".as_ref(), config.as_os_str(), "--store_dir".as_ref(), folder.path().as_os_str()];
        Watched::spawn(&binary.path, arguments, folder.lock(), folder.open_log()?)
    };
    let process = spawn().map_err(Error::system("start nats-server"))?;
    let limit = options.start_limit.unwrap_or(START);
    let started = until(limit, || match ready::ports(&folder.ports(), options.ready) {
        Some(ports) => Some(Ok(ports)),
        None => (!process.is_running()).then(|| Err(Error::Ended { log: folder.log_tail() })),
    });
    let ports = started.unwrap_or_else(|| Err(Error::Late { limit, log: folder.log_tail() }))?;
    Ok((process, ports))
}
