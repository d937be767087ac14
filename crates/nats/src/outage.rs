//! Decides whether anything can be stored in a stream now, from periodic checks and from the outcomes of appends. Time
//! is an argument. Must do no I/O.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Quorum;

/// A regular leader change takes less than this: until then, a missing leader is not an outage.
const ELECTION: Duration = Duration::from_millis(1_500);
/// Unanswered checks are an outage after this long without a good sign.
const SILENCE: Duration = Duration::from_millis(3_500);
/// Unacknowledged appends are an outage after this many in this time, if none was acknowledged.
const UNACKNOWLEDGED: (u32, Duration) = (2, Duration::from_millis(1_500));
/// An election no longer ends an outage that has lasted this long: calls then fail fast.
const KNOWN: Duration = Duration::from_secs(10);
/// A full stream that stored something again counts as full until it has refused nothing for this long.
const HOLD: Duration = Duration::from_secs(5);
/// After this long without an append, only the next one can tell whether appends are stored.
const REST: Duration = Duration::from_secs(30);
/// While appends fail fast because none is acknowledged, one of them is let through as a trial this often.
const TRIAL: Duration = Duration::from_secs(1);

/// Why nothing can be stored in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// There is no answer for it.
    Silent,
    /// It has no leader.
    Leaderless,
    /// No quorum: its leader hears too few of the other replicas.
    NoQuorum {
        /// Reachable replicas, including the leader.
        heard: usize,
        /// All replicas.
        of: usize,
    },
    /// Its storage is full.
    Full(String),
    /// Its leader acknowledges nothing: the disk may be full or broken.
    Unacknowledged,
}

impl Outage {
    /// Whether the storage is full, and nothing else is wrong.
    pub(crate) fn full(&self) -> bool {
        matches!(self, Outage::Full(_))
    }

    /// Whether the stream cannot be read either.
    fn unreadable(&self) -> bool {
        matches!(self, Outage::Silent | Outage::Leaderless)
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outage::Silent => to.write_str("JetStream does not answer for it"),
            Outage::Leaderless => to.write_str("it has no leader"),
            Outage::NoQuorum { heard, of } => {
                write!(to, "it has no quorum: {heard} of {of} replicas are reachable")
            }
            Outage::Full(why) => write!(to, "the storage is full: {why}"),
            Outage::Unacknowledged => {
                to.write_str("its leader acknowledges nothing: the server's disk may be full or broken")
            }
        }
    }
}

/// The evidence about one stream.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The last sign of a leader with a quorum.
    good: Option<Instant>,
    /// Since when checks report an outage, and the last one's result.
    doubt: Option<(Instant, Outage)>,
    refusals: Option<Refusals>,
}

/// Appends that were not stored, with none stored since.
#[derive(Debug)]
struct Refusals {
    outage: Outage,
    count: u32,
    first: Instant,
    last: Instant,
    /// When something was stored after the last of them.
    proven: bool,
    /// When the last append was let through as a trial.
    trial: Option<Instant>,
}

impl Evidence {
    /// Records the result of a check; `None` for no answer.
    pub(crate) fn look(&mut self, now: Instant, found: Option<Quorum>) {
        let outage = match found {
            Some(quorum) if quorum.holds() => {
                (self.good, self.doubt) = (Some(now), None);
                return self.tidy(now);
            }
            Some(quorum) if quorum.led => Outage::NoQuorum { heard: quorum.heard, of: quorum.of },
            Some(_) => Outage::Leaderless,
            None => Outage::Silent,
        };
        let since = self.doubt.as_ref().map_or(now, |(since, _)| *since);
        self.doubt = Some((since, outage));
    }

    /// Records that an append was stored.
    pub(crate) fn stored(&mut self, now: Instant) {
        (self.good, self.doubt) = (Some(now), None);
        if let Some(refusals) = &mut self.refusals {
            refusals.proven = true;
        }
        self.tidy(now);
    }

    /// Records that an append was refused because the storage is full.
    pub(crate) fn full(&mut self, now: Instant, why: &str) {
        self.refused(now, Outage::Full(why.to_owned()));
    }

    /// Records that an append with enough time was not acknowledged.
    pub(crate) fn unacknowledged(&mut self, now: Instant) {
        self.refused(now, Outage::Unacknowledged);
    }

