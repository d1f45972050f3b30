//! What has been moved since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts; each but ever grows.
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
}

/// Counts on.
pub(super) fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}
