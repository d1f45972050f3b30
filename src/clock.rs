//! Time in whole seconds, as memcached counts it: a process clock that starts a little above
//! zero, so that an expiry time of 0 can mean "never" and 1 "long past".

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
    System(Instant),
    Manual(Arc<AtomicU32>),
}

impl Clock {
    /// The machine's own monotonic clock.
    pub fn system() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self { source: Source::System(Instant::now()), unix_base: unix.saturating_sub(u64::from(START)) }
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
            Source::System(started) => {
                START.saturating_add(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX))
            }
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

#[cfg(test)]
mod tests {
    use super::*;

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
