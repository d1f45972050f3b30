//! Room for a large value that is on its way: it is made step by step while the value comes in, or before it is stored.

use std::sync::Arc;

use crate::store::budget::SLICE_BYTES;
use crate::store::evict::Need;
use crate::store::{Caller, Store};

/// Items that a step looks at.
pub(super) const STEP_ITEMS: usize = 256;

/// Steps for each segment that a value will take: not all that is in one goes, and it may have several portions.
const SEGMENT_STEPS: u32 = 64;

/// What is expected of a value that is not stored yet. It counts as used.
pub struct Expected {
    store: Arc<Store>,
    /// Bytes that count,
    bytes: i64,
    /// and those that are to come.
    goal: i64,
    /// Steps that may still be made for them.
    steps: u32,
}

impl Expected {
    /// Nothing yet.
    pub fn nothing(store: Arc<Store>) -> Self {
        Self { store, bytes: 0, goal: 0, steps: 0 }
    }

    /// So many bytes are expected in all.
    pub fn reach(&mut self, bytes: usize) {
        self.goal = bytes as i64;
    }

    /// Makes room for what is expected, as far as one step goes: some items give way. Whether it did; then there may be
    /// more to do. Where keys have memory of their own nothing counts as expected, for it is not known whose this is.
    pub fn step(&mut self, caller: &Caller<'_>) -> bool {
        loop {
            let Store { shards, evictor, .. } = &*self.store;
            if self.steps > 0 && shards.shared.budget.is_over(0) {
                self.steps -= 1;
                return evictor.make_room(shards, caller, &Need::value(STEP_ITEMS));
            }
            if !self.expect_more() {
                return false;
            }
        }
    }

    /// Lets the next bytes count, a segment at a time: when more are missing, what is used gives way as well.
    fn expect_more(&mut self) -> bool {
        let shared = &self.store.shards.shared;
        let budget = &shared.budget;
        let more = (self.goal - self.bytes).min(SLICE_BYTES);
        let counts = more > 0
            && budget.evict
            && !shared.groups().are_bounded()
            && budget.expected() + more <= budget.expected_max();
        if counts {
            budget.expect(more);
            self.bytes += more;
            self.steps = SEGMENT_STEPS;
        }
        counts
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.store.shards.shared.budget.expect(-self.bytes);
    }
}
