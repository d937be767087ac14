//! Builds nats-server with the Go toolchain. Must not depend on where the file is installed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::VERSION;
use crate::path;
use crate::run::output;

/// A cold build takes a minute or two on two cores, and may download a newer toolchain first.
const BUILD: Duration = Duration::from_secs(300);

/// Builds into an empty folder, and returns the program's path in it.
pub(crate) fn fetch(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let module = format!("github.com/nats-io/nats-server/v2@v{VERSION}");
    let mut go = path::command("go")?;
    output(go.args(["install", &module]).env("GOBIN", folder).current_dir(folder), BUILD)?;
    Ok(folder.join("nats-server"))
}
