//! Checks whether a process is frozen by SIGSTOP. Must not depend on who froze it.
//!
//! Sending the signal takes no time, but a busy process with many threads may still respond for milliseconds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::run::output;

/// `ps` answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether all of its threads are frozen.
pub(crate) fn is_paused(pid: u32) -> bool {
    if cfg!(target_os = "linux") { threads_are_paused(pid).unwrap_or(false) } else { ps_says_paused(pid) }
}

/// Without `ps`, which a small container may lack.
fn threads_are_paused(pid: u32) -> Option<bool> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(threads.flatten().all(|thread| state(&thread.path()) == Some('T')))
}

/// The line is `PID (NAME) STATE …`, and the name may contain parentheses.
fn state(thread: &Path) -> Option<char> {
    fs::read_to_string(thread.join("stat")).ok()?.rsplit_once(") ")?.1.chars().next()
}

fn ps_says_paused(pid: u32) -> bool {
    let said = output(Command::new("/bin/ps").args(["-o", "state=", "-p", &pid.to_string()]), LIMIT);
    said.is_ok_and(|state| state.trim_start().starts_with('T'))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::wait::until;

    #[test]
    fn a_process_is_paused_after_sigstop_and_not_before() {
        let mut child = Command::new("/bin/sh").args(["-c", "exec sleep 600"]).spawn().unwrap();
        let looks = [threads_are_paused(child.id()).unwrap_or(false), ps_says_paused(child.id())];
        assert_eq!(looks, [false, false]);
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        assert_eq!(until(LIMIT, || is_paused(child.id()).then_some(())), Some(()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
