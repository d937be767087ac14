//! Gateways and workers as separate processes, which can be killed, frozen and stopped. They run this program, so that
//! they are always of the same build. Must not depend on what they are asked.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use server::health_client::GatewayClient;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::cage::Cage;
use crate::usage;

/// How long a process may take to serve.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A gateway or a worker.
pub(crate) struct Process {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Removed after the process exits.
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

    /// Starts a program (or this one) with limits.
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

    /// Starts a worker on these ports; port 0 means any.
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

    /// Starts the bare gRPC server.
    pub(crate) fn echo(port: u16, log: &Path) -> anyhow::Result<Process> {
        Process::start(&["echo", "--port", &port.to_string()], log)
    }

    /// Starts the service behind routes of a file.
    pub(crate) fn shop(nats: &str, log: &Path) -> anyhow::Result<Process> {
        Process::start(&["shop", "--nats-url", nats], log)
    }

    fn start(arguments: &[&str], log: &Path) -> anyhow::Result<Process> {
        Process::caged(None, arguments, log, Cage::default())
    }

    /// Restarts it, after it has exited.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.program, &self.arguments, &self.log, &self.cage)?;
        Ok(())
    }

    /// The process id. An error if it has exited.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has exited")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The exit status, if it has exited.
    pub(crate) fn end(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it exits.
    pub(crate) async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        Ok(timeout(limit, self.child.wait()).await.context("the process did not exit in time")??)
    }

    /// Resident memory in bytes; Linux only, 0 elsewhere.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        usage::resident(self.pid()?)
    }

    /// Open files, including connections; Linux only, 0 elsewhere.
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

/// Waits until the health service on this port reports SERVING for a service.
pub(crate) async fn serves(port: u16, service: &str) -> anyhow::Result<()> {
    let limit = Instant::now() + START;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < limit {
        if let Ok(probe) = GatewayClient::connect(address).await
            && probe.health(service).await.is_ok_and(|health| health == "SERVING")
        {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("{service:?} on port {port} is not SERVING after {START:?}")
}

/// Waits until this port accepts connections.
pub(crate) async fn listens(port: u16) -> anyhow::Result<()> {
    let limit = Instant::now() + START;
    while Instant::now() < limit {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("nothing listens on port {port} after {START:?}")
}

/// Runs a gateway. It exits when the process that started it does.
pub(crate) async fn gateway(config: gateway::config::Serve) -> anyhow::Result<bool> {
    follow()?;
    gateway::run::serve(config).await.map(|()| true)
}

/// Runs a worker. It exits when the process that started it does.
pub(crate) async fn worker(config: inventory_worker::config::Serve) -> anyhow::Result<bool> {
    follow()?;
    let mut stop = gateway::signal::Stop::listen()?;
    inventory_worker::run(config, async move { stop.asked().await }).await.map(|()| true)
}

fn follow() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let log = telemetry::log::Options { log_format: telemetry::log::Format::Text, log: None };
    log.start("info,async_nats=warn,h2=error")
}
