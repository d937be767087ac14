//! Programs of this machine by their names: from the absolute folders of PATH alone, never from whatever folder we happen
//! to be in. Must never know what they are run for.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

/// Where programs are if PATH does not say. Never empty: an empty PATH is the working folder to a shell.
const DEFAULT: [&str; 2] = ["/usr/bin", "/bin"];

/// The folders of PATH that mean the same wherever we are.
pub(crate) fn folders() -> Vec<PathBuf> {
    of(&env::var_os("PATH").unwrap_or_default())
}

fn of(path: &OsStr) -> Vec<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    if folders.is_empty() { DEFAULT.map(PathBuf::from).into() } else { folders }
}

/// Where the program is: in one of these folders, or where its own path says. That was not left anywhere by chance, so it
/// need not be absolute.
pub(crate) fn find(name: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return absolute(name).ok();
    }
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    folders.iter().map(|folder| folder.join(name)).find(runs)
}

/// The program, which finds others in the same way.
pub(crate) fn command(name: &str) -> Result<Command, String> {
    let file = find(Path::new(name), &folders())
        .ok_or_else(|| format!("there is no {name} in an absolute folder of PATH"))?;
    let mut command = Command::new(file);
    command.env("PATH", safe());
    Ok(command)
}

/// PATH as children get it.
pub(crate) fn safe() -> OsString {
    // It was split at its separators, so that none is left.
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
