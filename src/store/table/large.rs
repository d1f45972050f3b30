//! Items too large for a segment, each in memory of its own.

use bytes::Bytes;
use slab::Slab;

use crate::clock::Seconds;
use crate::spare::{self, allocated};
use crate::store::facts::{Facts, NewValue};
use crate::store::table::queues::{Line, UNIT_BYTES};
use crate::store::table::segment::Ends;

/// What it takes to count who shares a value.
const SHARED_BYTES: usize = 32;

/// An item in memory of its own.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) key: Box<[u8]>,
    /// May be on its way to a client, which then sees none of what is written later.
    pub(super) value: Bytes,
    pub(super) facts: Facts,
    pub(super) line: Line,
}

impl Large {
    /// Bytes that it takes, as the allocator rounds them.
    pub(super) fn bytes(&self) -> usize {
        large_bytes(self.key.len(), self.value.len())
    }

    /// Writes another value of the same length over the one that it has, or in its place: while that is on its way to a
    /// client, or where the new one lies in memory that may be kept.
    pub(super) fn overwrite(&mut self, value: NewValue<'_>) {
        if let Some(received) = value.kept() {
            return spare::give(std::mem::replace(&mut self.value, received));
        }
        self.value = match std::mem::take(&mut self.value).try_into_mut() {
            Ok(mut bytes) => {
                value.overwrite(&mut bytes);
                bytes.freeze()
            }
            Err(sent) => value.made_of(&sent).into(),
        };
    }

    pub(super) fn ends(&self) -> Ends {
        Ends::of(&self.facts)
    }
}

/// Bytes that an item with a value of this size would take.
pub(super) fn large_bytes(key_len: usize, value_len: usize) -> usize {
    allocated(key_len) + allocated(value_len) + SHARED_BYTES + size_of::<Option<Large>>() + UNIT_BYTES
}

/// The large items of a shard, by numbers that are used again.
#[derive(Debug, Default)]
pub(super) struct LargeItems {
    items: Slab<Large>,
    bytes: usize,
    /// None ends before this. A bound: an item that was removed leaves it as it is.
    next_end: Seconds,
}

impl LargeItems {
    /// Bytes that they take.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn insert(&mut self, item: Large) -> usize {
        self.bytes += item.bytes();
        if self.items.is_empty() {
            self.next_end = Seconds::MAX;
        }
        self.next_end = self.next_end.min(item.ends().first());
        self.items.insert(item)
    }

    pub(super) fn remove(&mut self, number: usize) -> Large {
        let item = self.items.remove(number);
        self.bytes -= item.bytes();
        item
    }

    #[inline]
    pub(super) fn get(&self, number: usize) -> &Large {
        &self.items[number]
    }

    /// The item of a number that may be in use.
    pub(super) fn find(&self, number: usize) -> Option<&Large> {
        self.items.get(number)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: usize) -> &mut Large {
        &mut self.items[number]
    }

    /// Other facts for an item.
    pub(super) fn update(&mut self, number: usize, facts: Facts) {
        self.next_end = self.next_end.min(Ends::of(&facts).first());
        self.get_mut(number).facts = facts;
    }

    /// Numbers in use or not: below this.
    pub(super) fn numbers(&self) -> usize {
        self.items.capacity()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Large)> {
        self.items.iter()
    }

    /// None ends before this.
    pub(super) fn next_end(&self) -> Seconds {
        if self.items.is_empty() { Seconds::MAX } else { self.next_end }
    }

    /// Looks when the first one ends.
    pub(super) fn find_next_end(&mut self) {
        self.next_end = self.iter().map(|(_, item)| item.ends().first()).min().unwrap_or(Seconds::MAX);
    }
}
