//! The roster: which instances of services were there, which are, and since when one is gone. Time is an argument. Must never
//! know how they were asked.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::window::{COUNTED, Ring};
use crate::bridge::survey::Instance;

/// How long somebody who is gone stays on it.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// More than this are not followed.
const MOST: usize = 500;
/// So many surveys in a row without an answer, over so long, and an instance is gone. One may be missed by a busy process.
const MISSES: u32 = 2;
const SILENCE: Duration = Duration::from_millis(2_500);
/// Between two samples of what an instance has done.
const EVERY: Duration = Duration::from_secs(1);

/// Everybody who answered a survey in the last while.
#[derive(Default)]
pub(super) struct Roster {
    entries: BTreeMap<String, Entry>,
    /// When they were asked last, and first.
    looked: Option<Instant>,
    began: Option<Instant>,
}

/// Somebody on the roster.
pub(super) struct Entry {
    pub(super) instance: Instance,
    /// When the instance was seen first, and answered last.
    since: Instant,
    pub(super) seen: Instant,
    /// Surveys in a row without its answer.
    misses: u32,
    missed: Option<Instant>,
    requests: Ring<u64>,
}

/// How an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It answered the last survey.
    Here,
    /// It has not answered the last one; that may mean nothing.
    Silent,
    /// It has not answered for long enough.
    Gone,
}

impl Roster {
    /// Takes what a survey found.
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
        let entry = self.entries.entry(instance.id.clone()).or_insert_with(|| Entry {
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

    /// Forgets the one that has been gone for longest.
    fn make_room(&mut self) {
        let gone = self.entries.iter().filter(|(_, entry)| entry.presence() == Presence::Gone);
        if let Some(id) = gone.min_by_key(|(_, entry)| entry.seen).map(|(id, _)| id.clone()) {
            self.entries.remove(&id);
        }
    }

    /// All, by id.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// When they were asked last.
    pub(super) fn looked(&self) -> Option<Instant> {
        self.looked
    }

    /// How many of a service are gone that no other came for since.
    pub(super) fn missing(&self, service: &str, now: Instant) -> usize {
        let of = |presence| {
            let of = move |entry: &&Entry| (entry.presence() == Presence::Gone) == presence;
            self.entries().filter(|entry| entry.instance.name == service).filter(of)
        };
        // Those who were there when we began came for nobody.
        let came = |entry: &&Entry| Some(entry.since) != self.began && now.duration_since(entry.since) < KEPT;
        of(true).count().saturating_sub(of(false).filter(came).count())
    }
}

impl Entry {
    pub(super) fn presence(&self) -> Presence {
        let silence = self.missed.map_or(Duration::ZERO, |missed| missed.duration_since(self.seen));
        match self.misses {
            0 => Presence::Here,
            misses if misses >= MISSES && silence >= SILENCE => Presence::Gone,
            _ => Presence::Silent,
        }
    }

    /// Requests a second in the last minute; none where there are not two samples.
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
            subjects: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    fn is(roster: &Roster, id: &str) -> Option<Presence> {
        roster.entries().find(|entry| entry.instance.id == id).map(Entry::presence)
    }

    #[test]
    fn a_worker_that_answers_no_more_is_gone_and_stays_visible_for_ten_minutes() {
        let (mut roster, start) = (Roster::default(), Instant::now());
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
        let (mut roster, start) = (Roster::default(), Instant::now());
        roster.take(vec![worker("a", 0), worker("b", 0)], start);
        for second in 1..5 {
            roster.take(vec![worker("b", 0), worker("c", 0)], start + second * SECOND);
        }
        assert_eq!(
            (is(&roster, "a"), roster.missing("inventory", start + 5 * SECOND)),
            (Some(Presence::Gone), 0)
        );
        // It came long ago, and for nobody who left now.
        let late = start + KEPT - SECOND;
        roster.take(vec![worker("a", 0), worker("b", 0), worker("c", 0)], late);
        for second in [2, 3, 6] {
            roster.take(vec![worker("b", 0), worker("c", 0)], late + second * SECOND);
        }
        assert_eq!(roster.missing("inventory", late + 6 * SECOND), 1);
    }

    #[test]
    fn the_rate_of_a_worker_is_of_the_last_minute() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        let rate = |roster: &Roster| roster.entries().next().and_then(Entry::rate);
        roster.take(vec![worker("a", 5_000)], start);
        assert_eq!(rate(&roster), None);
        for second in 1..=100 {
            roster.take(vec![worker("a", 5_000 + 20 * u64::from(second.min(70)))], start + second * SECOND);
        }
        assert_eq!(rate(&roster), Some(10.0), "30 of the last 60 s were idle");
    }

    #[test]
    fn crashing_workers_do_not_fill_the_roster() {
        let (mut roster, start) = (Roster::default(), Instant::now());
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
