//! Finds programs of this machine by name: only in the absolute folders of PATH, never in the working folder. Must not
//! depend on what they are run for.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

/// The folders if PATH names none. Never empty: to a shell an empty PATH is the working folder.
const DEFAULT: [&str; 2] = ["/usr/bin", "/bin"];

/// The absolute folders of PATH.
pub(crate) fn folders() -> Vec<PathBuf> {
    of(&env::var_os("PATH").unwrap_or_default())
}

fn of(path: &OsStr) -> Vec<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    if folders.is_empty() { DEFAULT.map(PathBuf::from).into() } else { folders }
}

/// The path of the program: in one of these folders, or the given path if it has a folder. A given path was chosen on
/// purpose, so it need not be absolute.
pub(crate) fn find(name: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return absolute(name).ok();
    }
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    folders.iter().map(|folder| folder.join(name)).find(runs)
}

/// A command for the program, with the same safe PATH.
pub(crate) fn command(name: &str) -> Result<Command, String> {
    let file =
        find(Path::new(name), &folders()).ok_or_else(|| format!("no absolute folder of PATH has {name}"))?;
    let mut command = Command::new(file);
    command.env("PATH", safe());
    Ok(command)
}

/// The PATH for children.
pub(crate) fn safe() -> OsString {
    // It was split at its separators, so joining cannot fail.
    env::join_paths(folders()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_an_absolute_folder_is_the_systems() {
        for path in ["", ".", "bin:./other:", "::"] {
            assert_eq!(of(path.as_ref()), ["/usr/bin", "/bin"].map(PathBuf::from), "{path:?}");
        }
        assert_eq!(of("bin:/opt/bin::.".as_ref()), [PathBuf::from("/opt/bin")]);
    }
}
