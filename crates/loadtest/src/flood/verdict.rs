//! The results of an attack as a line of a table, and whether they pass. Must not depend on how they were measured.

use std::time::Duration;

use super::healthy::Seen;
use super::kind::{Fate, Kind, Port, Victim};
use super::newcomers::Newcomers;
use super::wire::Told;
use crate::table::{duration, grouped};

/// Limit on the factor by which p99 may grow.
const TIMES: f64 = 3.0;
/// A p99 of lists and events below this always passes.
const MOMENT: Duration = Duration::from_millis(15);
/// Bytes of memory that may remain after an attack. The allocator returns pages that are entirely free once the thread
/// that owned them runs again; pages that are partly in use remain.
pub(super) const KEPT: u64 = 16 << 20;
/// The most that a connection's kernel buffers hold, both sides together.
const BUFFERS: u64 = 16 << 20;
/// Control frames that are read at once, and per second (the limits of the control-frame limiter in `crates/listener`).
const RATE: (f64, f64) = (2_048.0, 1_024.0);
/// Half of a frame's cost is refunded when its answer is sent, which doubles the rate.
const BACK: f64 = 2.2;
/// Bytes of log that an attack may cause.
const LOGGED: u64 = 64 << 10;
/// ENHANCE_YOUR_CALM.
const CALM: u32 = 11;
const MIB: f64 = (1 << 20) as f64;

/// The table's header.
pub(super) const HEAD: &str = "      attack                          p50, p99 before     bare p99    during              factor  after p99  memory, MiB          newcomers";

/// One attack.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) kind: Kind,
    pub(super) place: (Victim, Port),
    /// The attacker's concurrent connections.
    pub(super) connections: usize,
    pub(super) calm: Seen,
    /// While the bare server was attacked in the same way.
    pub(super) control: Option<Seen>,
    pub(super) during: Seen,
    pub(super) again: Seen,
    pub(super) newcomers: Newcomers,
    /// Probes of the attacked port, if it has any.
    pub(super) probes: Newcomers,
    pub(super) told: Told,
    pub(super) took: Duration,
    pub(super) memory: Memory,
    /// Bytes that were logged.
    pub(super) log: u64,
    /// Processes that exited or did not come back.
    pub(super) ended: Vec<String>,
}

/// Memory of the attacked process, in bytes.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) before: u64,
    pub(super) most: u64,
    pub(super) after: u64,
    pub(super) wait: Duration,
}

