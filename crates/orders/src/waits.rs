//! How long the order system waits for its streams and for the inventory. The gateway's `waits` tests that each wait
//! ends before the one around it.

use std::time::Duration;

/// One append to ORDERS or one read of it: longer than a healthy store takes, shorter than most deadlines.
pub const RECORD: Duration = Duration::from_secs(2);
/// How long the release of an unused reservation is retried. After that the workers' expiry frees it.
pub const RELEASE: Duration = Duration::from_secs(10);
