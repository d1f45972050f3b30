//! Room for a large value that is on its way: it is made while the value comes in, and not all at once when it is stored.

use std::sync::Arc;

use crate::store::evict::{Need, SLICE_BYTES};
use crate::store::{Caller, Store};

/// What is expected of a value that is not stored yet. It counts as used.
pub struct Expected {
    store: Arc<Store>,
    bytes: i64,
}

impl Expected {
    /// Nothing yet.
    pub fn nothing(store: Arc<Store>) -> Self {
        Self { store, bytes: 0 }
    }

    /// So many bytes in all. Makes room for those that have come since the last call, as far as one step goes: a segment is
    /// taken apart, or two; whether it did. Where keys have memory of their own nothing is expected, for it is not known whose
    /// this is.
    pub fn reach(&mut self, caller: &Caller<'_>, bytes: usize) -> bool {
        let Store { shards, evictor, .. } = &*self.store;
        let budget = &shards.shared.budget;
        if !budget.evict || shards.shared.groups().are_bounded() {
            return false;
        }
        let more = bytes as i64 - self.bytes;
        if more <= 0 || budget.expected() + more > budget.expected_max() {
            return false;
        }
        budget.expect(more);
        self.bytes += more;
        let is_over = budget.is_over(0);
        if is_over {
            let need = Need { written: None, grown: more.min(SLICE_BYTES), partition: None };
            evictor.make_room(shards, caller, &need);
        }
        is_over
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.store.shards.shared.budget.expect(-self.bytes);
    }
}
