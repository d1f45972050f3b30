//! Distributions, counted where the work is done: like the counters, each has one writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a histogram's numbers mean, and where its buckets end.
#[derive(Debug)]
pub struct Scale {
    /// The upper bound of each bucket but the last, which has none; a value that is equal to it
    /// still belongs to the bucket.
    pub bounds: &'static [u64],
    /// How many of what is counted make one of the base unit that is shown.
    pub per_unit: f64,
}

/// Nanoseconds, shown as seconds: from what a hit costs to what a client gives up on.
pub static DURATION: Scale = Scale {
    bounds: &[
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
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
    ],
    per_unit: 1e9,
};

/// Seconds since something was used, from one to three months.
pub static AGE: Scale = Scale {
    bounds: &[1, 5, 15, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 259_200, 604_800, 2_592_000, 7_776_000],
    per_unit: 1.0,
};

/// How many of something came together.
pub static BATCH: Scale =
    Scale { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096], per_unit: 1.0 };

impl Scale {
    /// The bounds in the base unit.
    pub fn shown(&self) -> impl Iterator<Item = f64> + use<> {
        let per_unit = self.per_unit;
        self.bounds.iter().map(move |&bound| bound as f64 / per_unit)
    }
}

/// A distribution of values. One thread writes, or the thread that holds a lock.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    /// One more than there are bounds.
    buckets: Box<[Bucket]>,
}

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    pub fn new(scale: &'static Scale) -> Self {
        Self { scale, buckets: (0..=scale.bounds.len()).map(|_| Bucket::default()).collect() }
    }

    /// Counts a value. Only the owning thread may call this, as with
    /// [`Counters::add`](crate::stats::Counters::add).
    pub fn record(&self, value: u64) {
        let bucket = &self.buckets[self.scale.bounds.partition_point(|&bound| bound < value)];
        for (cell, by) in [(&bucket.count, 1), (&bucket.sum, value)] {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub fn read(&self) -> Distribution {
        let read = |bucket: &Bucket| Tally {
            count: bucket.count.load(Ordering::Relaxed),
            sum: bucket.sum.load(Ordering::Relaxed),
        };
        Distribution { scale: self.scale, tallies: self.buckets.iter().map(read).collect() }
    }
}

/// A histogram at one moment, or the sum of several of one scale.
#[derive(Debug, Clone)]
pub struct Distribution {
    scale: &'static Scale,
    tallies: Box<[Tally]>,
}

/// What fell into one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many values.
    pub count: u64,
    /// What they add up to.
    pub sum: u64,
}

impl Distribution {
    /// An empty one.
    pub fn new(scale: &'static Scale) -> Self {
        Self { scale, tallies: vec![Tally::default(); scale.bounds.len() + 1].into() }
    }

    /// What its numbers mean.
    pub fn scale(&self) -> &'static Scale {
        self.scale
    }

    /// The buckets, in the order of their bounds; the last one has none.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// Adds another one of the same scale.
    pub fn add(&mut self, other: &Self) {
        for (tally, more) in self.tallies.iter_mut().zip(&other.tallies) {
            tally.count += more.count;
            tally.sum = tally.sum.wrapping_add(more.sum);
        }
    }

    /// What has come since an earlier moment of the same distribution.
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = |(now, then): (&Tally, &Tally)| Tally {
            count: now.count.saturating_sub(then.count),
            sum: now.sum.wrapping_sub(then.sum),
        };
        Self { scale: self.scale, tallies: self.tallies.iter().zip(&earlier.tallies).map(grown).collect() }
    }

    /// The value that the given part of all is below, in the base unit: interpolated within a bucket,
    /// as Prometheus' `histogram_quantile` does. `None` when nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.tallies.iter().map(|tally| tally.count).sum();
        let wanted = part * all as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (tally, upper) in self.tallies.iter().zip(self.scale.shown()) {
            let count = tally.count as f64;
            if tally.count > 0 && below + count >= wanted {
                return Some(lower + (upper - lower) * (wanted - below) / count);
            }
            (below, lower) = (below + count, upper);
        }
        // In the last bucket, which has no end.
        (all > 0).then_some(lower)
    }

    /// All values added up, in the base unit.
    pub fn sum(&self) -> f64 {
        self.tallies.iter().map(|tally| tally.sum as f64).sum::<f64>() / self.scale.per_unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_ends_at_or_above_them() {
        let histogram = Histogram::new(&BATCH);
        [0, 1, 2, 3, 4, 4_096, 4_097, 1 << 40].into_iter().for_each(|value| histogram.record(value));
        let read = histogram.read();
        let counts: Vec<_> = read.tallies().iter().map(|tally| tally.count).collect();
        assert_eq!(counts, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(read.tallies()[2].sum, 7);

        let mut twice = read.clone();
        twice.add(&read);
        assert_eq!(twice.tallies()[0].count, 4);
        assert_eq!(twice.sum(), 2.0 * read.sum());
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let histogram = Histogram::new(&DURATION);
        histogram.record(1_500_000);
        assert_eq!(histogram.read().sum(), 0.0015);
        let shown: Vec<_> = DURATION.shown().take(3).map(|bound| bound.to_string()).collect();
        assert_eq!(shown, ["0.000001", "0.0000025", "0.000005"]);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let quantile = |part, counts: &[u64]| {
            let mut distribution = Distribution::new(&BATCH);
            for (tally, &count) in distribution.tallies.iter_mut().zip(counts) {
                tally.count = count;
            }
            distribution.quantile(part)
        };
        assert_eq!(quantile(0.5, &[0, 10]), Some(1.5));
        assert_eq!(quantile(0.75, &[2, 0, 2]), Some(3.0));
        assert_eq!(quantile(0.5, &[]), None);
        let mut beyond = [0; 14];
        beyond[13] = 1;
        assert_eq!(quantile(0.99, &beyond), Some(4_096.0));
    }

    #[test]
    fn what_has_come_since_is_told() {
        let histogram = Histogram::new(&BATCH);
        histogram.record(3);
        let then = histogram.read();
        [3, 8].into_iter().for_each(|value| histogram.record(value));
        let grown = histogram.read().since(&then);
        assert_eq!((grown.tallies()[2], grown.sum()), (Tally { count: 1, sum: 3 }, 11.0));
    }

    #[test]
    fn bounds_grow() {
        for scale in [&DURATION, &AGE, &BATCH] {
            assert!(scale.bounds.is_sorted_by(|one, next| one < next));
        }
    }
}
