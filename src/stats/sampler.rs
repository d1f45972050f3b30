//! Chooses which operations are timed: each of them while they are few, about a thousand a second
//! while they are many, so that what timing costs is bounded.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far apart the chosen ones should be.
const APART: Duration = Duration::from_millis(1);

/// One of so many is chosen at least.
const EVERY_MAX: u32 = 1 << 12;

/// Chooses some of many. One thread asks, or whoever has a lock.
///
/// One of every so many, not whatever comes when a millisecond is over: that would choose slow
/// operations more often than there are, since most milliseconds end during one.
#[derive(Debug)]
pub struct Sampler {
    /// Operations up to the next chosen one, it included.
    left: AtomicU32,
    /// One of so many is chosen; 0 when none is.
    every: AtomicU32,
    began: Instant,
    /// When the last one was chosen, in nanoseconds since it began.
    chosen: AtomicU64,
}

impl Default for Sampler {
    /// Chooses.
    fn default() -> Self {
        Self::new(true)
    }
}

impl Sampler {
    /// One that chooses, or one that never does.
    pub fn new(chooses: bool) -> Self {
        let (every, left) = if chooses { (1, 1) } else { (0, u32::MAX) };
        Self {
            left: AtomicU32::new(left),
            every: AtomicU32::new(every),
            began: Instant::now(),
            chosen: AtomicU64::new(0),
        }
    }

    /// Whether to time this operation; when so, [`Sampler::chose`] is to be told. Costs a load and
    /// a store.
    #[inline]
    pub fn choose(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left > 1 {
            self.left.store(left - 1, Ordering::Relaxed);
        }
        left == 1
    }

    /// An operation was chosen at this moment.
    pub fn chose(&self, now: Instant) {
        let every = self.every.load(Ordering::Relaxed);
        let now = now.saturating_duration_since(self.began).as_nanos() as u64;
        let apart = Duration::from_nanos(now.saturating_sub(self.chosen.swap(now, Ordering::Relaxed)));
        let every = match () {
            () if every == 0 => return,
            () if apart < APART => (every * 2).min(EVERY_MAX),
            () if apart > APART * 2 => (every / 2).max(1),
            () => every,
        };
        self.every.store(every, Ordering::Relaxed);
        self.left.store(every, Ordering::Relaxed);
    }

    /// A second is over: the next operation is chosen, though there were too few of them.
    pub fn wake(&self) {
        if self.every.load(Ordering::Relaxed) != 0 {
            self.left.store(1, Ordering::Relaxed);
        }
    }

    /// When the last one was chosen.
    pub fn last_chosen(&self) -> Instant {
        self.began + Duration::from_nanos(self.chosen.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many operations, so far apart, are chosen.
    fn chosen(sampler: &Sampler, from: Instant, operations: u32, apart: Duration) -> u32 {
        (1..=operations)
            .filter(|&number| {
                let chooses = sampler.choose();
                if chooses {
                    sampler.chose(from + apart * number);
                }
                chooses
            })
            .count() as u32
    }

    #[test]
    fn few_are_all_chosen_and_of_many_about_a_thousand_a_second() {
        let sampler = Sampler::default();
        let mut now = Instant::now();
        assert_eq!(chosen(&sampler, now, 100, Duration::from_millis(10)), 100);
        now += Duration::from_secs(1);
        let many = chosen(&sampler, now, 1_000_000, Duration::from_micros(1));
        assert!((400..1_200).contains(&many), "{many}");
        now += Duration::from_secs(1);
        sampler.wake();
        let few = chosen(&sampler, now, 1_500, Duration::from_millis(10));
        assert!(few > 400, "{few}: it becomes watchful again");
    }

    #[test]
    fn one_that_never_chooses_never_does() {
        let sampler = Sampler::new(false);
        sampler.wake();
        assert_eq!(chosen(&sampler, Instant::now(), 1_000, Duration::from_millis(1)), 0);
    }
}
