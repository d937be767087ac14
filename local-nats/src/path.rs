//! Programs of this machine by their names: from the absolute folders of PATH alone, never from whatever folder we happen
//! to be in. Must never know what they are run for.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders of PATH that mean the same wherever we are.
pub(crate) fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

/// Where the program is.
pub(crate) fn find(name: &Path) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    folders().into_iter().map(|folder| folder.join(name)).find(runs)
}

/// The program, which finds others in the same way.
pub(crate) fn command(name: &str) -> Result<Command, String> {
    let file =
        find(Path::new(name)).ok_or_else(|| format!("there is no {name} in an absolute folder of PATH"))?;
    let mut command = Command::new(file);
    command.env("PATH", safe());
    Ok(command)
}

/// PATH as children get it.
pub(crate) fn safe() -> OsString {
    // It was split at its separators, so that none is left.
    env::join_paths(folders()).unwrap_or_default()
}
