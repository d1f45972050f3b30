//! Chooses which operations are timed: each of them while they are few, about a thousand a second
//! while they are many, so that what timing costs is bounded.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// So many are to be chosen in a second.
const PER_SECOND: u64 = 1_000;

/// At least one of this many is chosen.
const EVERY_MAX: u32 = 1 << 14;

/// Chooses some of many. Only one thread asks, or the thread that holds a lock.
///
/// One of every so many, as many as came in the second before suggest. Not whatever comes when a
/// millisecond is over: that would choose slow operations more often than there are, since most
/// milliseconds end during one.
#[derive(Debug)]
pub struct Sampler {
    /// Operations up to the next chosen one, it included; 0 when none is.
    left: AtomicU32,
    /// One of this many is chosen; 0 when none is.
    every: AtomicU32,
    /// Operations of this second, as far as the last chosen one.
    seen: AtomicU64,
    /// Those of them that were chosen.
    chosen: AtomicU64,
    second: AtomicU32,
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
        let (every, left) = if chooses { (1, 1) } else { (0, 0) };
        Self {
            left: AtomicU32::new(left),
            every: AtomicU32::new(every),
            seen: AtomicU64::new(0),
            chosen: AtomicU64::new(0),
            second: AtomicU32::new(0),
        }
    }

    /// Whether to time this operation. Costs a load and a store.
    #[inline]
    pub fn choose(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        match left {
            0 => false,
            1 => {
                self.chose();
                true
            }
            _ => {
                self.left.store(left - 1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Says what second it is, by any clock. The first operation of each is chosen. Costs a load.
    #[inline]
    pub fn tick(&self, second: u32) {
        if self.second.load(Ordering::Relaxed) != second {
            self.begin(second);
        }
    }

    #[cold]
    fn begin(&self, second: u32) {
        let passed = second.abs_diff(self.second.swap(second, Ordering::Relaxed)).max(1);
        if self.every.load(Ordering::Relaxed) == 0 {
            return;
        }
        let rate = self.seen.swap(0, Ordering::Relaxed) / u64::from(passed);
        self.chosen.store(0, Ordering::Relaxed);
        let every = (rate / PER_SECOND).clamp(1, EVERY_MAX.into()) as u32;
        self.every.store(every, Ordering::Relaxed);
        self.left.store(1, Ordering::Relaxed);
    }

    #[cold]
    fn chose(&self) {
        let mut every = self.every.load(Ordering::Relaxed);
        let chosen = self.chosen.load(Ordering::Relaxed) + 1;
        self.chosen.store(chosen, Ordering::Relaxed);
        self.seen.store(self.seen.load(Ordering::Relaxed) + u64::from(every), Ordering::Relaxed);
        // Many more come than in the second before.
        if chosen.is_multiple_of(PER_SECOND) {
            every = (every * 2).min(EVERY_MAX);
            self.every.store(every, Ordering::Relaxed);
        }
        self.left.store(every, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many operations are chosen in each second, when this many come.
    fn chosen(sampler: &Sampler, seconds: std::ops::Range<u32>, operations: u32) -> Vec<usize> {
        let in_second = |second| {
            let one = |_: &u32| {
                sampler.tick(second);
                sampler.choose()
            };
            (0..operations).filter(one).count()
        };
        seconds.map(in_second).collect()
    }

    #[test]
    fn few_are_all_chosen_and_of_many_about_a_thousand_a_second() {
        let sampler = Sampler::default();
        assert_eq!(chosen(&sampler, 1..4, 900), [900; 3]);
        // A second of surprise costs little more.
        let many = chosen(&sampler, 4..7, 1_000_000);
        assert!(many[0] < 12_000, "{many:?}");
        assert!(many[1..].iter().all(|many| (900..1_100).contains(many)), "{many:?}");
        let few = chosen(&sampler, 7..9, 900);
        assert!(few[0] >= 1, "the first of a second is");
        assert!(few[1] > 400, "{few:?}: it is watchful again");
    }

    #[test]
    fn one_that_never_chooses_never_does() {
        assert_eq!(chosen(&Sampler::new(false), 1..3, 1_000), [0, 0]);
    }
}
