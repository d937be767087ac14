//! Delays before a retry. Must not depend on what is retried.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A random number from 0 to `ceiling`, for delays that must not coincide.
pub fn jitter(ceiling: u64) -> u64 {
    RandomState::new().hash_one(0_u8) % (ceiling + 1)
}

/// Exponential backoff with full jitter: the delay before retry `attempt` (0 is the first).
pub fn backoff(base: Duration, attempt: u32, most: Duration) -> Duration {
    let ceiling = base.saturating_mul(1 << attempt.min(16)).min(most);
    Duration::from_micros(jitter(u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX - 1)))
}
