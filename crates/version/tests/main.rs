//! The build script in each place where it may run: in a clone, in an archive, inside another repository, in an image's
//! build.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with a package in it, like this workspace, and the script for it.
struct Sources {
    folder: TempDir,
    script: PathBuf,
}

impl Sources {
    fn new() -> Sources {
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("script");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let built = Command::new(rustc).args(["--edition", "2024", "-o"]).arg(&script).arg(source).status();
        assert!(built.unwrap().success());
        std::fs::create_dir_all(folder.path().join("outer/sources/crates/version")).unwrap();
        Sources { folder, script }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs git in a folder, with a fixed identity.
    fn git(&self, name: &str, arguments: &[&str]) -> String {
        let git = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(self.path(name))
            .output()
            .unwrap();
        assert!(git.status.success(), "{git:?}");
        String::from_utf8(git.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, name: &str) -> String {
        self.git(name, &["commit", "--allow-empty", "--message", "a"]);
        self.git(name, &["rev-parse", "--short=12", "HEAD"])
    }

    fn run(&self, commit: Option<&str>) -> Output {
        let mut script = Command::new(&self.script);
        script.env("CARGO_MANIFEST_DIR", self.path("outer/sources/crates/version")).env_remove("GW_COMMIT");
        // Repositories above the temporary folder are ignored.
        script.env("GIT_CEILING_DIRECTORIES", self.folder.path());
        script.envs(commit.map(|commit| ("GW_COMMIT", commit))).output().unwrap()
    }

    /// Its output to cargo.
    fn says(&self, commit: Option<&str>) -> String {
        let output = self.run(commit);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn is(commit: &str) -> String {
    format!("cargo::rustc-env=COMMIT={commit}\n")
}

#[test]
fn these_programs_have_the_commit_that_is_checked_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let git = Command::new("git").arg("-C").arg(root).args(["rev-parse", "--short=12", "HEAD"]).output();
    let head = git.ok().filter(|git| root.join(".git").exists() && git.status.success());
    let head =
        head.map_or("unknown".to_owned(), |git| String::from_utf8(git.stdout).unwrap().trim().to_owned());
    assert!(std::env::var_os("GW_COMMIT").is_some() || version::COMMIT == head, "{} {head}", version::COMMIT);
    assert_eq!(version::FULL, format!("{} ({})", version::VERSION, version::COMMIT));
}

#[test]
fn in_a_clone_it_is_heads_and_is_looked_up_after_each_commit() {
    let sources = Sources::new();
    sources.git("outer/sources", &["init", "--quiet"]);
    let first = sources.commit("outer/sources");
    let said = sources.says(None);
    assert!(said.contains(&is(&first)), "{said}");
    assert_eq!(said, sources.says(None), "the same commit gives the same build");
    // The files that cargo watches exist, and change with the next commit.
    let watched = |said: &str| {
        let files =
            said.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).map(PathBuf::from);
        files.filter(|file| file.is_absolute()).map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let before = watched(&said);
    let second = sources.commit("outer/sources");
    assert_ne!(before, watched(&said), "{said}");
    assert!(sources.says(None).contains(&is(&second)));
    // In a worktree `.git` is a file.
    sources.git("outer/sources", &["worktree", "add", "--quiet", "--detach", "../tree", &first]);
    std::fs::remove_dir_all(sources.path("outer/sources/.git/logs")).unwrap();
    assert!(sources.says(None).contains(&is(&second)), "without a log of HEAD");
}

#[test]
fn without_git_it_is_unknown_and_inside_another_repository_too() {
    let sources = Sources::new();
    assert!(sources.says(None).contains(&is("unknown")));
    sources.git("outer", &["init", "--quiet"]);
    sources.commit("outer");
    assert!(sources.says(None).contains(&is("unknown")));
}

#[test]
fn whoever_builds_may_say_it() {
    let sources = Sources::new();
    let long = "0123456789abcdef0123456789abcdef01234567";
    assert!(sources.says(Some(long)).contains(&is("0123456789ab")));
    assert!(sources.says(Some("v1.2.0-rc1")).contains(&is("v1.2.0-rc1")));
    // Empty counts as unset.
    assert!(sources.says(Some("")).contains(&is("unknown")));
    let refused = sources.run(Some("a b"));
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("GW_COMMIT"));
}
