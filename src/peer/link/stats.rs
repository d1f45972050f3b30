//! What a link has done, for metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::command::Unavailable;

/// Counts of one link. Written under the link's lock alone, so that counting is a load and a
/// store; read by anyone.
#[derive(Debug, Default)]
pub struct Stats {
    /// Jobs that wait to be sent.
    pub queued: AtomicUsize,
    /// Jobs that wait for their outcomes.
    pub in_flight: AtomicUsize,
    /// Whether the breaker is open: the peer is taken for unreachable.
    pub open: AtomicBool,
    /// How often the breaker has opened.
    pub opened: AtomicU64,
    /// Streams that have come about.
    pub streams: AtomicU64,
    /// Messages sent.
    pub batches: AtomicU64,
    /// Operations sent.
    pub sent: AtomicU64,
    /// Operations that their owner answered.
    pub answered: AtomicU64,
    /// Operations handed back to be sent to another owner.
    pub returned: AtomicU64,
    /// Operations that ended at their deadline, after they had been sent.
    pub timeouts: AtomicU64,
    /// [`Unavailable::Unreachable`] answers.
    pub unreachable: AtomicU64,
    /// [`Unavailable::Unanswered`] answers.
    pub unanswered: AtomicU64,
    /// [`Unavailable::Overloaded`] answers.
    pub overloaded: AtomicU64,
    /// [`Unavailable::Moved`] answers.
    pub moved: AtomicU64,
    /// [`Unavailable::Refused`] answers: the peer refused, or the operation came too late.
    pub refused: AtomicU64,
}

impl Stats {
    pub(super) fn count_failed(&self, why: Unavailable) {
        match why {
            Unavailable::Unreachable | Unavailable::NoOwner => add(&self.unreachable, 1),
            Unavailable::Unanswered => add(&self.unanswered, 1),
            Unavailable::Overloaded => add(&self.overloaded, 1),
            Unavailable::Moved => add(&self.moved, 1),
            Unavailable::Refused | Unavailable::Fenced => add(&self.refused, 1),
        }
    }
}

/// For one writer at a time.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}
