//! Figures that are kept where things happen: counts, and spreads of times and sizes. One per thread costs next to
//! nothing; the page adds them up. Must never know what they are called.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of times, in nanoseconds: from half a millisecond to 20 s.
pub const TIMES: &[u64] = &[
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

/// Upper bounds of what is done together.
pub const BATCHES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How values spread over buckets.
#[derive(Debug)]
pub struct Spread {
    bounds: &'static [u64],
    /// What the page divides by: values are whole numbers here.
    unit: f64,
    /// One per bound, and one for what is beyond.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A spread as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Spreads {
    /// Upper bounds, in the page's unit.
    pub bounds: Vec<f64>,
    /// One per bound, and one for what is beyond.
    pub buckets: Vec<u64>,
    /// Of all values, in the page's unit.
    pub sum: f64,
}

impl Spread {
    /// Of times, on the page in seconds.
    pub fn times() -> Spread {
        Spread::new(TIMES, 1e9)
    }

    /// Of numbers of things done together.
    pub fn batches() -> Spread {
        Spread::new(BATCHES, 1.0)
    }

    fn new(bounds: &'static [u64], unit: f64) -> Spread {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Spread { bounds, unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Takes a time.
    pub fn took(&self, time: Duration) {
        self.take(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes a value, in the unit of the bounds.
    pub fn take(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn look(&self) -> Spreads {
        Spreads {
            bounds: self.bounds.iter().map(|bound| *bound as f64 / self.unit).collect(),
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / self.unit,
        }
    }
}

impl Spreads {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds another of the same bounds.
    pub fn add(&mut self, other: &Spreads) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.sum += other.sum;
    }

    /// The values that came since an earlier look at the same.
    pub fn since(&self, earlier: &Spreads) -> Spreads {
        let buckets = self.buckets.iter().enumerate();
        let grown = |(place, now): (usize, &u64)| {
            now.saturating_sub(earlier.buckets.get(place).copied().unwrap_or(0))
        };
        Spreads {
            bounds: self.bounds.clone(),
            buckets: buckets.map(grown).collect(),
            sum: (self.sum - earlier.sum).max(0.0),
        }
    }

    /// The value that this share of values is at or below, as far as the buckets tell; none without values.
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
        let spread = Spread::batches();
        [1, 2, 3, 600].into_iter().for_each(|value| spread.take(value));
        let looked = spread.look();
        assert_eq!((&looked.buckets[..3], looked.buckets[10]), (&[1, 1, 1][..], 1));
        assert_eq!((looked.count(), looked.sum), (4, 606.0));
    }

    #[test]
    fn quantiles_lie_within_their_bucket_and_nothing_has_none() {
        let spread = Spread::times();
        assert_eq!(spread.look().quantile(0.5), None);
        (0..99).for_each(|_| spread.took(Duration::from_millis(2)));
        spread.took(Duration::from_secs(60));
        let looked = spread.look();
        let median = looked.quantile(0.5).unwrap();
        assert!((0.001..=0.0025).contains(&median), "{median}");
        assert_eq!(looked.quantile(1.0), Some(20.0));
    }

    #[test]
    fn what_came_since_an_earlier_look_has_quantiles_of_its_own() {
        let spread = Spread::times();
        spread.took(Duration::from_secs(8));
        let before = spread.look();
        spread.took(Duration::from_millis(2));
        let since = spread.look().since(&before);
        assert_eq!(since.count(), 1);
        assert!(since.quantile(0.99).unwrap() <= 0.0025 && spread.look().quantile(0.99).unwrap() > 5.0);
    }

    #[test]
    fn spreads_of_threads_add_up() {
        let (one, other) = (Spread::batches(), Spread::batches());
        one.take(1);
        other.take(5);
        let mut sum = one.look();
        sum.add(&other.look());
        assert_eq!((sum.count(), sum.sum), (2, 6.0));
    }
}
