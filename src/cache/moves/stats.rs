//! What is moved, and what has been moved since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::handovers::Handovers;

/// Counts, each but ever grows; and what is left.
#[derive(Debug, Default)]
pub struct Stats {
    /// Items that came here.
    pub items_in: AtomicU64,
    /// Bytes of their keys and values.
    pub bytes_in: AtomicU64,
    /// Items that went from here.
    pub items_out: AtomicU64,
    /// Bytes of their keys and values.
    pub bytes_out: AtomicU64,
    /// Commands that waited for an item which came.
    pub takes_found: AtomicU64,
    /// Commands that waited, and there was none.
    pub takes_absent: AtomicU64,
    /// Commands whose source did not answer in time: what it had under their keys is a miss.
    pub takes_failed: AtomicU64,
    /// What the sources say is left there for this node: items now, not a count.
    pub items_left: AtomicU64,
    /// The same, bytes.
    pub bytes_left: AtomicU64,
    /// How long these will take, about.
    pub seconds_left: AtomicU64,
}

/// All of it at one moment, and how many slots are on their way.
#[derive(Debug, Default)]
pub struct Report {
    /// Slots whose items come here.
    pub slots_in: u64,
    /// Slots whose items go from here.
    pub slots_out: u64,
    /// See [`Stats`].
    pub items_in: u64,
    /// See [`Stats`].
    pub bytes_in: u64,
    /// See [`Stats`].
    pub items_out: u64,
    /// See [`Stats`].
    pub bytes_out: u64,
    /// See [`Stats`].
    pub takes_found: u64,
    /// See [`Stats`].
    pub takes_absent: u64,
    /// See [`Stats`].
    pub takes_failed: u64,
    /// Items that are still to come, as far as that is known.
    pub items_left: u64,
    /// Bytes of these.
    pub bytes_left: u64,
    /// How long they will take; 0 when nothing comes, or that is not known yet.
    pub seconds_left: u64,
}

impl Stats {
    /// What is counted at this moment, while these slots are on their way.
    pub(in crate::cache) fn report(&self, handovers: Option<&Handovers>) -> Report {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report {
            slots_in: handovers.map_or(0, Handovers::incoming_slots) as u64,
            slots_out: handovers.map_or(0, Handovers::outgoing_slots) as u64,
            items_in: now(&self.items_in),
            bytes_in: now(&self.bytes_in),
            items_out: now(&self.items_out),
            bytes_out: now(&self.bytes_out),
            takes_found: now(&self.takes_found),
            takes_absent: now(&self.takes_absent),
            takes_failed: now(&self.takes_failed),
            items_left: now(&self.items_left),
            bytes_left: now(&self.bytes_left),
            seconds_left: now(&self.seconds_left),
        }
    }
}

/// Counts on.
pub(super) fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

/// How long the rest will take when so many bytes took so long, in whole seconds; 0 when none has come yet.
pub(super) fn seconds_left(bytes_left: u64, bytes: u64, took: Duration) -> u64 {
    if bytes == 0 {
        return 0;
    }
    // A float that is too large becomes the largest number there is.
    (bytes_left as f64 * took.as_secs_f64() / bytes as f64).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_for_its_size_as_what_has_come() {
        let took = Duration::from_secs(10);
        assert_eq!(seconds_left(3_000, 1_000, took), 30);
        assert_eq!(seconds_left(1, 1_000_000, took), 1, "not yet over");
        assert_eq!(seconds_left(0, 1_000, took), 0);
        assert_eq!(seconds_left(1_000, 0, took), 0, "nobody knows");
        assert_eq!(seconds_left(1_000, 1_000, Duration::ZERO), 0);
    }
}
