//! A private nats-server with JetStream, as its owner sees it. Must never know what is sent over it.

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
/// process ends, however that may be.
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

    /// Starts a server. On a machine without nats-server the first start takes longer, as one is installed.
    ///
    /// # Errors
    /// When no nats-server can be had, the data folder is in use, a port is taken, or the server is not ready in
    /// time.
    pub fn with(options: Options) -> Result<Server, Error> {
        let binary = find()?;
        let folder = Folder::open(&options)?;
        let port = |chosen: Option<u16>| chosen.map_or_else(spare_port, Ok);
        let wanted = Ports { client: port(options.port)?, monitor: port(options.monitor_port)? };
        let (process, ports) = launch(&binary, &folder, &options, wanted)?;
        Ok(Server { process, ports, folder, binary, options })
    }

    /// Where clients connect: `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.client)
    }

    /// The port for clients. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.ports.client
    }

    /// Where the server is monitored: `http://127.0.0.1:PORT`, with `/healthz`, `/varz`, `/jsz` and others.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitor)
    }

    /// The port for monitoring. It stays the same over restarts.
    pub fn monitor_port(&self) -> u16 {
        self.ports.monitor
    }

    /// The process id of nats-server itself. Another after each restart.
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

    /// The program that runs, and where it was found.
    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    /// Whether the process is there; a paused one is.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Whether its streams are recovered and, in a cluster, it has found the leader.
    pub fn is_healthy(&self) -> bool {
        ready::healthy(self.ports.monitor, Ready::Healthy)
    }

    /// Ends the server in order (SIGTERM), or by force if it takes more than 5 s. Returns when it is gone.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Ends the server as a crash would (SIGKILL). Returns when it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same ports and data folder; stops it before if it runs.
    ///
    /// # Errors
    /// When a port was taken meanwhile, or the server is not ready in time. It may be tried again.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop();
        (self.process, self.ports) = launch(&self.binary, &self.folder, &self.options, self.ports)?;
        Ok(())
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers. Returns when that is so.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets a paused server go on (SIGCONT).
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
        // The folder is a flag, as a flag outdoes whatever the caller's configuration says about JetStream.
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
