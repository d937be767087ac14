//! The output of `--version`. Shared by the tests of both programs.

use crate::harness::command::{program, run};

/// Expects name, version and commit on one line.
pub fn says_its_version_and_commit(path: &str, name: &str) {
    let ended = run(&mut program(path, &["--version"]));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.out, format!("{name} {} ({})\n", version::VERSION, version::COMMIT));
}
