//! The workers of `dev`: child processes that are restarted when they end, and that end with this process. Must not
//! depend on what a worker does.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use telemetry::log;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::words::say;

/// Delay before a worker is restarted; doubles with each restart.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A worker that ran for this long resets the delay.
const WELL: Duration = Duration::from_secs(10);
/// Time for a worker to finish its work: its own limit plus a margin.
const LEAVE: Duration = Duration::from_secs(22);

/// Workers, each with a supervisor. They are killed on drop.
pub(super) struct Workers {
    stop: CancellationToken,
    supervisors: JoinSet<()>,
}

/// A worker's process.
struct Process {
    child: Child,
    /// The worker runs as long as this is open. Stored separately, because waiting for a child closes its stdin.
    lifeline: Option<ChildStdin>,
}

/// The command that starts a worker.
#[derive(Clone)]
struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Workers {
    /// Starts `count` workers.
    pub(super) fn start(count: u16, nats_url: &str, log: &log::Options) -> anyhow::Result<Workers> {
        let path = std::env::current_exe().context("cannot find the path of this program")?;
        let mut arguments = vec!["worker".to_owned(), format!("--nats-url={nats_url}")];
        arguments.extend(log.arguments());
        let program = Program { path, arguments };
        let stop = CancellationToken::new();
        let mut supervisors = JoinSet::new();
        for number in 1..=count {
            let child = program.spawn().context("cannot start a worker")?;
            supervisors.spawn(supervise(number, program.clone(), child, stop.clone()));
        }
        Ok(Workers { stop, supervisors })
    }

    /// Returns when the supervisor of a worker has ended: its worker would not be restarted.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match self.supervisors.join_next().await {
            Some(Err(error)) => anyhow!("the supervisor of a worker failed: {error}"),
            Some(Ok(())) => anyhow!("the supervisor of a worker ended"),
            // There is at least one worker.
            None => std::future::pending().await,
        }
    }

    /// Lets the workers finish their work and exit.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.supervisors.join_next().await.is_some() {}
    }
}

impl Program {
    fn spawn(&self) -> std::io::Result<Process> {
        let mut child = Command::new(&self.path)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C in the terminal must reach only this process, which then stops the workers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let lifeline = child.stdin.take();
        Ok(Process { child, lifeline })
    }
}

impl Process {
    /// Lets the worker finish, and kills it after its limit.
    async fn leave(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(LEAVE, self.child.wait()).await.is_err() {
            // An error means that it has ended.
            let _ = self.child.kill().await;
        }
    }
}

/// Keeps one worker running until `stop` is cancelled.
async fn supervise(number: u16, program: Program, mut process: Process, stop: CancellationToken) {
    let mut pause = PAUSE;
    loop {
        let (pid, since) = (process.child.id().unwrap_or_default(), Instant::now());
        let status = tokio::select! {
            status = process.child.wait() => status,
            () = stop.cancelled() => return process.leave().await,
        };
        if since.elapsed() > WELL {
            pause = PAUSE;
        }
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        say(&format!("worker {number}      process {pid} ended ({how}); starting it again in {pause:?}"));
        process = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(PAUSE_MOST);
            match program.spawn() {
                Ok(process) => break process,
                Err(error) => say(&format!("worker {number}      cannot be started: {error}")),
            }
        };
    }
}

/// In a worker: waits until the parent process is gone, or asks it to exit.
pub(super) async fn parent_gone() {
    let (gone, wait) = oneshot::channel::<()>();
    // A separate thread, because a blocking read cannot be cancelled.
    std::thread::spawn(move || {
        let mut sink = [0];
        while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
        drop(gone);
    });
    // The sender is only ever dropped.
    let _ = wait.await;
}
