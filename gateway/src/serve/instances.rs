//! The roster: which service instances are present, which were, and since when one is gone. Time is an argument. Must
//! not do I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::window::{COUNTED, Ring};
use bridge::discovery::Instance;

/// How long an instance stays in the roster after its last answer.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Maximum number of instances.
const MOST: usize = 500;
/// An instance is gone after this many discovery requests in a row without an answer, over at least this time. A busy
/// process may miss one.
const MISSES: u32 = 2;
const SILENCE: Duration = Duration::from_millis(2_500);
/// Interval between two samples of an instance's request count.
const EVERY: Duration = Duration::from_secs(1);

/// The instances that answered a discovery request recently.
#[derive(Default)]
pub(super) struct Instances {
    entries: BTreeMap<String, InstanceEntry>,
    /// The times of the last and of the first discovery request.
    looked: Option<Instant>,
    began: Option<Instant>,
}

/// An instance in the roster.
pub(super) struct InstanceEntry {
    pub(super) instance: Instance,
    /// When the instance answered first, and last.
    since: Instant,
    pub(super) seen: Instant,
    /// Discovery requests in a row without its answer.
    misses: u32,
    missed: Option<Instant>,
    requests: Ring<u64>,
}

/// Whether an instance is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It answered the last discovery request.
    Here,
    /// It missed the last one, or a few; that may be harmless.
    Silent,
    /// It has not answered for too long.
    Gone,
}

impl Instances {
    /// Records the answers to a discovery request.
    pub(super) fn take(&mut self, found: Vec<Instance>, now: Instant) {
        self.looked = Some(now);
        self.began.get_or_insert(now);
        for entry in self.entries.values_mut() {
            (entry.misses, entry.missed) = (entry.misses.saturating_add(1), Some(now));
        }
        for instance in found {
            if self.entries.len() >= MOST && !self.entries.contains_key(&instance.id) {
                self.make_room();
            }
            if self.entries.len() < MOST || self.entries.contains_key(&instance.id) {
                self.enter(instance, now);
            }
        }
        self.entries.retain(|_, entry| now.duration_since(entry.seen) < KEPT);
    }

    fn enter(&mut self, instance: Instance, now: Instant) {
        let requests = instance.requests;
        let entry = self.entries.entry(instance.id.clone()).or_insert_with(|| InstanceEntry {
            instance: instance.clone(),
            since: now,
            seen: now,
            misses: 0,
            missed: None,
            requests: Ring::new(EVERY, COUNTED),
        });
        (entry.instance, entry.seen, entry.misses) = (instance, now, 0);
        entry.requests.take(now, || requests);
    }

    /// Removes the instance that has been gone for longest.
    fn make_room(&mut self) {
        let gone = self.entries.iter().filter(|(_, entry)| entry.presence() == Presence::Gone);
        if let Some(id) = gone.min_by_key(|(_, entry)| entry.seen).map(|(id, _)| id.clone()) {
            self.entries.remove(&id);
        }
    }

    /// All instances, by id.
    pub(super) fn entries(&self) -> impl Iterator<Item = &InstanceEntry> {
        self.entries.values()
    }

    /// The time of the last discovery request.
    pub(super) fn looked(&self) -> Option<Instant> {
        self.looked
    }

    /// How many instances of a service are gone and were not replaced by new ones.
    pub(super) fn missing(&self, service: &str, now: Instant) -> usize {
        let of = |presence| {
            let of = move |entry: &&InstanceEntry| (entry.presence() == Presence::Gone) == presence;
            self.entries().filter(|entry| entry.instance.name == service).filter(of)
        };
        // Instances that were present at the start replace no other.
        let came = |entry: &&InstanceEntry| {
            Some(entry.since) != self.began && now.duration_since(entry.since) < KEPT
        };
        of(true).count().saturating_sub(of(false).filter(came).count())
    }
}

