//! Rejoining: how long does a node that the others put out wait before it registers again?

use std::time::{Duration, Instant};

/// A node that was put out waits a lease before it registers again; doubled this often at most.
const BACKOFF_LIMIT: u32 = 5;

/// How many leases after that a node is put out again for it to count as "again".
const BACKOFF_MEMORY: u32 = 20;

/// What is known of the times at which this node was put out.
#[derive(Debug, Default)]
pub(super) struct Rejoining {
    /// When this node may register again.
    at: Option<Instant>,
    /// How often in short succession it was put out, less one.
    backoff: u32,
}

impl Rejoining {
    /// The others, which cannot reach this node, have put it out. It may well be put out again, so it waits longer
    /// each time.
    pub(super) fn put_out(&mut self, now: Instant, lease_ttl: Duration) {
        let again = self.at.is_some_and(|last| now < last + lease_ttl * BACKOFF_MEMORY);
        self.backoff = if again { self.backoff + 1 } else { 0 };
        self.at = Some(now + lease_ttl * 2_u32.pow(self.backoff.min(BACKOFF_LIMIT)));
    }

    /// Whether this node should wait: for a while, and until it `is_useful`.
    pub(super) fn waits(&self, now: Instant, is_useful: impl FnOnce() -> bool) -> bool {
        self.at.is_some_and(|at| now < at || !is_useful())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    #[test]
    fn a_node_that_is_put_out_again_waits_twice_as_long() {
        let start = Instant::now();
        let mut rejoining = Rejoining::default();
        assert!(!rejoining.waits(start, || false), "it was never put out");
        rejoining.put_out(start, LEASE);
        assert!(rejoining.waits(start + LEASE / 2, || true));
        assert!(rejoining.waits(start + LEASE, || false), "it would be of no use");
        assert!(!rejoining.waits(start + LEASE, || true));
        rejoining.put_out(start + LEASE * 3, LEASE);
        assert!(rejoining.waits(start + LEASE * 9 / 2, || true));
        assert!(!rejoining.waits(start + LEASE * 5, || true));
        let later = start + LEASE * 100;
        rejoining.put_out(later, LEASE);
        assert!(!rejoining.waits(later + LEASE, || true), "that was long ago");
    }
}
