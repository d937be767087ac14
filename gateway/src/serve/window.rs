//! Sliding windows: how counters and histograms grew during the last minutes, from samples of the Prometheus metrics.
//! Time is an argument. Must not depend on what the metrics mean.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use telemetry::metrics::HistogramSnapshot;
use telemetry::{Exposition, Registry};
use tokio::time::{Instant, sleep};

/// The window of counters.
pub(super) const COUNTED: Duration = Duration::from_secs(60);
/// The window of quantiles, as in the dashboards' `rate(…[5m])`.
pub(super) const TIMED: Duration = Duration::from_secs(5 * 60);
/// Interval between two samples of counters, and of histograms.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_TIMED: Duration = Duration::from_secs(5);
/// No rates are computed over less than this.
const LEAST: Duration = Duration::from_millis(900);

/// The counters and histograms that are sampled, by their Prometheus names.
pub(super) const CALLS: &str = "gateway_calls_total";
const COUNTS: [&str; 7] = [
    CALLS,
    "gateway_route_attempts_total",
    "gateway_route_retries_total",
    "gateway_route_no_responders_total",
    "gateway_route_timeouts_total",
    "gateway_route_shed_total",
    "nats_reconnects_total",
];
const TIMES: [&str; 2] = ["gateway_call_duration_seconds", "gateway_route_duration_seconds"];

/// The name of a metric and the values of its labels.
type Series = (&'static str, Vec<String>);

/// The samples. Clones share them.
#[derive(Clone)]
pub(super) struct Windows(Arc<Mutex<Rings>>);

struct Rings {
    counts: Ring<BTreeMap<Series, f64>>,
    times: Ring<BTreeMap<Series, HistogramSnapshot>>,
}

/// Samples of the last `span`, the oldest first, at most one per `every`.
pub(super) struct Ring<T> {
    every: Duration,
    span: Duration,
    samples: VecDeque<(Instant, T)>,
}

/// How much metrics grew during the windows.
pub(super) struct View {
    counts: BTreeMap<Series, f64>,
    times: BTreeMap<Series, HistogramSnapshot>,
    /// The actual lengths of the windows: shorter after a start.
    pub(super) counted: Duration,
    pub(super) timed: Duration,
}

impl<T> Ring<T> {
    pub(super) fn new(every: Duration, span: Duration) -> Ring<T> {
        Ring { every, span, samples: VecDeque::new() }
    }

    /// Takes a sample if one is due.
    pub(super) fn take(&mut self, now: Instant, sample: impl FnOnce() -> T) {
        self.forget(now);
        // A sample that is slightly early is taken now, not one interval later.
        let due = |(last, _): &(Instant, T)| now.duration_since(*last) >= self.every * 9 / 10;
        if self.samples.back().is_none_or(due) {
            self.samples.push_back((now, sample()));
        }
    }

    /// The oldest sample within the window.
    pub(super) fn oldest(&self, now: Instant) -> Option<&(Instant, T)> {
        self.samples.iter().find(|(at, _)| now.duration_since(*at) <= self.span)
    }

    fn forget(&mut self, now: Instant) {
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > self.span) {
            self.samples.pop_front();
        }
    }
}

impl Windows {
    pub(super) fn new() -> Windows {
        let (counts, times) = (Ring::new(EVERY, COUNTED), Ring::new(EVERY_TIMED, TIMED));
        Windows(Arc::new(Mutex::new(Rings { counts, times })))
    }

    /// Takes samples until it is dropped.
    pub(super) async fn run(self, registry: Arc<Registry>) {
        loop {
            self.sample(&registry.page(), Instant::now());
            sleep(EVERY).await;
        }
    }

    fn sample(&self, page: &Exposition, now: Instant) {
        let mut rings = self.rings();
        rings.counts.take(now, || counts(page));
        rings.times.take(now, || times(page));
    }

