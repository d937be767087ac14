//! Stats of everything around the gateway: streams and consumers are polled all the time, services and dead letters
//! while the console is open. Calls must not depend on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contract::subject;
use nats::clock::SKEW;
use nats::stats::{StatsError, StreamState};
use nats::{Connection, JetStreamStats};
use order_streams::{DEAD_LETTERS, ORDERS};
use order_streams::{DeadLetter, DeadLetters};
use parking_lot::Mutex;
use telemetry::{Exposition, Source};
use tokio::time::{Instant, sleep};

use super::identity::SERVICE;
use super::instances::{Instances, Presence};
use super::nodes::Nodes;
use super::window::{COUNTED, Ring};
use bridge::discovery::{self, Instance};

/// Interval between two polls.
const PAUSE: Duration = Duration::from_secs(5);
/// Interval between two polls while the console is open.
const WATCHED_PAUSE: Duration = Duration::from_secs(1);
/// Timeout of a poll.
const LOOK: Duration = Duration::from_secs(2);
/// An open console requests its data again within this time.
const WATCHED: Duration = Duration::from_secs(10);
/// Data older than this is shown with its age, and never as healthy.
pub(super) const STALE: Duration = Duration::from_secs(8);
/// Interval between two requests to the servers' monitoring ports, and while the console is open.
const VISITS: Duration = Duration::from_secs(10);
const WATCHED_VISITS: Duration = Duration::from_secs(3);
/// The discovery subject of gateways. A gateway that does not receive its own answer `DEAF` times in a row may lack
/// permissions, and asks again only after `AGAIN`.
const GATEWAYS: &str = "$SRV.STATS.gateway";
const DEAF: u32 = 3;
const AGAIN: Duration = Duration::from_secs(60);
/// Number of dead letters that are shown.
const LETTERS: usize = 20;
/// Requests that reading them may take: gaps in the sequence cost some.
const REQUESTS: u32 = 200;
/// The durable consumer of the workers.
const CONSUMER: (&str, &str) = (ORDERS, subject::CONSUMER);

/// The latest stats. Clones share them.
#[derive(Clone)]
pub(super) struct ClusterState {
    state: Arc<Mutex<State>>,
    /// The instance id of this gateway.
    id: Arc<str>,
    /// Whether the order system's streams are polled.
    orders: bool,
}

#[derive(Default)]
pub(super) struct State {
    /// The last poll, and its time.
    pub(super) census: JetStreamStats,
    pub(super) looked: Option<Instant>,
    /// The last known state of each stream.
    pub(super) streams: BTreeMap<&'static str, Observed>,
    pub(super) roster: Instances,
    /// The gateways, including this one.
    pub(super) gateways: Instances,
    pub(super) nodes: Nodes,
    /// Consecutive requests to gateways that this one did not receive itself, and the time of the last.
    deaf: (u32, Option<Instant>),
    /// Dead letters, the newest first.
    pub(super) letters: Vec<DeadLetter>,
    /// The number of dead letters and the last sequence when they were read.
    read: (u64, u64),
    /// When the console last requested data.
    watched: Option<Instant>,
}

/// The state of a stream, and when it was read.
pub(super) struct Observed {
    pub(super) stream: StreamState,
    pub(super) read: Instant,
    last: Ring<u64>,
}

