//! What the loads of a group have done. What it has in memory, and how often it was read, the store knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stats::histogram::{DURATION, Distribution, Histogram};

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// With a value that was stored.
    Stored,
    /// With a value that was only shown: something was written under its key meanwhile, or it is not to be kept.
    Shown,
    /// The origin still has the value that was to be replaced.
    Unchanged,
    /// The origin says that there is none.
    Absent,
    /// The origin failed, or did not answer in time.
    Failed,
    /// The origin was not asked, because it had failed too often.
    Refused,
    /// Everybody had gone before its turn came, or too many were waiting.
    Dropped,
}

impl Result {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Stored,
        Self::Shown,
        Self::Unchanged,
        Self::Absent,
        Self::Failed,
        Self::Refused,
        Self::Dropped,
    ];

    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Shown => "shown",
            Self::Unchanged => "unchanged",
            Self::Absent => "absent",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Counts of a group's loads.
#[derive(Debug)]
pub struct Stats {
    loads: [AtomicU64; Result::ALL.len()],
    /// Misses that were answered at once, since it is known that there is no value.
    pub negative_hits: AtomicU64,
    /// Reads that were answered with a value whose time was over.
    pub stale: AtomicU64,
    /// Reads that were answered with a miss, because no load ended in time.
    pub timeouts: AtomicU64,
    /// Reads that wait for a load.
    pub waiting: AtomicU64,
    /// Loads that ask the origin.
    pub inflight: AtomicU64,
    /// How long the origin took, in nanoseconds. One thread writes.
    latency: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            loads: Default::default(),
            negative_hits: AtomicU64::default(),
            stale: AtomicU64::default(),
            timeouts: AtomicU64::default(),
            waiting: AtomicU64::default(),
            inflight: AtomicU64::default(),
            latency: Histogram::new(&DURATION),
        }
    }
}

impl Stats {
    /// A load has ended like this.
    pub fn ended(&self, result: Result) {
        self.loads[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many loads have ended like this.
    pub fn loads(&self, result: Result) -> u64 {
        self.loads[result as usize].load(Ordering::Relaxed)
    }

    /// The origin took this long. Only the thread that runs loads may call this.
    pub fn took(&self, elapsed: Duration) {
        self.latency.record(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How long the origin took so far, in nanoseconds.
    pub fn latency(&self) -> Distribution {
        self.latency.read()
    }
}
