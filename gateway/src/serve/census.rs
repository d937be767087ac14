//! What is known of everything around the gateway: streams and consumers all the time, services and dead letters while
//! somebody looks at the console. Must never be needed for an answer to a call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::subject;
use link::census::{StreamState, Unread};
use link::clock::SKEW;
use link::streams::{ALL, DEAD_LETTERS, ORDERS};
use link::{Census, Letter, Letters, Link};
use telemetry::{Page, Source};
use tokio::time::{Instant, sleep};

use super::identity::SERVICE;
use super::nodes::Nodes;
use super::roster::{Presence, Roster};
use super::window::{COUNTED, Ring};
use crate::bridge::survey::{self, Instance};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two looks while somebody looks at the console.
const WATCHED_PAUSE: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(2);
/// Whoever looks at the console asks again within this.
const WATCHED: Duration = Duration::from_secs(10);
/// What is older than this is shown with its age, and nothing good is said of it.
pub(super) const STALE: Duration = Duration::from_secs(8);
/// Between two visits to the servers' monitoring ports, and while somebody looks at the console.
const VISITS: Duration = Duration::from_secs(10);
const WATCHED_VISITS: Duration = Duration::from_secs(3);
/// How gateways are asked. One that does not hear itself so often may not ask, or may not answer, and asks again later.
const GATEWAYS: &str = "$SRV.STATS.gateway";
const DEAF: u32 = 3;
const AGAIN: Duration = Duration::from_secs(60);
/// Dead letters that are shown.
const LETTERS: usize = 20;
/// Requests that they may cost: gaps between them take some.
const REQUESTS: u32 = 200;
/// The durable consumer of the workers.
const CONSUMER: (&str, &str) = (ORDERS, subject::CONSUMER);

/// What was found last. Clones share it.
#[derive(Clone)]
pub(super) struct Around {
    state: Arc<Mutex<State>>,
    /// This gateway's, among gateways.
    id: Arc<str>,
}

#[derive(Default)]
pub(super) struct State {
    /// The last look, and when that was.
    pub(super) census: Census,
    pub(super) looked: Option<Instant>,
    /// Streams as they were read last.
    pub(super) streams: BTreeMap<&'static str, Known>,
    pub(super) roster: Roster,
    /// Those of our own kind, this one among them.
    pub(super) gateways: Roster,
    pub(super) nodes: Nodes,
    /// Questions to gateways in a row that did not come to ourselves, and when the last was.
    deaf: (u32, Option<Instant>),
    /// The newest first.
    pub(super) letters: Vec<Letter>,
    /// How many dead letters there were, and the last of all, when they were read.
    read: (u64, u64),
    /// When somebody looked at the console.
    watched: Option<Instant>,
}

/// A stream, and when it was read.
pub(super) struct Known {
    pub(super) stream: StreamState,
    pub(super) read: Instant,
    last: Ring<u64>,
}

impl State {
    /// Whether all of it was read, and not long ago.
    pub(super) fn current(&self, now: Instant) -> bool {
        let fresh = |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) < STALE);
        self.census.whole && fresh(self.looked) && fresh(self.roster.looked())
    }

    /// Whether the last look says something of now.
    pub(super) fn fresh(&self, now: Instant) -> bool {
        self.looked.is_some_and(|looked| now.duration_since(looked) < STALE)
    }

    /// Why a stream could not be read now, if that is so.
    pub(super) fn unread(&self, name: &str) -> Option<Unread> {
        self.census.unread.iter().find(|(of, _)| *of == name).map(|(_, why)| *why)
    }

    /// The streams that were read lately.
    pub(super) fn read(&self, now: Instant) -> impl Iterator<Item = &StreamState> {
        let fresh = move |known: &&Known| now.duration_since(known.read) < STALE;
        self.streams.values().filter(fresh).map(|known| &known.stream)
    }

    /// Whether gateways can be asked.
    fn hears(&self, now: Instant) -> bool {
        let (deaf, last) = self.deaf;
        deaf < DEAF || last.is_none_or(|last| now.duration_since(last) >= AGAIN)
    }

    fn watched(&self) -> bool {
        self.watched.is_some_and(|watched| watched.elapsed() < WATCHED)
    }

    fn take(&mut self, census: Census, now: Instant) {
        for stream in &census.streams {
            let known = self.streams.entry(stream.name).or_insert_with(|| Known {
                stream: stream.clone(),
                read: now,
                last: Ring::new(WATCHED_PAUSE, COUNTED),
            });
            (known.stream, known.read) = (stream.clone(), now);
            known.last.take(now, || stream.last);
        }
        (self.census, self.looked) = (census, Some(now));
    }
}

