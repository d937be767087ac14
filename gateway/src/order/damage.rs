//! Entries of the record that cannot be read: each time that one is met is counted, and logged as often as a log bears.
//! Must never decide what becomes of such an entry.

use telemetry::{Count, Quota};

/// Unreadable entries that were met.
#[derive(Debug, Default)]
pub struct Damage {
    met: Count,
    lines: Quota,
}

impl Damage {
    /// Notes that an entry cannot be read, and why.
    pub fn note(&self, entry: u64, why: &dyn std::fmt::Display) {
        self.met.one();
        if self.lines.take() {
            tracing::error!(entry, %why, "an entry of the record of orders cannot be read");
        }
    }

    /// How often such an entry was met.
    pub fn met(&self) -> u64 {
        self.met.get()
    }
}
