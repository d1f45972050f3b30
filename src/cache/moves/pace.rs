//! How fast items are pulled.

use std::time::Duration;

use tokio::time::Instant;

/// What may be caught up on after a wait: timers are no more exact than this.
const SLACK: Duration = Duration::from_millis(5);

/// Bytes that are asked for at once, and how often, where there is no limit.
const UNLIMITED: (u32, usize) = (64 << 10, 4);

/// Bytes that are asked for at once where there is one, or while commands wait, at most: what a command waits for comes behind
/// them. Measured: with 16 KiB, or 11, an item costs about a tenth more.
pub(super) const BATCH_MAX: u32 = 14 << 10;
/// And no fewer, however few may come in a second.
const BATCH_MIN: u32 = 1 << 10;
const BATCHES_PER_SECOND: u64 = 20;

/// Lets so many bytes through in a second.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0 is without a limit.
    bytes_per_second: u64,
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free_at: Instant::now() }
    }

    /// How many bytes to ask for at once, and in how many requests at a time.
    pub(super) fn batch(&self) -> (u32, usize) {
        let fewer = u32::try_from(self.bytes_per_second / BATCHES_PER_SECOND).unwrap_or(BATCH_MAX);
        if self.bytes_per_second == 0 { UNLIMITED } else { (fewer.clamp(BATCH_MIN, BATCH_MAX), 1) }
    }

    /// When more may be asked for.
    pub(super) fn free_at(&self) -> Instant {
        self.free_at
    }

    /// So many bytes have come.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) {
        if self.bytes_per_second > 0 {
            let span = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            let from = now.checked_sub(SLACK).unwrap_or(now);
            self.free_at = self.free_at.max(from) + span;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_pass_as_are_allowed() {
        let mut pace = Pace::new(1_000_000);
        let mut now = Instant::now();
        let began = now;
        for _ in 0..100 {
            pace.note(100_000, now);
            now = now.max(pace.free_at());
        }
        let took = now - began;
        assert!(took > Duration::from_millis(9_900) && took <= Duration::from_secs(10), "{took:?}");
        let batches = [0, 100, 100_000, 1 << 20].map(|rate| Pace::new(rate).batch());
        assert_eq!(batches, [UNLIMITED, (BATCH_MIN, 1), (5_000, 1), (BATCH_MAX, 1)]);
        let mut unlimited = Pace::new(0);
        unlimited.note(1 << 40, now);
        assert!(unlimited.free_at() <= now);
    }
}