impl Known {
    /// Entries a second in the last minute; none where it was not read twice.
    pub(super) fn rate(&self) -> Option<f64> {
        let (from, before) = self.last.oldest(self.read)?;
        let seconds = self.read.duration_since(*from).as_secs_f64();
        (seconds > 0.5).then(|| self.stream.last.saturating_sub(*before) as f64 / seconds)
    }
}

impl Around {
    /// For the gateway with this id.
    pub(super) fn new(id: &str) -> Around {
        debug_assert!(GATEWAYS.ends_with(SERVICE));
        Around { state: Arc::default(), id: id.into() }
    }

    /// What was found, for somebody who looks at the console.
    pub(super) fn watch<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        let mut state = self.state();
        state.watched = Some(Instant::now());
        read(&state)
    }

    /// Looks for ever.
    pub(super) async fn run(self, link: Link) {
        let letters = Letters::new(&link);
        loop {
            if link.connected() {
                self.look(&link, &letters).await;
            } else {
                self.state().census.whole = false;
            }
            let watched = self.state().watched();
            sleep(if watched { WATCHED_PAUSE } else { PAUSE }).await;
        }
    }

    async fn look(&self, link: &Link, letters: &Letters) {
        let hears = self.state().hears(Instant::now());
        let gateways = async {
            match hears {
                true => survey::instances(link, GATEWAYS).await,
                false => None,
            }
        };
        let (census, found, gateways) = tokio::join!(
            Census::take(link, &ALL, &[CONSUMER], Instant::now() + LOOK),
            survey::instances(link, "$SRV.STATS"),
            gateways
        );
        if !link.connected() {
            self.state().census.whole = false;
            return;
        }
        let last = census.stream(DEAD_LETTERS).map(|stream| (stream.messages, stream.last));
        // Where JetStream answers, nobody's answer means that nobody is there.
        let found = found.or_else(|| census.answered.then(Vec::new));
        self.compare(found.as_deref().unwrap_or_default());
        let (watched, known) = {
            let (mut state, now) = (self.state(), Instant::now());
            if hears && census.answered {
                self.meet(&mut state, gateways.unwrap_or_default(), now);
            }
            state.take(census, now);
            if let Some(found) = found {
                state.roster.take(found, now);
            }
            (state.watched(), state.read)
        };
        if let Some(last) = last
            && watched
            && last != known
            && let Ok(found) = letters.newest(LETTERS, REQUESTS, LOOK).await
        {
            let mut state = self.state();
            (state.letters, state.read) = (found, last);
        }
    }

    /// Takes what gateways answered. Where this one is not among them, it is not known who is there.
    fn meet(&self, state: &mut State, found: Vec<Instance>, now: Instant) {
        let heard = found.iter().any(|gateway| *gateway.id == *self.id);
        state.deaf = (if heard { 0 } else { state.deaf.0.saturating_add(1) }, Some(now));
        if heard {
            state.gateways.take(found, now);
        }
    }

    /// Visits the servers' monitoring ports for ever.
    pub(super) async fn visit(self, urls: Option<String>) {
        let Some(urls) = urls else { return };
        loop {
            let found = link::nodes::look(&urls).await;
            let watched = {
                let mut state = self.state();
                state.nodes.take(found, Instant::now());
                state.watched()
            };
            sleep(if watched { WATCHED_VISITS } else { VISITS }).await;
        }
    }

    /// Says which instances' clocks are off, each once as long as that lasts.
    fn compare(&self, found: &[Instance]) {
        let off = |skew: i64| skew.unsigned_abs() > SKEW.as_millis() as u64;
        let state = self.state();
        for Instance { id, name, clock_skew_ms, .. } in found {
            let before = state.roster.entries().find(|other| other.instance.id == *id);
            let before = before.and_then(|other| other.instance.clock_skew_ms);
            match clock_skew_ms {
                Some(ahead_ms) if off(*ahead_ms) && !before.is_some_and(off) => {
                    tracing::warn!(target: "clock", id, name, ahead_ms, "the clock of a service's instance is off");
                }
                _ => {}
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Around {
    fn tell(&self, page: &mut Page) {
        let state = self.state();
        state.census.tell(page);
        state.nodes.tell(page);
        let here = state.roster.entries().filter(|entry| entry.presence() != Presence::Gone);
        for Instance { id, name, clock_skew_ms, .. } in here.map(|entry| &entry.instance) {
            let help = "By how much the clock of a service's instance is ahead of JetStream's, as it tells.";
            if let Some(skew) = clock_skew_ms {
                let labels = [("service", name.as_str()), ("instance_id", id)];
                page.level("gateway_service_clock_skew_seconds", help, &labels, *skew as f64 / 1e3);
            }
        }
    }
}
