//! Notices that a thread stood still: it alone, or with its process. The process may have been stopped, swapped out, or
//! on a machine without time for it. The clock does not show that the whole machine was suspended.
//!
//! What a client sent before waits in its socket since then. The client may have given up long ago, and have written
//! something newer through another node: the old command would undo that. So after a standstill of a thread its
//! connections are closed instead of read. After a standstill of the thread that accepts, the next connections that it
//! accepts are closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

/// A longer pause is a standstill; clients that give up sooner are rare.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// How often a thread has to look at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Connections that came in this soon after a standstill may have waited through it.
const BACKLOG: Duration = Duration::from_millis(200);

/// When a thread was seen running last, and when a standstill ended last: microseconds since `base`,
/// which is before both.
#[derive(Debug)]
pub struct PauseDetector {
    base: Instant,
    seen: AtomicU64,
    ended: AtomicU64,
}

impl Default for PauseDetector {
    fn default() -> Self {
        let now = Instant::now();
        // A little back, so that the first connections do not look as if they came after one.
        let base = now.checked_sub(BACKLOG * 2).unwrap_or(now);
        let seen = AtomicU64::new(micros(now - base));
        Self { base, seen, ended: AtomicU64::new(0) }
    }
}

impl PauseDetector {
    /// When the last standstill of this thread ended; 0 is never. To be asked by that thread alone,
    /// and every tenth of a second at least ([`watch`]).
    #[inline]
    pub fn ended(&self) -> u64 {
        self.ended_as_of(Instant::now())
    }

    #[inline]
    fn ended_as_of(&self, now: Instant) -> u64 {
        let now = micros(now.saturating_duration_since(self.base));
        let seen = self.seen.load(Ordering::Acquire);
        if now.saturating_sub(seen) > micros(PAUSE_MIN) {
            // In this order: a thread that sees the new `seen` sees the end, too.
            self.ended.fetch_max(now, Ordering::AcqRel);
        }
        if now.saturating_sub(seen) > micros(TICK) / 2 {
            self.seen.fetch_max(now, Ordering::AcqRel);
        }
        self.ended.load(Ordering::Acquire)
    }

    /// The standstill that a new connection cannot have waited through. To be asked as
    /// [`PauseDetector::ended`].
    pub fn before_now(&self) -> u64 {
        let ended = self.ended();
        if self.is_just_over() { 0 } else { ended }
    }

    /// Whether a standstill ended so recently that a connection which is new to the thread may have waited through it.
    /// Any thread may ask.
    pub fn is_just_over(&self) -> bool {
        let now = micros(self.base.elapsed());
        let ended = self.ended.load(Ordering::Acquire);
        ended > 0 && now.saturating_sub(ended) <= micros(BACKLOG)
    }
}

/// Has a thread look at the clock often enough for a standstill to be told from a lack of clients;
/// `look` calls [`PauseDetector::ended`].
pub async fn watch(look: impl Fn()) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_by_who_looks_first() {
        let pauses = PauseDetector::default();
        // Its own beginning: the present may be long after it on a busy machine.
        let start = pauses.base + BACKLOG * 2;
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(pauses.ended_as_of(start), 0);
        assert_eq!(pauses.ended_as_of(after(0.9)), 0, "busy, not standing still");
        assert_eq!(pauses.ended_as_of(after(1.8)), 0);
        let ended = pauses.ended_as_of(after(3.0));
        assert!(ended > 0);
        assert_eq!(pauses.ended_as_of(after(3.01)), ended);
        assert_eq!(pauses.ended_as_of(after(3.9)), ended);
        assert!(pauses.ended_as_of(after(5.5)) > ended, "and the next one");
    }

    #[test]
    fn what_comes_in_right_after_may_have_waited() {
        let pauses = PauseDetector::default();
        assert_eq!(pauses.before_now(), 0);
        assert!(!pauses.is_just_over());
        let now = micros(pauses.base.elapsed());
        pauses.ended.store(now, Ordering::Release);
        assert!(pauses.is_just_over() || pauses.base.elapsed() > BACKLOG * 3);
        assert!(pauses.before_now() == 0 || pauses.base.elapsed() > BACKLOG * 3);
        pauses.ended.store(1, Ordering::Release);
        assert_eq!(pauses.before_now(), 1);
    }
}