    /// How much these metrics grew during the windows.
    pub(super) fn view(&self, page: &Exposition, now: Instant) -> View {
        let (mut counts, mut times) = (counts(page), times(page));
        let rings = self.rings();
        let length = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.duration_since(at));
        let (counts_from, times_from) = (rings.counts.oldest(now), rings.times.oldest(now));
        if let Some((_, before)) = counts_from {
            // A series that is new started at 0.
            counts.iter_mut().for_each(|(key, count)| *count = grown(*count, before.get(key)));
        }
        if let Some((_, before)) = times_from {
            for (key, spread) in &mut times {
                if let Some(before) = before.get(key) {
                    *spread = spread.since(before);
                }
            }
        }
        View {
            counts,
            times,
            counted: length(counts_from.map(|(at, _)| *at)),
            timed: length(times_from.map(|(at, _)| *at)),
        }
    }

    /// The rate of a counter between each two consecutive samples: how long ago the interval ended, and the rate of the
    /// series that each pick selects by labels.
    pub(super) fn history<const N: usize>(
        &self,
        name: &str,
        now: Instant,
        picks: [fn(&[String]) -> bool; N],
    ) -> Vec<(Duration, [f64; N])> {
        let rings = self.rings();
        let samples = rings.counts.samples.iter();
        let step = |((before, old), (at, new)): (&(Instant, BTreeMap<Series, f64>), &(Instant, _))| {
            let new: &BTreeMap<Series, f64> = new;
            let seconds = at.duration_since(*before).as_secs_f64().max(0.001);
            let mut sums = [0.0; N];
            for (key, count) in new.iter().filter(|((of, _), _)| *of == name) {
                for (sum, _) in sums.iter_mut().zip(&picks).filter(|(_, pick)| pick(&key.1)) {
                    *sum += grown(*count, old.get(key)) / seconds;
                }
            }
            (now.duration_since(*at), sums)
        };
        samples.clone().zip(samples.skip(1)).map(step).collect()
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock()
    }
}

impl View {
    /// The growth of each series of a counter, with its labels.
    pub(super) fn counts(&self, name: &str) -> impl Iterator<Item = (&[String], f64)> {
        self.counts
            .iter()
            .filter(move |((of, _), _)| *of == name)
            .map(|((_, labels), n)| (labels.as_slice(), *n))
    }

    /// The growth of a counter, summed over the series with this first label.
    pub(super) fn count(&self, name: &str, label: &str) -> f64 {
        self.counts(name)
            .filter(|(labels, _)| labels.first().is_some_and(|first| first == label))
            .map(|of| of.1)
            .sum()
    }

    /// The growth per second; none while the window is too short.
    pub(super) fn rate(&self, count: f64) -> Option<f64> {
        (self.counted >= LEAST).then(|| count / self.counted.as_secs_f64())
    }

    /// A quantile of the histogram with this label; none without observations.
    pub(super) fn quantile(&self, name: &'static str, label: &str, share: f64) -> Option<f64> {
        self.times.get(&(name, vec![label.to_owned()]))?.quantile(share)
    }
}

fn counts(page: &Exposition) -> BTreeMap<Series, f64> {
    let of =
        |name: &'static str| page.numbers(name).map(move |(labels, count)| (series(name, &labels), count));
    COUNTS.into_iter().flat_map(of).collect()
}

fn times(page: &Exposition) -> BTreeMap<Series, HistogramSnapshot> {
    let of = |name: &'static str| {
        page.histograms(name).map(move |(labels, spread)| (series(name, &labels), spread.clone()))
    };
    TIMES.into_iter().flat_map(of).collect()
}

fn series(name: &'static str, labels: &[&str]) -> Series {
    (name, labels.iter().map(|label| (*label).to_owned()).collect())
}

