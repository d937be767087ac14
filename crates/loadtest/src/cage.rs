//! A memory limit on a process, as in a container: a cgroup, created by systemd where it runs, else by hand where that
//! is permitted. Must not depend on what the process does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";
/// Exists if the machine was booted with systemd.
const SYSTEMD: &str = "/run/systemd/system";
/// How long to wait for killed processes to leave their cgroup.
const LEAVE: (u32, Duration) = (100, Duration::from_millis(20));

/// How memory can be limited on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Means {
    /// `systemd-run`, as root or as a user.
    Systemd { user: bool },
    /// A version 2 cgroup.
    Unified,
    /// A version 1 cgroup.
    Memory,
    /// Not at all.
    None,
}

/// Limits on a process.
#[derive(Debug, Default)]
pub(crate) struct Cage {
    /// Limit on open files.
    files: Option<u64>,
    memory: Option<Memory>,
}

#[derive(Debug)]
enum Memory {
    Systemd { user: bool, bytes: u64 },
    Folder(PathBuf),
}

impl Means {
    /// The first that works on this machine.
    pub(crate) fn find() -> Means {
        if Path::new(SYSTEMD).exists() {
            for user in [false, true] {
                let run = systemd(user, 64 << 20).into_iter().chain(["true".to_owned()]);
                if succeeds(run) {
                    return Means::Systemd { user };
                }
            }
        }
        [Means::Unified, Means::Memory]
            .into_iter()
            .find(|means| folder(means, "probe", 64 << 20).map(|folder| remove(&folder)).is_ok())
            .unwrap_or(Means::None)
    }

    /// A description for the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Means::Systemd { .. } => "a cgroup created by systemd-run",
            Means::Unified => "a cgroup (version 2) created by hand",
            Means::Memory => "a cgroup (version 1) created by hand",
            Means::None => "no cgroup: none can be created here, so only resident memory is checked",
        }
    }

    /// A cgroup with a limit of this many bytes.
    pub(crate) fn cage(&self, name: &str, bytes: u64) -> anyhow::Result<Cage> {
        let memory = match self {
            Means::Systemd { user } => Some(Memory::Systemd { user: *user, bytes }),
            Means::Unified | Means::Memory => Some(Memory::Folder(folder(self, name, bytes)?)),
            Means::None => None,
        };
        Ok(Cage { files: None, memory })
    }
}

impl Cage {
    /// Adds a hard limit on open files.
    pub(crate) fn files(mut self, files: u64) -> Cage {
        self.files = Some(files);
        self
    }

    /// The words to put in front of a command that runs inside.
    pub(crate) fn command(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if let Some(files) = self.files {
            steps.push(format!("ulimit -n {files}"));
        }
        let mut words = Vec::new();
        match &self.memory {
            Some(Memory::Systemd { user, bytes }) => words.extend(systemd(*user, *bytes)),
            Some(Memory::Folder(folder)) => {
                steps.push(format!("echo $$ >'{}/cgroup.procs'", folder.display()))
            }
            None => {}
        }
        if !steps.is_empty() {
            steps.push("exec \"$@\"".to_owned());
            words.extend(["sh", "-c", &steps.join(" && "), "sh"].map(str::to_owned));
        }
        words
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Some(Memory::Folder(folder)) = &self.memory {
            remove(folder);
        }
    }
}

fn systemd(user: bool, bytes: u64) -> Vec<String> {
    let mut words = vec!["systemd-run".to_owned()];
    words.extend(user.then(|| "--user".to_owned()));
    words.extend(["--scope", "--quiet", "--collect"].map(str::to_owned));
    words.extend([
        format!("--property=MemoryMax={bytes}"),
        "--property=MemorySwapMax=0".to_owned(),
        "--".to_owned(),
    ]);
    words
}

fn succeeds(words: impl IntoIterator<Item = String>) -> bool {
    let mut words = words.into_iter();
    let Some(program) = words.next() else { return false };
    let run = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

/// Creates a cgroup with this memory limit.
fn folder(means: &Means, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
    let (root, limit, swap) = match means {
        Means::Unified => (V2, "memory.max", ("memory.swap.max", 0)),
        _ => (V1, "memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", bytes)),
    };
    let folder = Path::new(root).join(format!("bench-{}-{name}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    // Without a mounted cgroup file system this is a plain folder, which has no such files to write to.
    let bounded = put(&folder.join(limit), bytes);
    if let Err(error) = bounded {
        remove(&folder);
        return Err(error).with_context(|| format!("{limit} of {}", folder.display()));
    }
    // Without swap there is nothing to limit.
    let _ = put(&folder.join(swap.0), swap.1);
    Ok(folder)
}

fn put(file: &Path, value: u64) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(value.to_string().as_bytes())
}

/// Removes a cgroup. Its processes have been killed.
fn remove(folder: &Path) {
    for _ in 0..LEAVE.0 {
        if std::fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::sleep(LEAVE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_cage_runs_and_has_so_few_files() {
        let words = Cage::default().files(99).command();
        let output =
            Command::new(&words[0]).args(&words[1..]).args(["sh", "-c", "ulimit -n"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "99");
    }

    #[test]
    fn who_takes_more_than_the_cage_has_is_killed() {
        let means = Means::find();
        if means == Means::None {
            return;
        }
        let cage = means.cage("test", 32 << 20).unwrap();
        // The shell keeps what it reads in memory.
        let eats =
            ["sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"].map(str::to_owned);
        assert!(!succeeds(cage.command().into_iter().chain(eats)));
        let lives = ["sh", "-c", "echo small"].map(str::to_owned);
        assert!(succeeds(cage.command().into_iter().chain(lives)));
    }
}
