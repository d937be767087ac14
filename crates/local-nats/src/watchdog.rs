//! A nats-server process that does not outlive its owner. Must not depend on ports or data.
//!
//! Without unsafe code a process cannot ask the kernel to end its children with it. So a shell runs the
//! server and reads from a pipe whose other end only the owner has: however the owner ends, the kernel closes
//! the pipe, and the shell stops the server. Both are in their own process group: a terminal's Ctrl-C
//! reaches only the owner, which can drain before it stops the server.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::lock;
use crate::path;
use crate::paused::is_paused;
use crate::run::output;
use crate::wait::until;

const SCRIPT: &str = include_str!("watchdog.sh");

/// Time limit for the shell to report the server's process: two forks.
const SPEAK: Duration = Duration::from_secs(5);
/// Time limit for a server to end when told to; then it is killed. It ends within 0.1 s unless it has much
/// to flush.
const STOP: Duration = Duration::from_secs(5);
/// The kernel needs a moment to end a killed process that is in the middle of a write to the disk.
const KILL: Duration = Duration::from_secs(5);
/// A thread that is busy in the kernel freezes only when it leaves it.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Watched {
    shell: Child,
    /// The shell is no longer in the process table, so its id may belong to another process.
    reaped: bool,
    /// The server runs as long as this is open. Not left in `shell`, because waiting for a child would close it.
    _lifeline: Option<ChildStdin>,
    server: u32,
}

impl Watched {
    /// Runs a server with these arguments. Its shell writes the server's process id into the locked file, and
    /// both keep that open.
    pub(crate) fn spawn(
        server: &Path,
        arguments: [&OsStr; 4],
        lock: &File,
        log: File,
    ) -> io::Result<Watched> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(server).args(arguments);
        command.env("PATH", path::safe());
        command.stdin(Stdio::piped()).stdout(lock.try_clone()?).stderr(log).process_group(0);
        let mut shell = command.spawn()?;
        let lifeline = shell.stdin.take();
        match until(SPEAK, || lock::holder(lock)) {
            // Another writer of the file could make us kill any process.
            Some(server) if parent(server).is_some_and(|parent| parent != shell.id()) => {
                Err(io::Error::other(format!("process {server} was not started by us")))
            }
            Some(server) => Ok(Watched { shell, reaped: false, _lifeline: lifeline, server }),
            // The lifeline is closed here, so the shell ends by itself if it ever continues.
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "the shell did not report its server")),
        }
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.server
    }

    /// Whether the server's process exists. The shell ends with it, and is our child, so its id cannot have
    /// gone to another process.
    pub(crate) fn is_running(&self) -> bool {
        // NOWAIT: only check, and leave the shell in the process table.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !self.reaped && matches!(waitid(WaitId::Pid(Pid::from_child(&self.shell)), look), Ok(None))
    }

    /// Sends the server a signal if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let server = self.server.try_into().ok().and_then(Pid::from_raw);
        if let Some(server) = server
            && self.is_running()
        {
            // It can only fail if the server has ended since: nothing is left to do.
            let _ = kill_process(server, signal);
        }
    }

    /// Freezes the server, and waits until it is frozen.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        until(PAUSE, || (is_paused(self.server) || !self.is_running()).then_some(()));
    }

    /// Stops the server gracefully, or by force if that takes too long.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        // A paused server does not receive TERM.
        self.signal(Signal::CONT);
        if !self.ended_within(STOP) {
            self.kill();
        }
    }

    /// Kills the server at once: kill -9.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if !self.ended_within(KILL) {
            // The shell hangs. Its process group has its id.
            let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
            self.ended_within(KILL);
        }
    }

    /// Also removes an ended shell from the process table.
    fn ended_within(&mut self, limit: Duration) -> bool {
        self.reaped = self.reaped || until(limit, || self.shell.try_wait().transpose()).is_some();
        self.reaped
    }
}

/// The parent of a process; `None` if it cannot be determined, or the process has ended.
fn parent(pid: u32) -> Option<u32> {
    if cfg!(target_os = "linux") {
        // The line is `PID (NAME) STATE PARENT …`, and the name may contain parentheses.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        return stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok();
    }
    let said = output(Command::new("/bin/ps").args(["-o", "ppid=", "-p", &pid.to_string()]), SPEAK);
    said.ok()?.trim().parse().ok()
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop();
    }
}
