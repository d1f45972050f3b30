//! Until when this node may answer as an owner (S8 of docs/design/membership.md).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::moment::now;

/// A moment that moves forward, and whether it counts.
#[derive(Debug)]
pub(crate) struct ServingDeadline {
    base: Instant,
    nanos: AtomicU64,
    displaced: AtomicBool,
}

impl ServingDeadline {
    /// One that is already over.
    pub(crate) fn over() -> Self {
        Self { base: now(), nanos: AtomicU64::new(0), displaced: AtomicBool::new(false) }
    }

    /// The moment from which on this node must not answer. Costs two loads.
    pub(crate) fn ends(&self) -> Instant {
        if self.displaced.load(Ordering::Acquire) {
            return self.base;
        }
        self.base + Duration::from_nanos(self.nanos.load(Ordering::Acquire))
    }

    /// Never moves back.
    pub(crate) fn extend_to(&self, until: Instant) {
        let nanos = until.saturating_duration_since(self.base).as_nanos();
        self.nanos.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Another process has taken this node's id, or has gone again.
    pub(crate) fn displace(&self, displaced: bool) {
        self.displaced.store(displaced, Ordering::Release);
    }
}
