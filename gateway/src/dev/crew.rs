//! The workers of `dev`: child processes that are started again when they end, and that end when we do. Must never
//! know what a worker does.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use telemetry::log;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::words::say;

/// A worker that ends is started again after this, doubling.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// One that ran for so long was well.
const WELL: Duration = Duration::from_secs(10);
/// What a worker may take to finish its work: its own limit, and a little.
const LEAVE: Duration = Duration::from_secs(22);

/// Workers, each with its supervisor. Dropped, they are killed.
pub(super) struct Crew {
    stop: CancellationToken,
    supervisors: JoinSet<()>,
}

/// A worker's process.
struct Process {
    child: Child,
    /// It runs as long as this is open. Kept apart, as waiting for a child closes what it still has.
    lifeline: Option<ChildStdin>,
}

/// How a worker is started.
#[derive(Clone)]
struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Crew {
    /// Starts so many workers.
    pub(super) fn start(count: u16, nats_url: &str, log: &log::Options) -> anyhow::Result<Crew> {
        let path = std::env::current_exe().context("cannot find this program's file")?;
        let mut arguments = vec!["worker".to_owned(), format!("--nats-url={nats_url}")];
        arguments.extend(log.arguments());
        let program = Program { path, arguments };
        let stop = CancellationToken::new();
        let mut supervisors = JoinSet::new();
        for number in 1..=count {
            let child = program.spawn().context("cannot start a worker")?;
            supervisors.spawn(supervise(number, program.clone(), child, stop.clone()));
        }
        Ok(Crew { stop, supervisors })
    }

    /// Lets them finish their work and leave.
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
            // A terminal's Ctrl-C is for us alone: we tell it when its time has come.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let lifeline = child.stdin.take();
        Ok(Process { child, lifeline })
    }
}

impl Process {
    /// Lets it finish, within its limit.
    async fn leave(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(LEAVE, self.child.wait()).await.is_err() {
            // An error says that it is gone.
            let _ = self.child.kill().await;
        }
    }
}

/// Keeps one worker running until told to stop.
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

/// In a worker: waits until the process that started it is gone, or says that it is time to leave.
pub(super) async fn parent_gone() {
    let (gone, wait) = oneshot::channel::<()>();
    // A thread of its own, as a read that is under way could not be given up.
    std::thread::spawn(move || {
        let mut sink = [0];
        while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
        drop(gone);
    });
    // The sender is only ever dropped.
    let _ = wait.await;
}
