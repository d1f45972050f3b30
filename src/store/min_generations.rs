//! What counts under keys that nobody has named, where a cluster decides that key by key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::store::generation::Generation;

/// Tells the store which items count. A command brings that along ([`Caller::min_generation`]); sweeps,
/// dumps and evictions come upon items of which only the key is known.
///
/// It is asked while a shard is locked: it must be quick, and must not call the store.
///
/// [`Caller::min_generation`]: crate::store::Caller::min_generation
pub trait MinGenerations: Send + Sync {
    /// From which generation on an item under this key counts; `None` when the key is not this
    /// node's at all.
    fn min_generation(&self, key: &[u8]) -> Option<Generation>;
}

/// Those in force, and whether a sweep has seen them.
#[derive(Default)]
pub(super) struct Posted {
    present: RwLock<Option<Arc<dyn MinGenerations>>>,
    /// How often they were set; 0 lets a node that is alone pass the lock by.
    set: AtomicU64,
    /// How often they had been set when the last full sweep began.
    swept: AtomicU64,
}

impl Posted {
    pub(super) fn set(&self, min_generations: Option<Arc<dyn MinGenerations>>) {
        let mut posted = self.present.write();
        self.set.fetch_add(1, Ordering::Release);
        let before = std::mem::replace(&mut *posted, min_generations);
        drop(posted);
        // When the lock is free again: a routing can be large.
        drop(before);
    }

    /// How often they were set.
    pub(super) fn times_set(&self) -> u64 {
        self.set.load(Ordering::Acquire)
    }

    /// Whether no full sweep has seen them yet.
    pub(super) fn want_full_sweep(&self) -> bool {
        self.times_set() != self.swept.load(Ordering::Relaxed)
    }

    /// Notes that every shard was swept since they had been set so often.
    pub(super) fn note_swept(&self, times_set: u64) {
        self.swept.store(times_set, Ordering::Relaxed);
    }

    /// To be asked under the lock of the shard that is looked at: what was written there after
    /// they were set is judged by these or by later ones.
    pub(super) fn get(&self) -> Option<Arc<dyn MinGenerations>> {
        if self.times_set() == 0 { None } else { self.present.read().clone() }
    }
}
