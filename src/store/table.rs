//! The memory of one shard: items by key, in the order of their last use, and what they cost.
//!
//! This is the only code that knows how items lie in memory. Who uses it sees an [`Entry`]: facts
//! and a value, both borrowed. Values come as slices, and are copied to where they stay.

mod key;
mod meter;
mod scan;

use lru::LruCache;

use crate::clock::Seconds;
use crate::store::facts::{Facts, NewValue};
use crate::store::lookup::{KeyHash, Lookup};
use crate::store::table::key::{Key, Sought};

#[cfg(test)]
pub(super) use meter::balance;
pub(super) use meter::measure;

/// The items of one shard.
pub(super) struct Table {
    items: LruCache<Key, Item, KeyHash>,
    /// No item ends before this; [`Seconds::MAX`] when none ends. A bound, not a minimum: an
    /// item that was touched or removed leaves it as it was until the next sweep.
    next_expiry: Seconds,
    /// Bytes that items and table take.
    used: i64,
    /// Most items at once since the table was last fitted to them.
    most: usize,
}

/// An item as it lies here, behind its key.
struct Item {
    facts: Facts,
    value: Box<[u8]>,
}

impl Table {
    pub(super) fn new(hash: KeyHash) -> Self {
        let (items, used) = meter::measure(|| LruCache::unbounded_with_hasher(hash));
        Self { items, next_expiry: Seconds::MAX, used, most: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes that items and table take.
    #[inline]
    pub(super) fn used(&self) -> i64 {
        self.used
    }

    /// No item ends before this.
    pub(super) fn next_expiry(&self) -> Seconds {
        self.next_expiry
    }

    /// The item under a key, wherever it stands in the order.
    #[inline]
    pub(super) fn find(&mut self, key: &Lookup<'_>) -> Option<Entry<'_>> {
        let item = self.items.peek_mut(key as &dyn Sought)?;
        Some(Entry { item, next_expiry: &mut self.next_expiry, used: &mut self.used })
    }

    /// The item under a key, which comes to the front of the order.
    #[inline]
    pub(super) fn find_used(&mut self, key: &Lookup<'_>) -> Option<Entry<'_>> {
        let item = self.items.get_mut(key as &dyn Sought)?;
        Some(Entry { item, next_expiry: &mut self.next_expiry, used: &mut self.used })
    }

    /// Moves an item to the front of the order.
    #[inline]
    pub(super) fn promote(&mut self, key: &Lookup<'_>) {
        self.items.promote(key as &dyn Sought);
    }

    /// Puts a new item to the front of the order; there must be none of this key.
    pub(super) fn insert(&mut self, key: &Lookup<'_>, facts: Facts, value: &[u8]) {
        self.metered(|table| {
            _ = table.items.push(Key::new(key.bytes), Item { facts, value: value.into() });
        });
        note_expiry(&mut self.next_expiry, facts.exptime);
        self.most = self.most.max(self.items.len());
    }

    /// Removes what lies under a key, if anything does.
    pub(super) fn remove(&mut self, key: &Lookup<'_>) {
        // Dropped within the meter, not behind it.
        self.metered(|table| drop(table.items.pop(key as &dyn Sought)));
    }

    /// Runs `change` and counts the memory it took or gave back.
    #[inline]
    fn metered<R>(&mut self, change: impl FnOnce(&mut Self) -> R) -> R {
        let before = meter::balance();
        let result = change(self);
        self.used += meter::balance() - before;
        result
    }
}

/// An item that was found.
pub(super) struct Entry<'t> {
    item: &'t mut Item,
    next_expiry: &'t mut Seconds,
    used: &'t mut i64,
}

impl<'t> Entry<'t> {
    #[inline]
    pub(super) fn facts(&self) -> &Facts {
        &self.item.facts
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        &self.item.value
    }

    /// The value, for as long as the table is borrowed.
    #[inline]
    pub(super) fn into_value(self) -> &'t [u8] {
        &self.item.value
    }

    /// Other facts; the value stays as it is.
    #[inline]
    pub(super) fn update(&mut self, facts: Facts) {
        note_expiry(self.next_expiry, facts.exptime);
        self.item.facts = facts;
    }

    /// Other facts, and another value, in the same memory where its length allows.
    pub(super) fn rewrite(&mut self, facts: Facts, value: NewValue<'_>) {
        self.update(facts);
        let before = meter::balance();
        replace(&mut self.item.value, value);
        *self.used += meter::balance() - before;
    }
}

fn replace(old: &mut Box<[u8]>, new: NewValue<'_>) {
    match new {
        NewValue::Bytes(bytes) if bytes.len() == old.len() => old.copy_from_slice(bytes),
        NewValue::Bytes(bytes) => *old = bytes.into(),
        NewValue::Appended(bytes) => *old = [&**old, bytes].concat().into(),
        NewValue::Prepended(bytes) => *old = [bytes, &**old].concat().into(),
        NewValue::Padded(bytes) if bytes.len() <= old.len() => {
            let (front, rest) = old.split_at_mut(bytes.len());
            front.copy_from_slice(bytes);
            rest.fill(b' ');
        }
        NewValue::Padded(bytes) => *old = bytes.into(),
    }
}

#[inline]
fn note_expiry(next: &mut Seconds, exptime: Seconds) {
    if exptime != 0 {
        *next = (*next).min(exptime);
    }
}

#[cfg(test)]
mod tests;
