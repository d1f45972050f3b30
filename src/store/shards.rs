//! The tables, each behind a lock of its own.

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Clock;
use crate::events::Events;
use crate::store::lookup::{KeyHash, Lookup};
use crate::store::options::Options;
use crate::store::shared::Shared;
use crate::store::table::{self, Table};

/// Budget of one shard. The smallest item costs about 110 bytes with its share of the table,
/// so a table stays under some 5,000 entries, and growing it takes well under a millisecond.
const SHARD_BYTES: u64 = 512 << 10;

/// Bounds of the number of shards; the upper one lets a 64 GiB cache keep its tables small.
const SHARDS: std::ops::RangeInclusive<u64> = 16..=1 << 17;

/// The hash bits that choose a shard. The tables use the lowest bits and the highest seven.
const SHARD_SHIFT: u32 = 32;

/// A power of two of shards, and what they share.
pub(super) struct Shards {
    pub(super) tables: Box<[Mutex<Table>]>,
    pub(super) shared: Shared,
    hash: KeyHash,
}

impl Shards {
    /// As many as suit the budget.
    pub(super) fn new(options: &Options, clock: Clock, events: Events) -> Self {
        let wanted = (options.budget_bytes / SHARD_BYTES).clamp(*SHARDS.start(), *SHARDS.end());
        Self::with_count(options, clock, events, wanted.next_power_of_two() as usize)
    }

    /// So many; a power of two.
    pub(super) fn with_count(options: &Options, clock: Clock, events: Events, count: usize) -> Self {
        let hash = KeyHash::default();
        let make = || (0..count).map(|_| Mutex::new(Table::new(hash.clone()))).collect();
        let (tables, empty_bytes) = table::measure(make);
        let shared = Shared::new(options, clock, events, empty_bytes);
        Self { tables, shared, hash }
    }

    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    #[inline]
    pub(super) fn lock(&self, index: usize) -> MutexGuard<'_, Table> {
        self.tables[index].lock()
    }

    /// A key's hash, and the place of its shard.
    #[inline]
    pub(super) fn locate<'k>(&self, key: &'k [u8]) -> (Lookup<'k>, usize) {
        let key = self.hash.lookup(key);
        (key, (key.hash >> SHARD_SHIFT) as usize & (self.tables.len() - 1))
    }
}