    fn refused(&mut self, now: Instant, outage: Outage) {
        let same =
            |known: &Refusals| known.outage == outage && now.saturating_duration_since(known.last) < REST;
        let known = self.refusals.take().filter(same);
        let (count, first) = known.as_ref().map_or((0, now), |known| (known.count, known.first));
        let trial = known.and_then(|known| known.trial);
        let count = count.saturating_add(1);
        self.refusals = Some(Refusals { outage, count, first, last: now, proven: false, trial });
    }

    /// Forgets refusals that are old enough and were followed by a stored append.
    fn tidy(&mut self, now: Instant) {
        let over = |refusals: &Refusals| {
            let held = !refusals.outage.full() || now.saturating_duration_since(refusals.last) >= HOLD;
            refusals.proven && held
        };
        if self.refusals.as_ref().is_some_and(over) {
            self.refusals = None;
        }
    }

    /// Whether there is no evidence of an outage.
    pub(crate) fn calm(&self) -> bool {
        self.doubt.is_none() && self.refusals.is_none()
    }

    /// The outage of the quorum: no leader, too few followers, or no answer.
    pub(crate) fn quorum_outage(&self, now: Instant) -> Option<&Outage> {
        let (since, outage) = self.doubt.as_ref()?;
        let over = |limit| now.saturating_duration_since(*since) >= limit;
        let lasts = match outage {
            Outage::Leaderless => over(ELECTION),
            Outage::Silent => now.saturating_duration_since(self.good.unwrap_or(*since)) >= SILENCE,
            _ => true,
        };
        lasts.then_some(outage)
    }

    /// The last refusal of an append, unless one was stored since; however long ago.
    pub(crate) fn refusal(&self, now: Instant) -> Option<&Outage> {
        let refusals = self.refusals.as_ref()?;
        let (count, time) = UNACKNOWLEDGED;
        let told = match refusals.outage {
            Outage::Unacknowledged => {
                refusals.count >= count && now.saturating_duration_since(refusals.first) >= time
            }
            _ => !refusals.proven || now.saturating_duration_since(refusals.last) < HOLD,
        };
        told.then_some(&refusals.outage)
    }

    /// Why nothing can be stored now.
    pub(crate) fn outage(&self, now: Instant) -> Option<&Outage> {
        let tried = |refusals: &Refusals| now.saturating_duration_since(refusals.last) < REST;
        let lately = self.refusals.as_ref().is_some_and(tried);
        self.quorum_outage(now).or_else(|| self.refusal(now).filter(|_| lately))
    }

    /// Why an append now would certainly fail. The asker need not be the one who appends.
    pub(crate) fn no_write(&self, now: Instant) -> Option<Outage> {
        let refused = || (self.trial(now) == Some(false)).then_some(Outage::Unacknowledged);
        self.known(now).cloned().or_else(refused)
    }

    /// The same, for a caller that appends unless there is a reason against it: one append is let through as a trial,
    /// and no other for a while.
    pub(crate) fn no_append(&mut self, now: Instant) -> Option<Outage> {
        let outage = self.no_write(now);
        let trial = outage.is_none() && self.trial(now).is_some();
        if let Some(refusals) = self.refusals.as_mut().filter(|_| trial) {
            refusals.trial = Some(now);
        }
        outage
    }

    /// Whether an append may be tried now as a trial; `None` unless appends fail fast.
    fn trial(&self, now: Instant) -> Option<bool> {
        self.refusal(now).filter(|outage| **outage == Outage::Unacknowledged)?;
        let refusals = self.refusals.as_ref()?;
        let known = now.saturating_duration_since(refusals.first) >= KNOWN;
        let due = |last| now.saturating_duration_since(last) >= TRIAL;
        known.then(|| refusals.trial.is_none_or(due))
    }

    /// Why a read now would certainly fail.
    pub(crate) fn no_read(&self, now: Instant) -> Option<Outage> {
        self.known(now).filter(|outage| outage.unreadable()).cloned()
    }

    fn known(&self, now: Instant) -> Option<&Outage> {
        let (since, _) = self.doubt.as_ref()?;
        self.quorum_outage(now).filter(|_| now.saturating_duration_since(*since) >= KNOWN)
    }
}

#[cfg(test)]
mod tests;
