//! Room for a large value that is on its way: it is made step by step while the value comes in, or before it is stored.

use std::sync::Arc;

use crate::store::evict::{Need, SLICE_BYTES};
use crate::store::{Caller, Store};

/// Steps for each segment that a value will take: not all that is in one goes.
const SEGMENT_STEPS: i64 = 4;

/// What is expected of a value that is not stored yet. It counts as used.
pub struct Expected {
    store: Arc<Store>,
    bytes: i64,
    /// Steps that may still be made for them.
    steps: i64,
}

impl Expected {
    /// Nothing yet.
    pub fn nothing(store: Arc<Store>) -> Self {
        Self { store, bytes: 0, steps: 0 }
    }

    /// So many bytes are expected in all. Where keys have memory of their own nothing is, for it is not known whose this is.
    pub fn reach(&mut self, bytes: usize) {
        let shared = &self.store.shards.shared;
        let budget = &shared.budget;
        if !budget.evict || shared.groups().are_bounded() {
            return;
        }
        let more = bytes as i64 - self.bytes;
        if more <= 0 || budget.expected() + more > budget.expected_max() {
            return;
        }
        budget.expect(more);
        self.bytes += more;
        self.steps = SEGMENT_STEPS * (1 + more / SLICE_BYTES);
    }

    /// Makes room for what is expected, as far as one step goes: a segment is taken apart. Whether it did; then there may be
    /// more to do.
    pub fn step(&mut self, caller: &Caller<'_>) -> bool {
        let Store { shards, evictor, .. } = &*self.store;
        if self.steps == 0 || !shards.shared.budget.is_over(0) {
            return false;
        }
        self.steps -= 1;
        evictor.make_room(shards, caller, &Need { written: None, grown: 0, partition: None })
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.store.shards.shared.budget.expect(-self.bytes);
    }
}
