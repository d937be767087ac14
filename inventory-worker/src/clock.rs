//! The clock, for whoever is allowed to have one: never the rules.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Now, in unix milliseconds.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The instant of a unix time in milliseconds; `None` if it has passed.
pub fn instant(unix: u64) -> Option<Instant> {
    let left = unix.checked_sub(unix_ms())?;
    Instant::now().checked_add(Duration::from_millis(left))
}
