//! How long a loaded value lives.

use std::time::Duration;

use crate::groups::Group;

/// How long a value lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Zero is not at all, and `None` until it gives way.
    pub(super) ttl: Option<Duration>,
    /// Whether it is loaded anew ahead of its end, or shown after it, as its group says.
    pub(super) is_renewed: bool,
}

impl Life {
    /// As long as its group says, give or take the jitter, and no longer than the origin allows. Where the origin's time is
    /// the shorter one, or the same, the jitter takes some of it and adds nothing. A value whose whole time is one in which
    /// it is loaded anew ahead of its end would be at every read: such a one is not, and is not shown after its end.
    pub(super) fn new(group: &Group, load: u64, origin: Option<Duration>) -> Self {
        let options = &group.options;
        // From -1 to 1, another one for each load.
        let spread = xxhash_rust::xxh3::xxh3_64(&load.to_le_bytes()) as f64 / u64::MAX as f64 * 2.0 - 1.0;
        let is_bounded = origin.is_some_and(|origin| options.ttl.is_none_or(|ttl| origin <= ttl));
        let (longest, spread) = if is_bounded { (origin, -spread.abs()) } else { (options.ttl, spread) };
        let own = longest.map(|longest| longest.mul_f64(1.0 + options.ttl_jitter * spread));
        let ttl = [own, origin, options.max_ttl].into_iter().flatten().min();
        let is_due_at_once = ttl.is_some_and(|ttl| ttl <= group.refresh_span);
        Self { ttl, is_renewed: options.renews() && !is_due_at_once }
    }

    /// Whether it is not to be kept at all.
    pub(super) fn is_none(&self) -> bool {
        self.ttl.is_some_and(|ttl| ttl.is_zero())
    }

    /// For how many seconds its item is kept, which includes the time in which it is shown stale.
    pub(super) fn kept_seconds(&self, group: &Group) -> Option<u32> {
        let after = if self.is_renewed { group.options.stale_span() } else { Duration::ZERO };
        self.ttl.map(|ttl| seconds(ttl + after))
    }

    /// For how many seconds it lives.
    pub(super) fn seconds(&self) -> Option<u32> {
        self.ttl.map(seconds)
    }
}

/// Whole seconds, one at least.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs_f64().round() as u64).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::options::Options;

    const MINUTE: Duration = Duration::from_secs(60);

    fn group() -> Group {
        let options = Options {
            ttl: Some(10 * MINUTE),
            ttl_jitter: 0.1,
            refresh_ahead: 0.2,
            stale_if_error: 60 * MINUTE,
            ..Options::default()
        };
        Group::with_origin(options, None)
    }

    fn lives(origin: Option<Duration>) -> Vec<Life> {
        (0..1000).map(|load| Life::new(&group(), load, origin)).collect()
    }

    #[test]
    fn a_time_of_the_origin_is_spread_too_and_never_exceeded() {
        for (origin, range) in [
            (None, 9 * MINUTE..=11 * MINUTE),
            (Some(20 * MINUTE), 9 * MINUTE..=11 * MINUTE),
            (Some(10 * MINUTE), 9 * MINUTE..=10 * MINUTE),
            (Some(5 * MINUTE), 4 * MINUTE + MINUTE / 2..=5 * MINUTE),
        ] {
            let lives = lives(origin);
            let ttls = || lives.iter().filter_map(|life| life.ttl);
            let (least, most) = (ttls().min().expect("some"), ttls().max().expect("some"));
            assert!(range.contains(&least) && range.contains(&most), "{origin:?}: {least:?} to {most:?}");
            let width = (most - least).as_secs_f64() / (*range.end() - *range.start()).as_secs_f64();
            assert!(width > 0.9, "{origin:?}: {least:?} to {most:?}");
            assert!(lives.iter().all(|life| life.is_renewed), "{origin:?}");
        }
    }

    #[test]
    fn what_would_be_loaded_anew_at_every_read_is_not() {
        assert!(lives(Some(2 * MINUTE)).iter().all(|life| !life.is_renewed));
        assert!(lives(Some(3 * MINUTE)).iter().all(|life| life.is_renewed));
        assert!(lives(Some(Duration::ZERO)).iter().all(Life::is_none));
    }
}
