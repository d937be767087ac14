//! How long ago it was last certain that what is in force is what was meant, and whether that is too long ago. Must
//! never know what it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use telemetry::{Page, Source};
use tokio::sync::watch;
use tokio::time::Instant;

/// Of one source. Clones share it.
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

/// Something that is kept up to date, and is not to be used when that does not succeed for too long.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    latest: watch::Receiver<Arc<T>>,
    fresh: Fresh,
}

/// It is too old to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

/// Everything whose freshness is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(pub(crate) Vec<Fresh>);

impl Fresh {
    /// Something that is certain now, and too old after the limit.
    pub(crate) fn new(source: &'static str, limit: Option<Duration>) -> Fresh {
        let (base, confirmed) = (Instant::now(), AtomicU64::new(0));
        Fresh(Arc::new(State { source, limit, base, confirmed, faults: AtomicUsize::new(0) }))
    }

    /// It was just seen to be what was meant.
    pub(crate) fn confirm(&self) {
        let now = u64::try_from(self.0.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.confirmed.store(now, Ordering::Relaxed);
    }

    /// So many lines of it were left out.
    pub(crate) fn faulty(&self, lines: usize) {
        self.0.faults.store(lines, Ordering::Relaxed);
    }

    /// How many lines were left out.
    pub(crate) fn faults(&self) -> usize {
        self.0.faults.load(Ordering::Relaxed)
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Duration {
        let confirmed = Duration::from_millis(self.0.confirmed.load(Ordering::Relaxed));
        self.0.base.elapsed().saturating_sub(confirmed)
    }

    /// How long it may be used if it is not confirmed again.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.0.limit.map(|limit| limit.saturating_sub(self.age()))
    }

    /// Whether that is too long ago.
    pub(crate) fn over(&self) -> bool {
        self.0.limit.is_some_and(|limit| self.age() > limit)
    }
}

impl<T> Kept<T> {
    pub(crate) fn new(latest: watch::Receiver<Arc<T>>, fresh: Fresh) -> Kept<T> {
        Kept { latest, fresh }
    }

    /// How fresh it is.
    pub(crate) fn fresh(&self) -> &Fresh {
        &self.fresh
    }

    /// Those that come.
    pub(crate) fn latest(&self) -> watch::Receiver<Arc<T>> {
        self.latest.clone()
    }

    /// The latest.
    pub(crate) fn get(&self) -> Result<Arc<T>, Stale> {
        if self.fresh.over() { Err(Stale) } else { Ok(self.latest.borrow().clone()) }
    }

    /// Whether this is the latest, and good.
    pub(crate) fn is(&self, other: &Arc<T>) -> bool {
        !self.fresh.over() && Arc::ptr_eq(&self.latest.borrow(), other)
    }
}

impl Source for Sources {
    fn tell(&self, page: &mut Page) {
        if self.0.is_empty() {
            // So that whoever asks for it finds that there is nothing that could grow old.
            Sources(vec![Fresh::new("none", None)]).tell(page);
        }
        for Fresh(state) in &self.0 {
            let (fresh, labels) = (Fresh(state.clone()), [("source", state.source)]);
            let help = "Since it was last certain that what says who may call is up to date.";
            page.level("gateway_auth_age_seconds", help, &labels, fresh.age().as_secs_f64());
            let help = "The age at which it lets nobody in any more (GW_AUTH_MAX_STALE); 0: none.";
            let limit = state.limit.unwrap_or_default().as_secs_f64();
            page.level("gateway_auth_age_limit_seconds", help, &labels, limit);
            let help = "Lines that make no sense, and let nobody in.";
            page.level("gateway_auth_faulty_lines", help, &labels, fresh.faults() as f64);
        }
    }
}