impl State {
    /// Whether the last poll was complete and recent.
    pub(super) fn current(&self, now: Instant) -> bool {
        let fresh = |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) < STALE);
        self.census.whole && fresh(self.looked) && fresh(self.roster.looked())
    }

    /// Whether the last poll is recent.
    pub(super) fn fresh(&self, now: Instant) -> bool {
        self.looked.is_some_and(|looked| now.duration_since(looked) < STALE)
    }

    /// Why the last poll could not read a stream, if it could not.
    pub(super) fn unread(&self, name: &str) -> Option<StatsError> {
        self.census.unread.iter().find(|(of, _)| *of == name).map(|(_, why)| *why)
    }

    /// The streams that were read recently.
    pub(super) fn read(&self, now: Instant) -> impl Iterator<Item = &StreamState> {
        let fresh = move |known: &&Observed| now.duration_since(known.read) < STALE;
        self.streams.values().filter(fresh).map(|known| &known.stream)
    }

    /// Whether to send a discovery request to gateways.
    fn hears(&self, now: Instant) -> bool {
        let (deaf, last) = self.deaf;
        deaf < DEAF || last.is_none_or(|last| now.duration_since(last) >= AGAIN)
    }

    fn watched(&self) -> bool {
        self.watched.is_some_and(|watched| watched.elapsed() < WATCHED)
    }

    fn take(&mut self, census: JetStreamStats, now: Instant) {
        for stream in &census.streams {
            let known = self.streams.entry(stream.name).or_insert_with(|| Observed {
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

impl Observed {
    /// Messages per second in the last minute; none if it was not read twice.
    pub(super) fn rate(&self) -> Option<f64> {
        let (from, before) = self.last.oldest(self.read)?;
        let seconds = self.read.duration_since(*from).as_secs_f64();
        (seconds > 0.5).then(|| self.stream.last.saturating_sub(*before) as f64 / seconds)
    }
}

impl ClusterState {
    /// The stats of the gateway with this id.
    pub(super) fn new(id: &str, orders: bool) -> ClusterState {
        debug_assert!(GATEWAYS.ends_with(SERVICE));
        ClusterState { state: Arc::default(), id: id.into(), orders }
    }

    /// Reads the latest stats for the console, and notes that it is open.
    pub(super) fn watch<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        let mut state = self.state();
        state.watched = Some(Instant::now());
        read(&state)
    }

    /// Polls until it is dropped.
    pub(super) async fn run(self, link: Connection) {
        let letters = DeadLetters::new(&link);
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

    async fn look(&self, link: &Connection, letters: &DeadLetters) {
        let hears = self.state().hears(Instant::now());
        let gateways = async {
            match hears {
                true => discovery::instances(link, GATEWAYS, discovery::WAIT).await,
                false => None,
            }
        };
        let streams = order_streams::counted();
        let (streams, consumers) =
            if self.orders { (&streams[..], &[CONSUMER][..]) } else { (&[][..], &[][..]) };
        let (census, found, gateways) = tokio::join!(
            JetStreamStats::take(link, streams, consumers, Instant::now() + LOOK),
            discovery::instances(link, "$SRV.STATS", discovery::WAIT),
            gateways
        );
        if !link.connected() {
            self.state().census.whole = false;
            return;
        }
        let last = census.stream(DEAD_LETTERS).map(|stream| (stream.messages, stream.last));
        // If JetStream answers, no answer means that there are no services.
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

    /// Records the gateways that answered. If this one is not among them, the result is not reliable.
    fn meet(&self, state: &mut State, found: Vec<Instance>, now: Instant) {
        let heard = found.iter().any(|gateway| *gateway.id == *self.id);
        state.deaf = (if heard { 0 } else { state.deaf.0.saturating_add(1) }, Some(now));
        if heard {
            state.gateways.take(found, now);
        }
    }

    /// Polls the servers' monitoring ports until it is dropped.
    pub(super) async fn visit(self, monitor: nats::Monitor) {
        loop {
            let found = nats::nodes::look(&monitor).await;
            let watched = {
                let mut state = self.state();
                state.nodes.take(found, Instant::now());
                state.watched()
            };
            sleep(if watched { WATCHED_VISITS } else { VISITS }).await;
        }
    }

    /// Logs instances whose clocks are off, once for as long as it lasts.
    fn compare(&self, found: &[Instance]) {
        let off = |skew: i64| skew.unsigned_abs() > SKEW.as_millis() as u64;
        let state = self.state();
        for Instance { id, name, clock_skew_ms, .. } in found {
            let before = state.roster.entries().find(|other| other.instance.id == *id);
            let before = before.and_then(|other| other.instance.clock_skew_ms);
            match clock_skew_ms {
                Some(ahead_ms) if off(*ahead_ms) && !before.is_some_and(off) => {
                    tracing::warn!(target: "clock", id, name, ahead_ms, "the clock of a service instance is off");
                }
                _ => {}
            }
        }
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Source for ClusterState {
    fn collect(&self, page: &mut Exposition) {
        let state = self.state();
        state.census.collect(page);
        state.nodes.collect(page);
        let here = state.roster.entries().filter(|entry| entry.presence() != Presence::Gone);
        for Instance { id, name, clock_skew_ms, .. } in here.map(|entry| &entry.instance) {
            let help = "How far the clock of a service instance is ahead of JetStream's, as the instance reports it.";
            if let Some(skew) = clock_skew_ms {
                let labels = [("service", name.as_str()), ("instance_id", id)];
                page.gauge("gateway_service_clock_skew_seconds", help, &labels, *skew as f64 / 1e3);
            }
        }
    }
}
