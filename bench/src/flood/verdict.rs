//! What was seen of an attack, as a line of a table, and whether it is good enough. Must never know how it was seen.

use std::time::Duration;

use super::healthy::Seen;
use super::kind::{Fate, Kind, Port, Victim};
use super::newcomers::Newcomers;
use super::wire::Told;
use crate::table::{duration, grouped};

/// How much slower the slowest hundredth of calls may become.
const TIMES: f64 = 3.0;
/// What lists and events may take at any time.
const MOMENT: Duration = Duration::from_millis(15);
/// Bytes that may be left behind. The allocator gives back what is free as a whole, when the thread that had it comes by;
/// pages that something else lives on stay.
pub(super) const KEPT: u64 = 16 << 20;
/// What a connection's buffers in the kernel hold, on both sides, at the most.
const BUFFERS: u64 = 16 << 20;
/// Frames that are read at once, and each second, if they are no part of a call (`gateway/src/edge/patrol.rs`).
const RATE: (f64, f64) = (2_048.0, 1_024.0);
/// Answers bring back half of what a frame costs.
const BACK: f64 = 2.2;
/// Bytes that an attack may have logged.
const LOGGED: u64 = 64 << 10;
/// GOAWAY's code for too much.
const CALM: u32 = 11;
const MIB: f64 = (1 << 20) as f64;

/// What stands over the lines.
pub(super) const HEAD: &str = "      attack                          p50, p99 before     beside p99  meanwhile           factor  after p99  memory, MiB          newcomers";

/// One attack.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) kind: Kind,
    pub(super) place: (Victim, Port),
    /// The attacker's, at a time.
    pub(super) connections: usize,
    pub(super) calm: Seen,
    /// While another server was attacked in the same way.
    pub(super) control: Option<Seen>,
    pub(super) during: Seen,
    pub(super) again: Seen,
    pub(super) newcomers: Newcomers,
    /// Of the port that was attacked, if it has such.
    pub(super) probes: Newcomers,
    pub(super) told: Told,
    pub(super) took: Duration,
    pub(super) memory: Memory,
    /// Bytes that were logged.
    pub(super) log: u64,
    /// Processes that ended, or did not come back.
    pub(super) ended: Vec<String>,
}

/// Of the process that bears it, in bytes.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) before: u64,
    pub(super) most: u64,
    pub(super) after: u64,
    pub(super) wait: Duration,
}

impl Round {
    /// Prints it; whether all is as it should be.
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
            "      {} connections: {} told ENHANCE_YOUR_CALM, {} closed, {} stayed; {} sent, {} frames came back",
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

    /// How much slower the slowest hundredth was than without the attack, or than with the same attack beside: what two
    /// cores have to give up to the attacker's process is no fault of the gateway's.
    fn times(&self) -> f64 {
        let control = self.control.as_ref().map_or(Duration::ZERO, |seen| seen.p99);
        self.during.p99.as_secs_f64() / self.calm.p99.max(control).as_secs_f64().max(f64::EPSILON)
    }

    /// The same of lists or events. There are fewer, so that a moment of the machine is seen.
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
        must(self.during.calls > 0, "nobody called".to_owned());
        must(brief || self.times() < TIMES, format!("calls were {:.1} times as slow", self.times()));
        for (what, part) in
            [("lists", (|seen| seen.lists) as fn(&Seen) -> Duration), ("events", |seen| seen.events)]
        {
            let times = self.times_of(part);
            must(brief || times < TIMES, format!("{what} were {times:.1} times as slow"));
        }
        must(self.during.watched > 0, "no event came".to_owned());
        self.ended.iter().for_each(|ended| must(false, ended.clone()));
        let memory = &self.memory;
        let kept = memory.after.saturating_sub(memory.before);
        // What has products keeps them.
        must(kept <= KEPT || self.kind == Kind::Products, format!("{:.1} MiB were kept", kept as f64 / MIB));
        let limit = self.kind.bears(self.place.0).memory();
        must(memory.most <= limit, format!("more than {:.0} MiB were taken", limit as f64 / MIB));
        must(self.log <= LOGGED, format!("{} bytes were logged", grouped(self.log)));
        must(self.met(), format!("its connections: {:?} is wanted", self.kind.fate()));
        // Where all seats are taken, newcomers have none.
        let full = self.kind == Kind::Crowd;
        for came in [&self.newcomers, &self.probes] {
            let said = came.failure.clone().unwrap_or_default();
            must(
                full || came.failed == 0,
                format!("{} of {} newcomers failed: {said}", came.failed, came.came),
            );
        }
        faults
    }

    /// Whether the attacker's connections became what they should.
    fn met(&self) -> bool {
        let Told { made, goodbyes, cut, lasted, sent, bytes, answered } = &self.told;
        let each = |count: u64| count as f64 / (*made).max(1) as f64;
        let most = RATE.0 + RATE.1 * self.took.as_secs_f64();
        let fit = match self.kind.fate() {
            Fate::Closed => goodbyes.contains_key(&CALM) && *lasted <= self.connections as u64,
            // What was sent and not read lies in the kernel; where each burst waits for an answer, there is none.
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
