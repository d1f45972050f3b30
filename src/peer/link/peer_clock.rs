//! A node's knowledge of another node's clock: enough to say, on that clock, until when an operation may be executed.

use std::time::Duration;

use tokio::time::Instant;

/// How long a reading counts, at least. Two clocks that differ by 100 millionths in their speed
/// are a millisecond apart after this time.
const READING_AGE: Duration = Duration::from_secs(5);

/// Readings of a peer's clock.
///
/// The peer wrote `r` into a message when its clock showed that, and the message was here at our
/// `t`: so at `t` its clock showed at least `r`, and at a later `d` at least `r + (d - t)`. An
/// operation that the peer refuses from then on is therefore not executed after our `d`. The
/// largest `r - t` of late is closest to the truth.
#[derive(Debug)]
pub struct PeerClock {
    base: Instant,
    /// The largest `r - t`, in microseconds, since `turned`, and before.
    best: i64,
    best_before: i64,
    turned: Instant,
    last: Instant,
}

impl PeerClock {
    /// Begins with the first message of a stream.
    pub fn new(clock_micros: u64, now: Instant) -> Self {
        let mut peer_clock = Self { base: now, best: 0, best_before: i64::MIN, turned: now, last: now };
        peer_clock.best = peer_clock.ahead(clock_micros, now);
        peer_clock
    }

    /// The peer's clock showed `clock_micros` before the local time `now`.
    pub fn read(&mut self, clock_micros: u64, now: Instant) {
        let ahead = self.ahead(clock_micros, now);
        let age = now.saturating_duration_since(self.turned);
        if age >= READING_AGE {
            self.best_before = if age < 2 * READING_AGE { self.best } else { i64::MIN };
            self.best = ahead;
            self.turned = now;
        }
        self.best = self.best.max(ahead);
        self.last = now;
    }

    /// The local time of the last reading.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// The peer's clock at a local time, or a later value: an operation has ended there by then.
    pub fn expires_micros(&self, deadline: Instant) -> u64 {
        let left = deadline.saturating_duration_since(self.base).as_micros();
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        let expires = left.saturating_add(self.best.max(self.best_before));
        // Before its clock began: over in any case.
        u64::try_from(expires).unwrap_or(0)
    }

    fn ahead(&self, clock_micros: u64, now: Instant) -> i64 {
        let clock = i64::try_from(clock_micros).unwrap_or(i64::MAX);
        // Rounded up: the message was here then, but perhaps not a part of a microsecond before.
        let here = now.saturating_duration_since(self.base).as_nanos().div_ceil(1_000);
        clock.saturating_sub(i64::try_from(here).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_message_that_was_fastest_counts() {
        let t = Instant::now();
        // The peer's clock is 1,000,000 microseconds ahead of the time since t.
        let mut peer_clock = PeerClock::new(1_000_000 - 30_000, t);
        assert_eq!(peer_clock.expires_micros(t + 100 * MS), 1_070_000);
        peer_clock.read(1_000_000 + 50_000 - 2_000, t + 50 * MS);
        assert_eq!(peer_clock.expires_micros(t + 100 * MS), 1_098_000);
        peer_clock.read(1_000_000 + 60_000 - 40_000, t + 60 * MS);
        assert_eq!(peer_clock.expires_micros(t + 100 * MS), 1_098_000, "a slow message says less");
        assert_eq!(peer_clock.last(), t + 60 * MS);
    }

    #[test]
    fn readings_are_forgotten() {
        let t = Instant::now();
        let slow = |at: u32| u64::from(at) * 1_000 + 1_000_000 - 20_000;
        let mut peer_clock = PeerClock::new(1_000_000, t);
        peer_clock.read(slow(6_000), t + 6_000 * MS);
        assert_eq!(peer_clock.expires_micros(t), 1_000_000);
        peer_clock.read(slow(12_000), t + 12_000 * MS);
        assert_eq!(peer_clock.expires_micros(t), 980_000);
    }

    #[test]
    fn a_deadline_before_the_peers_clock_began_is_over() {
        let t = Instant::now();
        let mut peer_clock = PeerClock::new(0, t);
        peer_clock.read(10, t + 6_000 * MS);
        peer_clock.read(20, t + 12_000 * MS);
        assert_eq!(peer_clock.expires_micros(t), 0);
    }
}