impl Round {
    /// Prints the line. True if it passes.
    pub(super) fn tell(&self, brief: bool) -> bool {
        let faults = self.faults(brief);
        let pair = |seen: &Seen| format!("{}, {}", duration(seen.p50), duration(seen.p99));
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / MIB);
        let Memory { before, most, after, wait } = &self.memory;
        cli::say!(
            "{}  {:30}  {:18}  {:10}  {:18}  × {:<4.1}  {:9}  {:19}  {} of {}, {}",
            if faults.is_empty() { "PASS" } else { "FAIL" },
            self.kind.title(self.place),
            pair(&self.calm),
            self.control.as_ref().map_or_else(|| "-".to_owned(), |seen| duration(seen.p99)),
            pair(&self.during),
            self.times(),
            duration(self.again.p99),
            format!("{} → {} → {}, {}", mib(*before), mib(*most), mib(*after), duration(*wait)),
            self.newcomers.came - self.newcomers.failed,
            self.newcomers.came,
            duration(self.newcomers.longest),
        );
        let three = |part: fn(&Seen) -> Duration| {
            [&self.calm, &self.during, &self.again].map(|seen| duration(part(seen))).join(" → ")
        };
        cli::say!(
            "      lists' p99 {}; events' p99 {}; probes {} of {}",
            three(|seen| seen.lists),
            three(|seen| seen.events),
            self.probes.came - self.probes.failed,
            self.probes.came,
        );
        let Told { made, goodbyes, cut, lasted, sent, answered, .. } = &self.told;
        let calmed = goodbyes.get(&CALM).copied().unwrap_or_default();
        cli::say!(
            "      {} connections: {} closed with ENHANCE_YOUR_CALM, {} closed, {} stayed; {} sent, {} frames received",
            grouped(*made),
            grouped(calmed),
            grouped(*cut + goodbyes.values().sum::<u64>() - calmed),
            grouped(*lasted),
            grouped(*sent),
            grouped(*answered),
        );
        faults.iter().for_each(|fault| cli::say!("      {fault}"));
        faults.is_empty()
    }

    /// The factor of p99 against that without the attack or with the attack on the bare server, whichever is larger:
    /// cores that the attacker's process takes are not the gateway's fault.
    fn times(&self) -> f64 {
        let control = self.control.as_ref().map_or(Duration::ZERO, |seen| seen.p99);
        self.during.p99.as_secs_f64() / self.calm.p99.max(control).as_secs_f64().max(f64::EPSILON)
    }

    /// The same for lists or events. There are fewer of them, so that a pause of the machine shows.
    fn times_of(&self, part: fn(&Seen) -> Duration) -> f64 {
        let control = self.control.as_ref().map_or(Duration::ZERO, part);
        part(&self.during).as_secs_f64() / part(&self.calm).max(control).max(MOMENT).as_secs_f64()
    }

    fn faults(&self, brief: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault)
            }
        };
        for seen in [&self.calm, &self.during, &self.again] {
            let said = seen.failure.clone().unwrap_or_default();
            must(seen.failed == 0, format!("{} of {} calls failed: {said}", seen.failed, seen.calls));
        }
        must(self.during.calls > 0, "no call was made".to_owned());
        must(brief || self.times() < TIMES, format!("p99 of calls grew by a factor of {:.1}", self.times()));
        for (what, part) in
            [("lists", (|seen| seen.lists) as fn(&Seen) -> Duration), ("events", |seen| seen.events)]
        {
            let times = self.times_of(part);
            must(brief || times < TIMES, format!("p99 of {what} grew by a factor of {times:.1}"));
        }
        must(self.during.watched > 0, "no event was received".to_owned());
        self.ended.iter().for_each(|ended| must(false, ended.clone()));
        let memory = &self.memory;
        let kept = memory.after.saturating_sub(memory.before);
        // The worker keeps the products it has.
        must(
            kept <= KEPT || self.kind == Kind::Products,
            format!("{:.1} MiB of memory were not returned", kept as f64 / MIB),
        );
        let limit = self.kind.bears(self.place.0).memory();
        must(memory.most <= limit, format!("used more than {:.0} MiB", limit as f64 / MIB));
        must(self.log <= LOGGED, format!("{} bytes were logged", grouped(self.log)));
        must(
            self.met(),
            format!("the attacker's connections did not end as expected: {:?}", self.kind.fate()),
        );
        // At the connection limit, new connections are refused.
        let full = self.kind == Kind::Crowd;
        for came in [&self.newcomers, &self.probes] {
            let said = came.failure.clone().unwrap_or_default();
            must(
                full || came.failed == 0,
                format!("{} of {} new connections failed: {said}", came.failed, came.came),
            );
        }
        faults
    }

    /// Whether the attacker's connections ended as expected.
    fn met(&self) -> bool {
        let Told { made, goodbyes, cut, lasted, sent, bytes, answered } = &self.told;
        let each = |count: u64| count as f64 / (*made).max(1) as f64;
        let most = RATE.0 + RATE.1 * self.took.as_secs_f64();
        let fit = match self.kind.fate() {
            Fate::Closed => goodbyes.contains_key(&CALM) && *lasted <= self.connections as u64,
            // Bytes that were not read are in kernel buffers; there are none if each burst waits for a reply.
            Fate::Slowed if self.kind == Kind::PatientReset => each(*sent) <= most + RATE.1,
            Fate::Slowed => each(*bytes) <= BUFFERS as f64 && each(*answered) <= BACK * most + RATE.0,
            Fate::Refused => *answered > 0,
            Fate::Sorted => *cut >= made / 2 && *lasted <= made / 2,
            Fate::Bounded(most) => *lasted <= most && *cut > 0,
            Fate::Borne => true,
        };
        fit && *made > 0
    }
}
