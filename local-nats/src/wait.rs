//! Waiting for a condition, with a limit. Must never know what is waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Short beside what we wait for (a process to start or end: tens of milliseconds).
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until there is an answer, or until the limit has passed: then `None`. Asks at least once.
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