impl InstanceEntry {
    pub(super) fn presence(&self) -> Presence {
        let silence = self.missed.map_or(Duration::ZERO, |missed| missed.duration_since(self.seen));
        match self.misses {
            0 => Presence::Here,
            misses if misses >= MISSES && silence >= SILENCE => Presence::Gone,
            _ => Presence::Silent,
        }
    }

    /// Requests per second in the last minute; none without two samples.
    pub(super) fn rate(&self) -> Option<f64> {
        let (from, before) = self.requests.oldest(self.seen)?;
        let seconds = self.seen.duration_since(*from).as_secs_f64();
        (seconds > 0.5).then(|| self.instance.requests.saturating_sub(*before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn worker(id: &str, requests: u64) -> Instance {
        Instance {
            id: id.to_owned(),
            name: "inventory".to_owned(),
            version: "1".to_owned(),
            requests,
            failures: 0,
            clock_skew_ms: None,
            endpoints: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    fn is(roster: &Instances, id: &str) -> Option<Presence> {
        roster.entries().find(|entry| entry.instance.id == id).map(InstanceEntry::presence)
    }

    #[test]
    fn a_worker_that_answers_no_more_is_gone_and_stays_visible_for_ten_minutes() {
        let (mut roster, start) = (Instances::default(), Instant::now());
        roster.take(vec![worker("a", 0), worker("b", 0)], start);
        let mut look = |after: Duration| {
            roster.take(vec![worker("b", 0)], start + after);
            (is(&roster, "a"), roster.missing("inventory", start + after))
        };
        assert_eq!(look(SECOND), (Some(Presence::Silent), 0), "a survey can be missed");
        assert_eq!(look(3 * SECOND), (Some(Presence::Gone), 1));
        assert_eq!(look(KEPT - SECOND), (Some(Presence::Gone), 1));
        assert_eq!(look(KEPT), (None, 0));
    }

    #[test]
    fn one_that_comes_for_another_makes_up_for_it_and_one_that_answers_again_is_here() {
        let (mut roster, start) = (Instances::default(), Instant::now());
        roster.take(vec![worker("a", 0), worker("b", 0)], start);
        for second in 1..5 {
            roster.take(vec![worker("b", 0), worker("c", 0)], start + second * SECOND);
        }
        assert_eq!(
            (is(&roster, "a"), roster.missing("inventory", start + 5 * SECOND)),
            (Some(Presence::Gone), 0)
        );
        // It came long ago, and does not replace one that left now.
        let late = start + KEPT - SECOND;
        roster.take(vec![worker("a", 0), worker("b", 0), worker("c", 0)], late);
        for second in [2, 3, 6] {
            roster.take(vec![worker("b", 0), worker("c", 0)], late + second * SECOND);
        }
        assert_eq!(roster.missing("inventory", late + 6 * SECOND), 1);
    }

    #[test]
    fn the_rate_of_a_worker_is_of_the_last_minute() {
        let (mut roster, start) = (Instances::default(), Instant::now());
        let rate = |roster: &Instances| roster.entries().next().and_then(InstanceEntry::rate);
        roster.take(vec![worker("a", 5_000)], start);
        assert_eq!(rate(&roster), None);
        for second in 1..=100 {
            roster.take(vec![worker("a", 5_000 + 20 * u64::from(second.min(70)))], start + second * SECOND);
        }
        assert_eq!(rate(&roster), Some(10.0), "30 of the last 60 s were idle");
    }

    #[test]
    fn crashing_workers_do_not_fill_the_roster() {
        let (mut roster, start) = (Instances::default(), Instant::now());
        for turn in 0..2_000 {
            let found = vec![worker("steady", 0), worker(&format!("crashing-{turn}"), 0)];
            roster.take(found, start + turn * SECOND / 4);
        }
        assert!(roster.entries().count() <= MOST);
        assert_eq!(
            (is(&roster, "steady"), is(&roster, "crashing-1999")),
            (Some(Presence::Here), Some(Presence::Here))
        );
    }
}
