//! Finds the commit that is built: `GW_COMMIT` if it is set, else what git says of this workspace, else `unknown`. A build
//! from the same commit gives the same bytes: no time, no host and no user goes into it.

// Cargo reads what is printed.
#![allow(clippy::disallowed_macros)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// As many digits as git needs for a large repository, with room to spare.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed=GW_COMMIT");
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where"));
    let root = package.parent().expect("the package is in the workspace");
    let commit = given().or_else(|| read(root)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=COMMIT={commit}");
    // Without any such line, each change of a file of this package would run this again.
    println!("cargo::rerun-if-changed=build.rs");
}

/// What whoever builds says it is, as an image's build without `.git` has to.
fn given() -> Option<String> {
    let commit = std::env::var("GW_COMMIT").ok().filter(|commit| !commit.is_empty())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(commit.len() <= 64 && commit.bytes().all(plain), "GW_COMMIT is no commit: {commit:?}");
    Some(
        commit
            .chars()
            .take(if commit.bytes().all(|b| b.is_ascii_hexdigit()) { DIGITS } else { 64 })
            .collect(),
    )
}

/// What git says, if this workspace is the whole of a working tree: sources unpacked inside another repository are not
/// that repository's commit.
fn read(root: &Path) -> Option<String> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // HEAD changes with the branch, its log with each commit, and the branch's file where no log is kept. A file that is
    // not there would run this again each time.
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = git(root, &["rev-parse", "--git-path", name]).map(|path| root.join(PathBuf::from(path)));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(root, &["rev-parse", &format!("--short={DIGITS}"), "HEAD"])
}

/// What a git command prints; nothing if it fails, or there is no git.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
