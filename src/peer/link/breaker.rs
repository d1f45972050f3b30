//! When a peer is taken for unreachable, and when it is tried again.

use std::time::Duration;

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 3;

/// Between two attempts while the breaker is closed: a node that refuses at once must not cost
/// more than a glance.
const PAUSE: Duration = Duration::from_millis(20);

/// Before the first attempt when the breaker is open; doubled after each.
const PAUSE_OPEN_MIN: Duration = Duration::from_millis(100);

/// Between two attempts at most.
const PAUSE_OPEN_MAX: Duration = Duration::from_secs(3);

/// Counts failures in a row. While it is open, operations are refused at once.
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    open: bool,
    pause_open: Duration,
}

impl Default for Breaker {
    /// A closed one.
    fn default() -> Self {
        Self { failures: 0, open: false, pause_open: PAUSE_OPEN_MIN }
    }
}

impl Breaker {
    /// Whether the peer is taken for unreachable.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Something failed; whether that has opened it.
    pub fn fail(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = !self.open && self.failures >= FAILURES_MAX;
        self.open |= opens;
        opens
    }

    /// A stream has come about. That closes the breaker, and the next failure opens it again
    /// unless something succeeds before.
    pub fn greeted(&mut self) {
        self.open = false;
        self.failures = self.failures.min(FAILURES_MAX - 1);
    }

    /// The peer has answered.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// How long to wait until the next attempt.
    pub fn pause(&mut self) -> Duration {
        if !self.open {
            return PAUSE;
        }
        let pause = self.pause_open;
        self.pause_open = (pause * 2).min(PAUSE_OPEN_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        assert!(!breaker.fail() && !breaker.fail());
        breaker.succeed();
        assert!(!breaker.fail() && !breaker.fail() && !breaker.is_open());
        assert!(breaker.fail() && breaker.is_open());
        assert!(!breaker.fail(), "it is open already");
    }

    #[test]
    fn attempts_become_rarer_until_the_peer_answers() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.pause(), PAUSE);
        (0..3).for_each(|_| _ = breaker.fail());
        let pauses: Vec<_> = (0..7).map(|_| breaker.pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_000, 3_000]);

        breaker.greeted();
        assert!(!breaker.is_open());
        assert!(breaker.fail(), "a stream that breaks before it answered anything");
        assert_eq!(breaker.pause(), PAUSE_OPEN_MAX);
        breaker.greeted();
        breaker.succeed();
        assert!(!breaker.fail());
    }
}
