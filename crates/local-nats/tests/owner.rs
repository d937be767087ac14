//! Another process that owns a server, so that it can be killed: the example `hold`.

use std::env;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Killed when dropped.
pub(crate) struct Owner {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What an owner reports about its server.
pub(crate) struct Held {
    pub(crate) port: u16,
    pub(crate) pid: u32,
}

impl Owner {
    pub(crate) fn start(command: &mut Command) -> Owner {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Owner { child, lines }
    }

    /// Waits until it has a server. Its own limits end the wait.
    pub(crate) fn held(&mut self) -> Held {
        let mut line = || self.lines.next().expect("the owner's error is on standard error").unwrap();
        let port = line().rsplit(':').next().unwrap().parse().unwrap();
        Held { port, pid: line().parse().unwrap() }
    }

    /// -9, so that it has no chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Owns a server with its data in this folder.
pub(crate) fn hold(folder: &Path) -> Command {
    let test = env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples").join("hold");
    assert!(example.is_file(), "no {}: `cargo test -p local-nats` builds it", example.display());
    let mut command = Command::new(example);
    command.arg(folder);
    command
}

/// Simulates a machine that has never had a nats-server.
pub(crate) fn on_a_new_machine<'a>(command: &'a mut Command, caches: &Path) -> &'a mut Command {
    let path = env::var_os("PATH").unwrap();
    let without = env::split_paths(&path).filter(|folder| !folder.join("nats-server").exists());
    command.env("PATH", env::join_paths(without).unwrap());
    command.env("XDG_CACHE_HOME", caches).env_remove("NATS_SERVER_BIN")
}

/// Whether this machine has one of the tools that install a server. With a nats-server on the PATH, none is needed.
pub(crate) fn can_install() -> bool {
    let works = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    works(Command::new("python3").args(["-m", "pip", "--version"]))
        || works(Command::new("go").arg("version"))
}

pub(crate) fn exists(pid: u32) -> bool {
    test_kill_process(id(pid)).is_ok()
}

pub(crate) fn kill_9(pid: u32) {
    kill_process(id(pid), Signal::KILL).unwrap();
}

pub(crate) fn pause(pid: u32) {
    kill_process(id(pid), Signal::STOP).unwrap();
}

fn id(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Whether it becomes true within the limit.
pub(crate) fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
    true
}
