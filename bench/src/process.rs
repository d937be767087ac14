//! Gateways and workers in processes of their own, which can be killed, frozen and told to stop. They are this program
//! again, so that they are never older than it. Must never know what they are asked.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use gateway::edge::probe::Probe;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::cage::Cage;
use crate::usage;

/// How long a process may take until it serves.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A gateway or a worker.
pub(crate) struct Process {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Gone after the process.
    cage: Cage,
}

impl Process {
    /// Starts a gateway on these ports. Its log goes to a file.
    pub(crate) fn gateway(
        nats: &str,
        grpc: u16,
        http: u16,
        more: &[&str],
        log: &Path,
    ) -> anyhow::Result<Process> {
        let (grpc, http) = (format!("127.0.0.1:{grpc}"), format!("127.0.0.1:{http}"));
        let own = ["gateway", "--nats-url", nats, "--grpc-addr", &grpc, "--http-addr", &http];
        Process::start(&[&own, more].concat(), log)
    }

    /// Starts a program, or this one, in a cage.
    pub(crate) fn caged(
        program: Option<PathBuf>,
        arguments: &[&str],
        log: &Path,
        cage: Cage,
    ) -> anyhow::Result<Process> {
        let program = program.map_or_else(std::env::current_exe, Ok)?;
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let child = spawn(&program, &arguments, log, &cage)?;
        Ok(Process { child, program, arguments, log: log.to_owned(), cage })
    }

    /// Starts a worker on these ports; port 0 is any.
    pub(crate) fn worker(
        nats: &str,
        health: u16,
        http: u16,
        more: &[&str],
        log: &Path,
    ) -> anyhow::Result<Process> {
        let (health, http) = (format!("127.0.0.1:{health}"), format!("127.0.0.1:{http}"));
        let own = ["worker", "--nats-url", nats, "--health-addr", &health, "--http-addr", &http];
        Process::start(&[&own, more].concat(), log)
    }

    /// Starts the server that a gateway is compared with.
    pub(crate) fn echo(port: u16, log: &Path) -> anyhow::Result<Process> {
        Process::start(&["echo", "--port", &port.to_string()], log)
    }

    fn start(arguments: &[&str], log: &Path) -> anyhow::Result<Process> {
        Process::caged(None, arguments, log, Cage::default())
    }

    /// Starts it again, after it has ended.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.program, &self.arguments, &self.log, &self.cage)?;
        Ok(())
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// How it ended, if it has.
    pub(crate) fn end(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends.
    pub(crate) async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        Ok(timeout(limit, self.child.wait()).await.context("it did not end in time")??)
    }

    /// Resident memory in bytes; Linux only, 0 elsewhere.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        usage::resident(self.pid()?)
    }

    /// Open files, connections among them; Linux only, 0 elsewhere.
    pub(crate) fn files(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()?)).map_or(0, Iterator::count))
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path, cage: &Cage) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut words: Vec<OsString> = cage.command().into_iter().map(OsString::from).collect();
    words.push(program.into());
    let child = Command::new(&words[0])
        .args(&words[1..])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Waits until a service of the process on this port is up.
pub(crate) async fn serves(port: u16, service: &str) -> anyhow::Result<()> {
    let limit = Instant::now() + START;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < limit {
        if let Ok(probe) = Probe::connect(address).await
            && probe.health(service).await.is_ok_and(|health| health == "SERVING")
        {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("{service:?} on port {port} is not up after {START:?}")
}

/// Waits until somebody listens on this port.
pub(crate) async fn listens(port: u16) -> anyhow::Result<()> {
    let limit = Instant::now() + START;
    while Instant::now() < limit {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("nobody listens on port {port} after {START:?}")
}

/// What such a process does: it lives no longer than the one that started it.
pub(crate) async fn gateway(config: gateway::config::Serve) -> anyhow::Result<bool> {
    follow()?;
    gateway::run::serve(config).await.map(|()| true)
}

/// The same, for a worker.
pub(crate) async fn worker(config: inventory_worker::config::Serve) -> anyhow::Result<bool> {
    follow()?;
    let mut stop = gateway::stop::Stop::listen()?;
    inventory_worker::run(config, async move { stop.asked().await }).await.map(|()| true)
}

fn follow() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let log = telemetry::log::Options { log_format: telemetry::log::Format::Text, log: None };
    log.start("info,async_nats=warn,h2=error")
}
