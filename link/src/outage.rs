//! Whether anything can be stored in a stream now, judged by looks at it and by what appends came to. Time is an argument.
//! Must never ask anybody.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Quorum;

/// A change of leaders in order takes less than this: until then, no leader is no outage.
const ELECTION: Duration = Duration::from_millis(1_500);
/// Looks without an answer are an outage when nothing good was seen for so long.
const SILENCE: Duration = Duration::from_millis(3_500);
/// Appends without an acknowledgement are one when so many were sent, over so long a time, and none was acknowledged.
const UNACKNOWLEDGED: (u32, Duration) = (2, Duration::from_millis(1_500));
/// An outage that has lasted for so long does not end by an election any more: callers are told at once.
const KNOWN: Duration = Duration::from_secs(10);
/// A stream that took something counts as full until it has refused nothing for so long.
const HOLD: Duration = Duration::from_secs(5);
/// When no append was tried for so long, whether one would be taken is not known: only the next one can tell.
const REST: Duration = Duration::from_secs(30);
/// While appends are answered at once, because none is acknowledged, one of them is let through this often.
const TRIAL: Duration = Duration::from_secs(1);

/// Why nothing can be stored in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// Nobody answers for it.
    Silent,
    /// It has no leader.
    Leaderless,
    /// Its leader hears too few of the other replicas.
    NoQuorum {
        /// Replicas that are there, the leader among them.
        heard: usize,
        /// All of them.
        of: usize,
    },
    /// It takes no more.
    Full(String),
    /// It has a leader, which acknowledges nothing: its disk may be full or broken.
    Unacknowledged,
}

impl Outage {
    /// Whether there is no room, and nothing else is wrong.
    pub fn full(&self) -> bool {
        matches!(self, Outage::Full(_))
    }

    /// Whether it cannot be read either.
    fn unreadable(&self) -> bool {
        matches!(self, Outage::Silent | Outage::Leaderless)
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outage::Silent => to.write_str("nobody answers for it"),
            Outage::Leaderless => to.write_str("it has no leader"),
            Outage::NoQuorum { heard, of } => {
                write!(to, "it has no quorum: {heard} of {of} replicas are there")
            }
            Outage::Full(why) => write!(to, "the storage is full: {why}"),
            Outage::Unacknowledged => {
                to.write_str("its leader acknowledges nothing: the server's disk may be full or broken")
            }
        }
    }
}

/// What is known of one stream.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The last sign of a leader with a quorum.
    good: Option<Instant>,
    /// Since when looks say otherwise, and what the last one said.
    doubt: Option<(Instant, Outage)>,
    refusals: Option<Refusals>,
}

/// Appends that were not stored, and none that was since.
#[derive(Debug)]
struct Refusals {
    outage: Outage,
    count: u32,
    first: Instant,
    last: Instant,
    /// Something was stored after the last of them.
    proven: bool,
    /// When the last append was let through on trial.
    trial: Option<Instant>,
}

impl Evidence {
    /// A look found this, or no answer.
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

    /// Something was stored.
    pub(crate) fn stored(&mut self, now: Instant) {
        (self.good, self.doubt) = (Some(now), None);
        if let Some(refusals) = &mut self.refusals {
            refusals.proven = true;
        }
        self.tidy(now);
    }

    /// An append was not stored because there was no room.
    pub(crate) fn full(&mut self, now: Instant, why: &str) {
        self.refused(now, Outage::Full(why.to_owned()));
    }

    /// An append was not acknowledged in time, although there was enough of it.
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

    /// Forgets refusals that were followed by something better, and long enough ago.
    fn tidy(&mut self, now: Instant) {
        let over = |refusals: &Refusals| {
            let held = !refusals.outage.full() || now.saturating_duration_since(refusals.last) >= HOLD;
            refusals.proven && held
        };
        if self.refusals.as_ref().is_some_and(over) {
            self.refusals = None;
        }
    }

    /// Whether there is nothing to judge.
    pub(crate) fn calm(&self) -> bool {
        self.doubt.is_none() && self.refusals.is_none()
    }

    /// The quorum is doubted: no leader, or too few followers, or nobody answers.
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

    /// What appends last came to, if they are not stored, tried lately or not.
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

    /// Why an append that is tried now would certainly not be stored. Whoever asks need not be the one who tries it.
    pub(crate) fn no_write(&self, now: Instant) -> Option<Outage> {
        let refused = || (self.trial(now) == Some(false)).then_some(Outage::Unacknowledged);
        self.known(now).cloned().or_else(refused)
    }

    /// The same, for an append that is tried if there is no reason against it: one that is needed to find out is let
    /// through, and no other for a while.
    pub(crate) fn no_append(&mut self, now: Instant) -> Option<Outage> {
        let outage = self.no_write(now);
        let trial = outage.is_none() && self.trial(now).is_some();
        if let Some(refusals) = self.refusals.as_mut().filter(|_| trial) {
            refusals.trial = Some(now);
        }
        outage
    }

    /// Whether one append may be tried now to find out; nothing where appends are not answered at once.
    fn trial(&self, now: Instant) -> Option<bool> {
        self.refusal(now).filter(|outage| **outage == Outage::Unacknowledged)?;
        let refusals = self.refusals.as_ref()?;
        let known = now.saturating_duration_since(refusals.first) >= KNOWN;
        let due = |last| now.saturating_duration_since(last) >= TRIAL;
        known.then(|| refusals.trial.is_none_or(due))
    }

    /// Why a read that is tried now would certainly find nobody.
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
