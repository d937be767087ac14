//! Runs a program to its end, within a time limit. Must not depend on which program it is.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use thiserror::Error;

use crate::wait::until;

/// How many of a failed program's last lines are shown.
const SHOWN: usize = 5;

/// Why running a program failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// It could not be started, or its output could not be read.
    #[error("cannot run `{program}`: {source}")]
    Start {
        /// Its name or path.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("`{program}` failed ({status}): {said}")]
    Status {
        /// Its name or path.
        program: String,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its standard error.
        said: String,
    },
    /// It did not end in time, and was killed.
    #[error("`{program}` did not end within {} s", limit.as_secs())]
    Late {
        /// Its name or path.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
}

/// Runs the command to its end and returns its standard output.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (status, out, said) = match finish(command, limit) {
        Ok(Some(end)) => end,
        Ok(None) => return Err(Failure::Late { program, limit }),
        Err(source) => return Err(Failure::Start { program, source }),
    };
    if status.success() {
        Ok(out)
    } else {
        Err(Failure::Status { program, status, said: tail(&said, SHOWN) })
    }
}

/// Output goes to files, not to pipes: a full pipe would block the program, and reading two pipes takes
/// threads.
fn finish(command: &mut Command, limit: Duration) -> io::Result<Option<(ExitStatus, String, String)>> {
    let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    let mut child = command.spawn()?;
    let ended = until(limit, || child.try_wait().transpose());
    let Some(status) = ended.transpose()? else {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    };
    Ok(Some((status, text(out)?, text(err)?)))
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last `count` lines of a text that are not blank.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<String, Failure> {
        output(Command::new("/bin/sh").args(["-c", script]), limit)
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let late = sh("exec sleep 600", Duration::from_millis(50));
        assert!(matches!(late, Err(Failure::Late { .. })), "{late:?}");
    }

    #[test]
    fn a_failure_shows_the_last_lines_of_standard_error() {
        let failed = sh("seq 9 >&2; exit 3", Duration::from_secs(10)).unwrap_err().to_string();
        assert_eq!(failed, "`/bin/sh` failed (exit status: 3): 5\n6\n7\n8\n9");
    }
}
