//! What origins know the values by that lie here, so that they can be asked whether there are others.
//!
//! Each is remembered with the CAS token of the item that its load has stored: an item that came later has another token, or
//! is no loaded one. So nothing need be forgotten when an item is written or goes.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use lru::LruCache;
use parking_lot::Mutex;

use crate::groups::Group;
use crate::origin::Validator;
use crate::store::Load;

/// Values of which it is remembered, of all groups together: those that were asked for last.
const VALIDATORS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// Validators by the keys of their values.
pub(super) struct Validators(Mutex<LruCache<Box<[u8]>, Known>>);

#[derive(Debug)]
struct Known {
    validator: Validator,
    /// The token of the item.
    cas: u64,
    /// Of whose origin it is. A group that is configured anew is another one.
    group: Weak<Group>,
}

impl Default for Validators {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(VALIDATORS_MAX)))
    }
}

impl Validators {
    /// Remembers what the value of the item with this CAS token is known by, if it is known by anything.
    pub(super) fn note(&self, key: &[u8], cas: u64, group: &Arc<Group>, validator: Option<Validator>) {
        let mut all = self.0.lock();
        match validator {
            // Without tokens nobody could tell which item it was.
            Some(validator) if cas != 0 => {
                all.put(key.into(), Known { validator, cas, group: Arc::downgrade(group) });
            }
            _ => _ = all.pop(key),
        }
    }

    /// What the value is known by that a load is to replace.
    pub(super) fn find(&self, key: &[u8], load: &Load, group: &Arc<Group>) -> Option<Validator> {
        let mut all = self.0.lock();
        let known = all.get(key)?;
        let is_it =
            load.replaces == Some(known.cas) && std::ptr::eq(known.group.as_ptr(), &raw const **group);
        is_it.then(|| known.validator.clone())
    }
}
