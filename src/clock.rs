//! Time in whole seconds, as memcached counts it: a process clock that starts a little above
//! zero, so that an expiry time of 0 can mean "never" and 1 "long past".

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::item::Exptime;

/// Seconds on the process clock.
pub type Seconds = u32;

/// What the process clock shows at start: above 1, which stands for "already expired"
/// (memcached.c, `process_started`).
const START: Seconds = 2;

/// A source of the time. Cheap to clone; tests set theirs.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
    /// Unix time at which the process clock showed 0.
    unix_base: u64,
}

#[derive(Debug, Clone)]
enum Source {
    /// When the first second began.
    System(Instant),
    Manual(Arc<AtomicU32>),
}

impl Clock {
    /// The machine's own monotonic clock. Its seconds begin when those of the wall clock do, so that an
    /// expiry time in Unix time is met to the second.
    pub fn system() -> Self {
        Self::started(unix_time(), Instant::now())
    }

    /// A clock whose process started at `now`, when the wall clock showed `unix`.
    fn started(unix: Duration, now: Instant) -> Self {
        let begun = Duration::from_nanos(unix.subsec_nanos().into());
        let source = Source::System(now.checked_sub(begun).unwrap_or(now));
        Self { source, unix_base: unix.as_secs().saturating_sub(u64::from(START)) }
    }

    /// A clock that stands still until [`Clock::advance`] moves it; its start is at `unix`.
    pub fn manual(unix: u64) -> Self {
        let now = Arc::new(AtomicU32::new(START));
        Self { source: Source::Manual(now), unix_base: unix - u64::from(START) }
    }

    /// Now, on the process clock.
    #[inline]
    pub fn now(&self) -> Seconds {
        match &self.source {
            Source::System(beginning) => whole_seconds(beginning.elapsed()),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock forward; a system clock stays as it is.
    pub fn advance(&self, seconds: Seconds) {
        if let Source::Manual(now) = &self.source {
            now.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    /// Seconds since the process started.
    pub fn uptime(&self) -> Seconds {
        self.now().saturating_sub(START)
    }

    /// The Unix time of a moment on the process clock.
    pub fn unix(&self, at: Seconds) -> u64 {
        self.unix_base + u64::from(at)
    }

    /// When something with this expiry time ends: 0 for never, else a moment on the process
    /// clock, which may be past (memcached.c, `realtime`).
    #[inline]
    pub fn deadline(&self, exptime: Exptime, now: Seconds) -> Seconds {
        match exptime {
            Exptime::Never => 0,
            Exptime::In(seconds) => now.saturating_add(seconds),
            Exptime::At(unix) => unix
                .checked_sub(self.unix_base)
                .map_or(1, |since| u32::try_from(since).unwrap_or(u32::MAX).max(1)),
        }
    }
}

/// The wall clock, in seconds of Unix time: it goes on while a machine sleeps, and is set.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the process clock shows so long after the beginning of its first second.
#[inline]
fn whole_seconds(since: Duration) -> Seconds {
    START.saturating_add(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Clock {
        /// When its first second began.
        fn beginning(&self) -> Instant {
            match self.source {
                Source::System(beginning) => beginning,
                Source::Manual(_) => unreachable!("no manual clock is asked"),
            }
        }
    }

    #[test]
    fn seconds_begin_with_those_of_the_wall_clock() {
        let start = Instant::now();
        for millis in [0, 1, 250, 500, 999] {
            let unix = Duration::from_millis(1_700_000_000_000 + millis);
            let clock = Clock::started(unix, start);
            for later in [0, 1, 499, 500, 501, 999, 1_000, 1_001, 86_400_000].map(Duration::from_millis) {
                let shown = clock.unix(whole_seconds(start + later - clock.beginning()));
                assert_eq!(shown, (unix + later).as_secs(), "started at .{millis:03}, {later:?} later");
            }
        }
    }

    #[test]
    fn deadlines_follow_memcached() {
        let clock = Clock::manual(1_700_000_000);
        clock.advance(10);
        let now = clock.now();
        assert_eq!(clock.deadline(Exptime::from_wire(0), now), 0);
        assert_eq!(clock.deadline(Exptime::from_wire(5), now), now + 5);
        assert_eq!(clock.deadline(Exptime::from_wire(2_592_000), now), now + 2_592_000);
        assert_eq!(clock.deadline(Exptime::from_wire(1_700_000_020), now), now + 10);
        assert_eq!(clock.deadline(Exptime::from_wire(2_592_001), now), 1, "1970 is past");
        assert_eq!(clock.deadline(Exptime::from_wire(-1), now), 1, "negative is past");
        assert_eq!(clock.unix(now), 1_700_000_010);
        assert_eq!(clock.uptime(), 10);
    }
}
