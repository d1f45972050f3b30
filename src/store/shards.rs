//! The tables, each behind a lock of its own.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Clock;
use crate::events::Events;
use crate::store::lookup::{KeyHash, Lookup};
use crate::store::options::Options;
use crate::store::shared::Shared;
use crate::store::table::{KeyGroup, KeyGroups, Pool, SEGMENTS_MAX, Table};

/// Budget of one shard, where there is enough for several.
const SHARD_BYTES: u64 = 4 << 20;

/// With so many shards threads seldom meet at one; from there on shards grow,
const SHARDS_MANY: u64 = 64;

/// up to this budget each, for which the numbers of segments suffice by far.
const SHARD_BYTES_MAX: u64 = 64 << 20;

/// The lowest bits of a hash choose the shard.
const SHARDS_MAX: u64 = 1 << 16;

/// A shard has about this many segments, or larger ones than [`SEGMENT_BYTES`] would be needed.
const SEGMENTS: u64 = 64;

/// A shard has at least this many segments of a partition with a bound: those that are being filled, one for each class of
/// items, are to be a small part of it, and items of a kilobyte are to lie in them.
const PARTITION_SEGMENTS: u64 = 16;

/// Bounds of the size of a segment.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 16;

/// Budget for each piece of an index: some hundred items of the usual sizes.
const PIECE_BYTES: u64 = 32 << 10;

/// What the index may take more at once, amply.
const INDEX_STEP_BYTES: usize = 4 << 10;

fn segment_bytes(shard_bytes: u64) -> usize {
    let wanted = (shard_bytes / SEGMENTS).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    1 << wanted.ilog2()
}

/// A power of two of shards, and what they share.
pub(super) struct Shards {
    pub(super) tables: Box<[Mutex<Table>]>,
    pub(super) shared: Shared,
    hash: KeyHash,
    pieces: usize,
    segment_bytes: usize,
}

impl Shards {
    /// As many as suit the budget.
    pub(super) fn new(options: &Options, clock: Clock, events: Events) -> Self {
        let wanted = (options.budget_bytes / SHARD_BYTES).min(SHARDS_MANY);
        let wanted = wanted.max(options.budget_bytes / SHARD_BYTES_MAX).clamp(1, SHARDS_MAX);
        Self::with_count(options, clock, events, 1 << wanted.ilog2())
    }

    /// So many; a power of two.
    pub(super) fn with_count(options: &Options, clock: Clock, events: Events, count: usize) -> Self {
        let hash = KeyHash::new(options.hash_seed);
        let shard_bytes = options.budget_bytes / count as u64;
        let pool = Arc::new(Pool::new(segment_bytes(shard_bytes)));
        let segment_bytes = pool.segment_bytes();
        let groups = Arc::new(KeyGroups::none(pool));
        let pieces = (shard_bytes / PIECE_BYTES).clamp(1, 1 << 12) as usize;
        let make = |_| Mutex::new(Table::new(hash.clone(), Arc::clone(&groups), pieces));
        let tables: Box<[_]> = (0..count).map(make).collect();
        let empty_bytes = tables.iter().map(|table| table.lock().used()).sum();
        let shared = Shared::new(options, clock, events, groups, empty_bytes);
        Self { tables, shared, hash, pieces, segment_bytes }
    }

    /// Other groups of keys from now on, shard by shard. No two calls at a time.
    pub(super) fn set_groups(&self, groups: &[KeyGroup]) {
        let shards = self.tables.len() as u64;
        let pool = |bytes: u64| {
            let own = (bytes / shards / PARTITION_SEGMENTS).max(*SEGMENT_BYTES.start());
            Pool::new((1 << own.ilog2()).min(self.segment_bytes))
        };
        let groups = Arc::new(KeyGroups::new(groups, &self.shared.groups(), pool));
        self.tables.iter().for_each(|table| table.lock().set_groups(groups.clone()));
        self.shared.set_groups(groups);
    }

    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    /// Parts of all shards together that are walked one by one.
    pub(super) fn parts(&self) -> usize {
        self.tables.len() * self.pieces
    }

    /// The shard of a part, and its piece there.
    pub(super) fn part(&self, part: usize) -> (usize, usize) {
        (part / self.pieces, part % self.pieces)
    }

    /// The largest budget with which no shard runs out of numbers for its segments, were its share twice that of others.
    pub(super) fn most_bytes(&self) -> u64 {
        (self.tables.len() * self.segment_bytes * SEGMENTS_MAX / 2) as u64
    }

    /// Bytes that a new item can take at most, with the structures that grow for it.
    pub(super) fn most_growth(&self, key_len: usize, value_len: usize) -> usize {
        self.segment_bytes.max(2 * (key_len + value_len)) + INDEX_STEP_BYTES
    }

    #[inline]
    pub(super) fn lock(&self, index: usize) -> MutexGuard<'_, Table> {
        self.tables[index].lock()
    }

    /// A key's hash, and the place of its shard.
    #[inline]
    pub(super) fn locate<'k>(&self, key: &'k [u8]) -> (Lookup<'k>, usize) {
        let key = self.hash.lookup(key);
        (key, key.hash as usize & (self.tables.len() - 1))
    }
}
