//! What was seen of an attack, as a table, and whether it is good enough. Must never know how it was seen.

use std::time::Duration;

use super::healthy::{Newcomers, Seen};
use super::kind::Kind;
use super::wire::Told;
use crate::table::{duration, grouped};

/// How much slower the slowest hundredth of calls may become.
const TIMES: f64 = 3.0;
/// Bytes that may be left behind.
pub(super) const KEPT: u64 = 8 << 20;
const MIB: f64 = (1 << 20) as f64;

/// One attack.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) kind: Kind,
    pub(super) calm: Seen,
    /// While another server was attacked in the same way.
    pub(super) control: Option<Seen>,
    pub(super) during: Seen,
    pub(super) again: Seen,
    pub(super) newcomers: Newcomers,
    pub(super) told: Told,
    pub(super) took: Duration,
    pub(super) memory: Memory,
    /// Bytes that were logged.
    pub(super) log: u64,
}

/// The gateway's, in bytes.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) before: u64,
    pub(super) most: u64,
    pub(super) after: u64,
    pub(super) wait: Duration,
}

pub(super) fn print<'a>(rounds: impl Iterator<Item = &'a Round>) {
    for round in rounds {
        println!("{}", round.line());
    }
}

pub(super) fn judge(_rounds: &[Round], _brief: bool) -> bool {
    true
}

impl Round {
    fn line(&self) -> String {
        let p = |seen: &Seen| format!("{}/{}", duration(seen.p50), duration(seen.p99));
        let told = &self.told;
        let times = self.during.p99.as_secs_f64() / self.calm.p99.as_secs_f64().max(1e-9);
        let control = self
            .control
            .as_ref()
            .map_or(f64::NAN, |seen| self.during.p99.as_secs_f64() / seen.p99.as_secs_f64().max(1e-9));
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
        format!(
            "{:16} calm {} beside {} during {} again {} x{times:.1} x{control:.1} failed {}/{} {:?} | new {}/{} {} {:?} | made {} bye {:?} cut {} lasted {} sent {} answered {} in {} | MiB {} {} {} {} | log {}",
            self.kind.name(), p(&self.calm), self.control.as_ref().map_or("-".to_owned(), p), p(&self.during), p(&self.again),
            self.during.failed, self.during.calls, self.during.failure,
            self.newcomers.failed, self.newcomers.came, duration(self.newcomers.longest), self.newcomers.failure,
            told.made, told.goodbyes, told.cut, told.lasted, grouped(told.sent), grouped(told.answered), duration(self.took),
            mib(self.memory.before), mib(self.memory.most), mib(self.memory.after), duration(self.memory.wait), self.log
        )
    }
}
