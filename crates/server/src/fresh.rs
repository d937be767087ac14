//! Freshness of reloaded data: how long ago it was last confirmed to be current, and whether that is too long ago. Must
//! not depend on what the data is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use telemetry::{Exposition, Source};
use tokio::sync::watch;
use tokio::time::Instant;

/// The freshness of one source. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Fresh(Arc<State>);

#[derive(Debug)]
struct State {
    source: &'static str,
    limit: Option<Duration>,
    base: Instant,
    /// Milliseconds after the base.
    confirmed: AtomicU64,
    faults: AtomicUsize,
}

/// A value that is kept up to date, and that must not be used if updates fail for too long.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    latest: watch::Receiver<Arc<T>>,
    fresh: Fresh,
}

/// The value is too old to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

/// All sources whose freshness is exported as metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(pub(crate) Vec<Fresh>);

impl Fresh {
    /// A source that is current now, and too old after the limit.
    pub(crate) fn new(source: &'static str, limit: Option<Duration>) -> Fresh {
        let (base, confirmed) = (Instant::now(), AtomicU64::new(0));
        Fresh(Arc::new(State { source, limit, base, confirmed, faults: AtomicUsize::new(0) }))
    }

    /// The source was just confirmed to be current.
    pub(crate) fn confirm(&self) {
        let now = u64::try_from(self.0.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.confirmed.store(now, Ordering::Relaxed);
    }

    /// So many lines of the source were ignored.
    pub(crate) fn faulty(&self, lines: usize) {
        self.0.faults.store(lines, Ordering::Relaxed);
    }

    /// How many lines were ignored.
    pub(crate) fn faults(&self) -> usize {
        self.0.faults.load(Ordering::Relaxed)
    }

    /// How long ago it was last confirmed.
    pub(crate) fn age(&self) -> Duration {
        let confirmed = Duration::from_millis(self.0.confirmed.load(Ordering::Relaxed));
        self.0.base.elapsed().saturating_sub(confirmed)
    }

    /// How long it may still be used if it is not confirmed again.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.0.limit.map(|limit| limit.saturating_sub(self.age()))
    }

    /// Whether it is too old to be used.
    pub(crate) fn over(&self) -> bool {
        self.0.limit.is_some_and(|limit| self.age() > limit)
    }
}

impl<T> Kept<T> {
    pub(crate) fn new(latest: watch::Receiver<Arc<T>>, fresh: Fresh) -> Kept<T> {
        Kept { latest, fresh }
    }

    /// Its freshness.
    pub(crate) fn fresh(&self) -> &Fresh {
        &self.fresh
    }

    /// Updates of the value.
    pub(crate) fn latest(&self) -> watch::Receiver<Arc<T>> {
        self.latest.clone()
    }

    /// The latest value, if it is not stale.
    pub(crate) fn get(&self) -> Result<Arc<T>, Stale> {
        if self.fresh.over() { Err(Stale) } else { Ok(self.latest.borrow().clone()) }
    }

    /// Whether this is the latest value, and not stale.
    pub(crate) fn is(&self, other: &Arc<T>) -> bool {
        !self.fresh.over() && Arc::ptr_eq(&self.latest.borrow(), other)
    }
}

impl Source for Sources {
    fn collect(&self, page: &mut Exposition) {
        if self.0.is_empty() {
            // Export a series even without sources, so that alerts can tell "no source" from "no data".
            Sources(vec![Fresh::new("none", None)]).collect(page);
        }
        for Fresh(state) in &self.0 {
            let (fresh, labels) = (Fresh(state.clone()), [("source", state.source)]);
            let help = "Seconds since this credential source was last confirmed to be current.";
            page.gauge("gateway_auth_age_seconds", help, &labels, fresh.age().as_secs_f64());
            let help = "Age in seconds at which the source's credentials are rejected (GW_AUTH_MAX_STALE); 0: never.";
            let limit = state.limit.unwrap_or_default().as_secs_f64();
            page.gauge("gateway_auth_age_limit_seconds", help, &labels, limit);
            let help = "Invalid lines of this credential source, which are ignored.";
            page.gauge("gateway_auth_faulty_lines", help, &labels, fresh.faults() as f64);
        }
    }
}