fn grown(now: f64, before: Option<&f64>) -> f64 {
    (now - before.copied().unwrap_or(0.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use telemetry::metrics::Histogram;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CREATE: &str = "CreateOrder";

    /// A gateway with calls as in the test, sampled each second.
    struct Fixture {
        windows: Windows,
        now: Instant,
        calls: u64,
        failed: u64,
        times: Histogram,
    }

    impl Fixture {
        fn new() -> Fixture {
            let fixture = Fixture {
                windows: Windows::new(),
                now: Instant::now(),
                calls: 0,
                failed: 0,
                times: Histogram::times(),
            };
            fixture.windows.sample(&fixture.page(), fixture.now);
            fixture
        }

        fn page(&self) -> Exposition {
            let mut page = Exposition::default();
            for (code, reason, count) in
                [("OK", "", self.calls), ("UNAVAILABLE", "NO_RESPONDERS", self.failed)]
            {
                page.counter(CALLS, "", &[("method", CREATE), ("code", code), ("reason", reason)], count);
            }
            page.histogram(TIMES[0], "", &[("method", CREATE)], &self.times);
            page
        }

        /// So many seconds with so many calls each, of this duration.
        fn pass(&mut self, seconds: u32, calls: u64, failed: u64, took: Duration) {
            for _ in 0..seconds {
                (self.calls, self.failed) = (self.calls + calls, self.failed + failed);
                (0..calls).for_each(|_| self.times.observe_time(took));
                self.now += SECOND;
                self.windows.sample(&self.page(), self.now);
            }
        }

        fn view(&self) -> View {
            self.windows.view(&self.page(), self.now)
        }

        fn p99(&self) -> Option<f64> {
            self.view().quantile(TIMES[0], CREATE, 0.99)
        }
    }

    #[test]
    fn a_quantile_falls_again_after_a_slow_minute() {
        let (mut fixture, fast) = (Fixture::new(), Duration::from_millis(2));
        fixture.pass(60, 10, 0, fast);
        assert!(fixture.p99().unwrap() < 0.01);
        fixture.pass(60, 10, 0, 3 * SECOND);
        assert!(fixture.p99().unwrap() > 2.0);
        fixture.pass(TIMED.as_secs() as u32, 10, 0, fast);
        assert!(fixture.p99().unwrap() < 0.01, "{:?}", fixture.p99());
        fixture.pass(TIMED.as_secs() as u32 + 5, 0, 0, fast);
        assert_eq!(fixture.p99(), None, "nothing is known of calls that there were not");
    }

    #[test]
    fn failures_of_the_last_minute_are_of_the_last_minute() {
        let mut fixture = Fixture::new();
        let failed = |fixture: &Fixture| {
            let view = fixture.view();
            view.counts(CALLS).filter(|(labels, _)| labels[1] == "UNAVAILABLE").map(|of| of.1).sum::<f64>()
        };
        fixture.pass(1, 0, 7, SECOND);
        fixture.pass(58, 1, 0, SECOND);
        assert_eq!(failed(&fixture), 7.0);
        fixture.pass(2, 1, 0, SECOND);
        assert_eq!(failed(&fixture), 0.0);
        assert_eq!(fixture.view().count(CALLS, CREATE), 60.0);
        assert_eq!(fixture.view().counted, COUNTED);
    }

    #[test]
    fn a_rate_is_of_as_long_as_there_are_samples_and_of_none_there_is_none() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.view().rate(0.0), None);
        fixture.pass(10, 3, 0, SECOND);
        let view = fixture.view();
        assert_eq!((view.counted, view.rate(view.count(CALLS, CREATE))), (10 * SECOND, Some(3.0)));
    }

    #[test]
    fn a_method_that_is_called_for_the_first_time_counts_from_nothing() {
        let windows = Windows::new();
        let start = Instant::now();
        windows.sample(&Exposition::default(), start);
        let mut fixture = Fixture { windows, now: start, calls: 0, failed: 0, times: Histogram::times() };
        fixture.pass(4, 1, 1, SECOND);
        assert_eq!(fixture.view().count(CALLS, CREATE), 8.0);
    }

    #[test]
    fn the_history_is_there_for_whoever_comes_late_and_never_longer_than_a_minute() {
        let mut fixture = Fixture::new();
        fixture.pass(100, 5, 2, SECOND);
        let history = fixture.windows.history(CALLS, fixture.now, [|_| true, |labels| labels[1] != "OK"]);
        assert_eq!(history.len(), 60);
        assert!(history.iter().all(|(_, sums)| *sums == [7.0, 2.0]), "{history:?}");
        assert_eq!((history[0].0, history[59].0), (59 * SECOND, Duration::ZERO));
    }

    #[test]
    fn samples_that_come_too_often_are_not_kept() {
        let (mut ring, start) = (Ring::new(5 * SECOND, 60 * SECOND), Instant::now());
        for tick in 0..1_000 {
            ring.take(start + tick * SECOND / 4, || tick);
        }
        assert!(ring.samples.len() <= 13, "{}", ring.samples.len());
    }
}
