//! Room for a large value that is on its way: it is made while the value comes in, and not all at once when it is stored.

use std::sync::Arc;

use crate::store::evict::Need;
use crate::store::{Caller, Store};

/// Bytes of all values on their way count up to this part of the budget. Who announces more than that empties no cache.
const EXPECTED_PART: i64 = 16;

/// What has come of a value that is not stored yet. Its bytes count as used.
pub struct Expected {
    store: Arc<Store>,
    bytes: i64,
}

impl Expected {
    /// Nothing yet.
    pub fn nothing(store: Arc<Store>) -> Self {
        Self { store, bytes: 0 }
    }

    /// So much has come. Makes room, as far as one step goes: about a segment is taken apart.
    pub fn add(&mut self, caller: &Caller<'_>, bytes: usize) {
        let Store { shards, evictor, .. } = &*self.store;
        let budget = &shards.shared.budget;
        if !budget.evict {
            return;
        }
        let bytes = bytes as i64;
        if budget.expected() + bytes <= budget.limit() as i64 / EXPECTED_PART {
            budget.expect(bytes);
            self.bytes += bytes;
        }
        if budget.is_over(0) {
            evictor.make_room(shards, caller, &Need { written: None, grown: 0, partition: None });
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.store.shards.shared.budget.expect(-self.bytes);
    }
}
