//! Finds the commit being built: `GW_COMMIT` if it is set, else git's answer for this workspace, else `unknown`. Builds
//! of the same commit give the same bytes: they contain no time, host or user.

// Cargo reads the output.
#![allow(clippy::disallowed_macros)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// As many digits as git needs for a large repository, with room to spare.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed=GW_COMMIT");
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = package.parent().and_then(Path::parent).expect("the package is in the workspace");
    let commit = given().or_else(|| read(root)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=COMMIT={commit}");
    // Without such a line, each change of a file in this package would run this script again.
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit given by the environment, as needed for an image's build without `.git`.
fn given() -> Option<String> {
    let commit = std::env::var("GW_COMMIT").ok().filter(|commit| !commit.is_empty())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(commit.len() <= 64 && commit.bytes().all(plain), "GW_COMMIT is not a valid commit: {commit:?}");
    Some(
        commit
            .chars()
            .take(if commit.bytes().all(|b| b.is_ascii_hexdigit()) { DIGITS } else { 64 })
            .collect(),
    )
}

/// Git's answer, if this workspace is a complete working tree: sources unpacked inside another repository are not that
/// repository's commit.
fn read(root: &Path) -> Option<String> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // HEAD changes with the branch, its log with each commit, and the branch's file if no log is kept. A missing file
    // would run this script again each time.
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = git(root, &["rev-parse", "--git-path", name]).map(|path| root.join(PathBuf::from(path)));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(root, &["rev-parse", &format!("--short={DIGITS}"), "HEAD"])
}

/// The output of a git command; `None` if it fails, or git is missing.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
