//! How often the same line may be written.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of one place in the source that are written one after another: more than the warnings of
/// an odd configuration, and still a screen.
const BURST: u32 = 20;

/// How long until there may be one more.
const REFILL: Duration = Duration::from_secs(5);

/// Recent lines of each place in the source. The number of places is fixed, so this is as bounded as the source is.
pub(super) struct Limits<P>(Mutex<HashMap<P, Spent>>);

struct Spent {
    /// When as many lines are allowed again as if none had been written.
    over_at: Instant,
    /// Not written since the last one that was.
    left_out: u64,
}

impl<P> Default for Limits<P> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<P: Hash + Eq> Limits<P> {
    /// Whether `place` may write a line now; if so, how many of its lines were left out before.
    pub fn admit(&self, place: P, now: Instant) -> Option<u64> {
        let mut places = self.0.lock();
        let spent = places.entry(place).or_insert(Spent { over_at: now, left_out: 0 });
        if spent.over_at > now + REFILL * (BURST - 1) {
            spent.left_out += 1;
            return None;
        }
        spent.over_at = spent.over_at.max(now) + REFILL;
        Some(std::mem::take(&mut spent.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a thousand lines at one moment are written.
    fn flood(limits: &Limits<&str>, place: &'static str, now: Instant) -> usize {
        (0..1_000).filter(|_| limits.admit(place, now).is_some()).count()
    }

    #[test]
    fn a_flood_is_cut_off_and_then_trickles() {
        let (limits, start) = (Limits::default(), Instant::now());
        assert_eq!(flood(&limits, "a", start), BURST as usize);
        assert_eq!(limits.admit("a", start + REFILL - Duration::from_nanos(1)), None);
        let left_out = 1_000 - u64::from(BURST) + 1;
        assert_eq!(limits.admit("a", start + REFILL), Some(left_out), "the next says how many were left out");
        assert_eq!(limits.admit("a", start + REFILL), None);
        assert_eq!(limits.admit("a", start + REFILL * 2), Some(1), "and is counted anew");
        assert_eq!(limits.admit("a", start + REFILL * 3), Some(0));
    }

    #[test]
    fn a_quiet_time_brings_the_burst_back() {
        let (limits, start) = (Limits::default(), Instant::now());
        flood(&limits, "a", start);
        assert_eq!(flood(&limits, "a", start + REFILL * 3), 3);
        assert_eq!(flood(&limits, "a", start + REFILL * 1_000), BURST as usize, "and no more than that");
    }

    #[test]
    fn a_flood_in_one_place_hides_nothing_from_another() {
        let (limits, start) = (Limits::default(), Instant::now());
        flood(&limits, "a", start);
        assert_eq!(limits.admit("b", start), Some(0));
    }
}
