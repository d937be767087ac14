//! Durations of options.

use std::time::Duration;

use prost_reflect::prost_types;

/// The longest that an option may say.
const TIMEOUT_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration from 1 ns to 24 h.
pub(crate) fn within_a_day(duration: &prost_types::Duration) -> Option<Duration> {
    let parts = (u64::try_from(duration.seconds), u32::try_from(duration.nanos));
    let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) = parts else { return None };
    Some(Duration::new(seconds, nanos)).filter(|duration| !duration.is_zero() && *duration <= TIMEOUT_MOST)
}
