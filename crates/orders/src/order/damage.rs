//! Counts reads of entries of the record that cannot be decoded, and logs them at a limited rate. Must not decide how
//! such an entry is handled.

use telemetry::{Counter, LineQuota};

/// The count of unreadable entries.
#[derive(Debug, Default)]
pub struct Damage {
    met: Counter,
    lines: LineQuota,
}

impl Damage {
    /// Counts an entry that cannot be read, and logs why.
    pub fn note(&self, entry: u64, why: &dyn std::fmt::Display) {
        self.met.increment();
        if self.lines.take() {
            tracing::error!(entry, %why, "an entry of the record of orders cannot be read");
        }
    }

    /// How often an unreadable entry was read.
    pub fn met(&self) -> u64 {
        self.met.get()
    }
}
