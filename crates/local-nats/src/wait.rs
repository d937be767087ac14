//! Waits for a condition, with a time limit. Must not depend on the condition.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Short compared to what we wait for (a process to start or end: tens of milliseconds).
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `ask` until it returns a value; `None` when the limit has passed. Calls it at least once.
pub(crate) fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(PAUSE);
    }
}
