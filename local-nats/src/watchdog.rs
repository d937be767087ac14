//! A nats-server process that does not outlive its owner. Must never know ports or data.
//!
//! Without unsafe code a process cannot ask the kernel to end its children with it. So a shell runs the server and
//! reads from a pipe whose other end only the owner has: however the owner ends, the kernel closes the pipe, and the
//! shell stops the server. Both are in a process group of their own: a terminal's Ctrl-C reaches the owner alone, who
//! can drain before it stops the server.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::lock;
use crate::wait::until;

const SCRIPT: &str = include_str!("watchdog.sh");

/// How long a server may take to end when told to; then it is killed. It ends within 0.1 s unless it has much to flush.
const STOP: Duration = Duration::from_secs(5);
/// The kernel needs a moment to end a killed process that is in the middle of a write to the disk.
const KILL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Watched {
    shell: Child,
    /// The server runs as long as this is open.
    _lifeline: Option<ChildStdin>,
    /// Holds the server's process id.
    lock: File,
}

impl Watched {
    /// Starts a server. Its shell writes the server's process id into the locked file, and both keep it open.
    pub(crate) fn spawn(binary: &Path, config: &Path, lock: File, log: File) -> io::Result<Watched> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(binary).arg("--config").arg(config);
        command.stdin(Stdio::piped()).stdout(lock.try_clone()?).stderr(log).process_group(0);
        let mut shell = command.spawn()?;
        // `wait` of a child closes its standard input first, so it must not be in there.
        let lifeline = shell.stdin.take();
        Ok(Watched { shell, _lifeline: lifeline, lock })
    }

    /// The server's process id, as soon as it is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        lock::holder(&self.lock)
    }

    /// Whether the server's process is there. The shell ends with it, and is our child, so its id cannot have gone to
    /// another process.
    pub(crate) fn is_running(&self) -> bool {
        // NOWAIT: only look, and leave the shell in the process table.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(Pid::from_child(&self.shell)), look), Ok(None))
    }

    /// Sends the server a signal if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let server = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(server) = server
            && self.is_running()
        {
            // It can only fail if the server has ended since: nothing is left to be done.
            let _ = kill_process(server, signal);
        }
    }

    /// Ends the server in order, or by force if that takes too long.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        // A paused server does not see TERM.
        self.signal(Signal::CONT);
        if !self.ended_within(STOP) {
            self.kill();
        }
    }

    /// Ends the server at once: kill -9.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if !self.ended_within(KILL) {
            // The shell hangs, or never came to say which process the server is. Their group has the shell's id.
            let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
            self.ended_within(KILL);
        }
    }

    /// Also takes the shell out of the process table when it has ended.
    fn ended_within(&mut self, limit: Duration) -> bool {
        until(limit, || self.shell.try_wait().transpose()).is_some()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop();
    }
}
