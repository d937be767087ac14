//! A real service that runs during a test, and its log. Shared by the tests of both programs.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service that logs JSON to a file. Killed with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts it, with its log in this file.
    pub fn start(command: &mut Command, log: PathBuf) -> Process {
        let file = File::create(&log).unwrap();
        let child = command.arg("--log-format=json").stderr(file).spawn().unwrap();
        Process { child, log }
    }

    /// The lines that it has logged so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be incomplete.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Lines of level warn or error that contain one of these texts.
    pub fn warnings(&self, texts: &[&str]) -> Vec<Value> {
        let warns = |line: &Value| line["level"] == "WARN" || line["level"] == "ERROR";
        let has = |line: &Value| texts.iter().any(|text| line.to_string().contains(text));
        self.lines().into_iter().filter(|line| warns(line) && has(line)).collect()
    }

    /// Waits for a line with this message, and returns it.
    pub fn line(&self, message: &str) -> Value {
        let mut found = None;
        until(&format!("{message:?} is logged"), || {
            found = self.lines().into_iter().find(|line| line["fields"]["message"] == message);
            found.is_some()
        });
        found.unwrap()
    }
}

/// Asserts that no field of these lines is empty.
pub fn assert_nothing_empty(lines: &[Value]) {
    assert!(!lines.is_empty());
    for line in lines {
        let fields = line["fields"].as_object().unwrap();
        assert!(fields.values().all(|value| value != ""), "an empty field: {line}");
    }
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
