//! Runs a real program as a shell does, with output streams that are not read, full, or closed. Shared by the tests of
//! the programs, each in the package for which cargo builds the program.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// How long a command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What standard output or standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// A pipe that is read to its end.
    Read,
    /// A pipe whose reader has closed it.
    Unread,
    /// A full disk.
    Full,
    /// Closed.
    Closed,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The program with these arguments and an empty environment.
pub fn program(path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    // The shell closes streams if necessary, and replaces itself by the program.
    command.args(["-c", "exec \"$0\" \"$@\"", path]).args(arguments).env_clear();
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Ended {
    with(command, Out::Read, Out::Read)
}

/// The same, with these streams.
pub fn with(command: &mut Command, out: Out, err: Out) -> Ended {
    let mut child = match (out, err) {
        (Out::Closed, _) | (_, Out::Closed) => closing(command, out == Out::Closed, err == Out::Closed),
        _ => command.stdout(stream(out)).stderr(stream(err)).spawn().unwrap(),
    };
    let text = |out: Out, pipe: Option<Box<dyn Read + Send>>| match out {
        Out::Read => pipe.map(collect),
        // Dropping the pipe here closes its reader.
        _ => None,
    };
    let stdout = text(out, child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = text(err, child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let code = wait(&mut child).code();
    let end = |text: Option<JoinHandle<String>>| text.map_or_else(String::new, |text| text.join().unwrap());
    Ended { code, out: end(stdout), err: end(stderr) }
}

fn stream(out: Out) -> Stdio {
    match out {
        Out::Full => File::options().write(true).open("/dev/full").unwrap().into(),
        _ => Stdio::piped(),
    }
}

fn closing(command: &mut Command, out: bool, err: bool) -> Child {
    let arguments: Vec<_> = command.get_args().skip(1).map(ToOwned::to_owned).collect();
    let variables: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    let script =
        format!("exec \"$0\" \"$@\"{}{}", if out { " >&-" } else { "" }, if err { " 2>&-" } else { "" });
    let mut closing = Command::new("/bin/sh");
    closing.arg("-c").arg(script).args(&arguments[1..]).env_clear().envs(variables).stdin(Stdio::null());
    closing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn collect(mut pipe: Box<dyn Read + Send>) -> JoinHandle<String> {
    spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child) -> ExitStatus {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > limit {
            child.kill().unwrap();
            panic!("it did not end: {:?}", child.wait());
        }
        sleep(Duration::from_millis(5));
    }
}
