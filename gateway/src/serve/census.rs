//! What is known of everything around the gateway: streams and consumers all the time, services and dead letters while
//! somebody looks at the console. Must never be needed for an answer to a call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::subject;
use link::clock::SKEW;
use link::streams::{ALL, DEAD_LETTERS, ORDERS};
use link::{Census, Letter, Letters, Link};
use telemetry::{Page, Source};
use tokio::time::{Instant, sleep};

use crate::bridge::survey::{self, Instance};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two looks while somebody looks at the console.
const WATCHED_PAUSE: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at the services, also while nobody looks: their clocks.
const SERVICES: Duration = Duration::from_secs(30);
/// Whoever looks at the console asks again within this.
const WATCHED: Duration = Duration::from_secs(10);
/// Dead letters that are shown.
const LETTERS: usize = 20;
/// Requests that they may cost: gaps between them take some.
const REQUESTS: u32 = 200;
/// The durable consumer of the workers.
const CONSUMER: (&str, &str) = (ORDERS, subject::CONSUMER);

/// What was found last. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Around(Arc<Mutex<State>>);

#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) census: Census,
    pub(super) instances: Vec<Instance>,
    /// The newest first.
    pub(super) letters: Vec<Letter>,
    /// How many dead letters there were, and the last of all, when they were read.
    read: (u64, u64),
    /// When the services were asked.
    pub(super) seen: Option<Instant>,
    /// When somebody looked at the console.
    watched: Option<Instant>,
}

impl State {
    /// Whether all of it was read, and not long ago.
    pub(super) fn current(&self) -> bool {
        self.census.whole && self.seen.is_some_and(|seen| seen.elapsed() < PAUSE)
    }

    fn watched(&self) -> bool {
        self.watched.is_some_and(|watched| watched.elapsed() < WATCHED)
    }
}

impl Around {
    /// What was found, for somebody who looks at the console.
    pub(super) fn watch(&self) -> State {
        let mut state = self.state();
        state.watched = Some(Instant::now());
        state.clone()
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
        let census = Census::take(link, &ALL, &[CONSUMER], Instant::now() + LOOK).await;
        let last = census.stream(DEAD_LETTERS).map(|stream| (stream.messages, stream.last));
        let (watched, known) = {
            let mut state = self.state();
            state.census = census;
            (state.watched(), state.read)
        };
        if !watched && !self.due() {
            return;
        }
        let instances = survey::instances(link).await;
        self.compare(&instances);
        {
            let mut state = self.state();
            (state.instances, state.seen) = (instances, Some(Instant::now()));
        }
        if let Some(last) = last
            && watched
            && last != known
            && let Ok(found) = letters.newest(LETTERS, REQUESTS, LOOK).await
        {
            let mut state = self.state();
            (state.letters, state.read) = (found, last);
        }
    }

    fn due(&self) -> bool {
        self.state().seen.is_none_or(|seen| seen.elapsed() >= SERVICES)
    }

    /// Says which instances' clocks are off, each once as long as that lasts.
    fn compare(&self, found: &[Instance]) {
        let off = |skew: i64| skew.unsigned_abs() > SKEW.as_millis() as u64;
        let known = self.state().instances.clone();
        for Instance { id, name, clock_skew_ms, .. } in found {
            let before = known.iter().find(|other| other.id == *id).and_then(|other| other.clock_skew_ms);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Around {
    fn tell(&self, page: &mut Page) {
        let state = self.state();
        state.census.tell(page);
        for Instance { id, name, clock_skew_ms, .. } in &state.instances {
            let help = "By how much the clock of a service's instance is ahead of JetStream's, as it tells.";
            if let Some(skew) = clock_skew_ms {
                let labels = [("service", name.as_str()), ("instance_id", id)];
                page.level("gateway_service_clock_skew_seconds", help, &labels, *skew as f64 / 1e3);
            }
        }
    }
}
