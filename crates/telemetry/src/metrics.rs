//! Metric values, kept where the events happen: counters, and histograms of times and sizes. One per thread costs
//! almost nothing; the registry adds them up. Must not depend on their names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of time buckets, in nanoseconds: 0.5 ms to 20 s.
const TIMES: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
];

/// Upper bounds of batch-size buckets.
const BATCHES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Divisor for exposition: recorded values are integers.
    unit: f64,
    /// One bucket per bound, and one for larger values.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A snapshot of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bounds, in the exposition's unit.
    pub bounds: Vec<f64>,
    /// One bucket per bound, and one for larger values.
    pub buckets: Vec<u64>,
    /// The sum of all values, in the exposition's unit.
    pub sum: f64,
}

impl Histogram {
    /// A histogram of times, exposed in seconds.
    pub fn times() -> Histogram {
        Histogram::new(TIMES, 1e9)
    }

    /// A histogram of batch sizes.
    pub fn batches() -> Histogram {
        Histogram::new(BATCHES, 1.0)
    }

    fn new(bounds: &'static [u64], unit: f64) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Records a time.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Records a value, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: self.bounds.iter().map(|bound| *bound as f64 / self.unit).collect(),
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / self.unit,
        }
    }
}

impl HistogramSnapshot {
    /// The number of values.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds a snapshot with the same bounds.
    pub(crate) fn add(&mut self, other: &HistogramSnapshot) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.sum += other.sum;
    }

    /// The values recorded since an earlier snapshot of the same histogram.
    pub fn since(&self, earlier: &HistogramSnapshot) -> HistogramSnapshot {
        let buckets = self.buckets.iter().enumerate();
        let grown = |(place, now): (usize, &u64)| {
            now.saturating_sub(earlier.buckets.get(place).copied().unwrap_or(0))
        };
        HistogramSnapshot {
            bounds: self.bounds.clone(),
            buckets: buckets.map(grown).collect(),
            sum: (self.sum - earlier.sum).max(0.0),
        }
    }

    /// The quantile for this share (0 to 1), as precise as the buckets; `None` without values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (place, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            let upper = self.bounds.get(place).or(self.bounds.last()).copied()?;
            if place > 0 {
                lower = self.bounds.get(place - 1).copied()?;
            }
            if below + count >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it_and_what_is_beyond_counts() {
        let spread = Histogram::batches();
        [1, 2, 3, 600].into_iter().for_each(|value| spread.observe(value));
        let looked = spread.snapshot();
        assert_eq!((&looked.buckets[..3], looked.buckets[10]), (&[1, 1, 1][..], 1));
        assert_eq!((looked.count(), looked.sum), (4, 606.0));
    }

    #[test]
    fn quantiles_lie_within_their_bucket_and_nothing_has_none() {
        let spread = Histogram::times();
        assert_eq!(spread.snapshot().quantile(0.5), None);
        (0..99).for_each(|_| spread.observe_time(Duration::from_millis(2)));
        spread.observe_time(Duration::from_secs(60));
        let looked = spread.snapshot();
        let median = looked.quantile(0.5).unwrap();
        assert!((0.001..=0.0025).contains(&median), "{median}");
        assert_eq!(looked.quantile(1.0), Some(20.0));
    }

    #[test]
    fn what_came_since_an_earlier_look_has_quantiles_of_its_own() {
        let spread = Histogram::times();
        spread.observe_time(Duration::from_secs(8));
        let before = spread.snapshot();
        spread.observe_time(Duration::from_millis(2));
        let since = spread.snapshot().since(&before);
        assert_eq!(since.count(), 1);
        assert!(since.quantile(0.99).unwrap() <= 0.0025 && spread.snapshot().quantile(0.99).unwrap() > 5.0);
    }

    #[test]
    fn spreads_of_threads_add_up() {
        let (one, other) = (Histogram::batches(), Histogram::batches());
        one.observe(1);
        other.observe(5);
        let mut sum = one.snapshot();
        sum.add(&other.snapshot());
        assert_eq!((sum.count(), sum.sum), (2, 6.0));
    }
}
