//! What all shards share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::clock::Clock;
use crate::events::Events;
use crate::store::budget::Budget;
use crate::store::generation::Generations;
use crate::store::min_generations::Posted;
use crate::store::options::Options;
use crate::store::padded::Padded;
use crate::store::prefix_flushes::PrefixFlushes;
use crate::store::table::{KeyGroups, Table};

/// What every shard needs to know.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) events: Events,
    /// Whether items carry a CAS token.
    pub(super) cas: bool,
    pub(super) item_size_max: usize,
    pub(super) budget: Budget,
    pub(super) generations: Padded<Generations>,
    pub(super) min_generations: Posted,
    pub(super) prefix_flushes: PrefixFlushes,
    groups: RwLock<Arc<KeyGroups>>,
    next_cas: Padded<AtomicU64>,
}

impl Shared {
    /// What shards share whose tables take `empty_bytes` while there is no item.
    pub(super) fn new(
        options: &Options,
        clock: Clock,
        events: Events,
        groups: Arc<KeyGroups>,
        empty_bytes: i64,
    ) -> Self {
        Self {
            clock,
            events,
            cas: options.cas,
            item_size_max: options.item_size_max,
            budget: Budget::new(options.budget_bytes, options.evict, empty_bytes),
            generations: Padded(Generations::default()),
            min_generations: Posted::default(),
            prefix_flushes: PrefixFlushes::default(),
            groups: RwLock::new(groups),
            next_cas: Padded(AtomicU64::new(0)),
        }
    }

    /// The present groups of keys.
    pub(super) fn groups(&self) -> Arc<KeyGroups> {
        self.groups.read().clone()
    }

    /// Other groups of keys. To be called when all tables have them.
    pub(super) fn set_groups(&self, groups: Arc<KeyGroups>) {
        *self.groups.write() = groups;
    }

    /// Counts by how many bytes a table has grown since it took `used`.
    #[inline]
    pub(super) fn note_growth(&self, table: &mut Table, used: i64) -> i64 {
        let grown = table.used() - used;
        if grown != 0 {
            self.budget.used_changed(grown);
            table.report_growth();
        }
        grown
    }

    /// A CAS token for what is written: the one that the client wants, or a new one.
    #[inline]
    pub(super) fn new_cas(&self, wanted: Option<u64>) -> u64 {
        match wanted {
            Some(cas) => cas,
            None if self.cas => self.next_cas.0.fetch_add(1, Ordering::Relaxed) + 1,
            None => 0,
        }
    }

    /// The highest CAS token given so far.
    pub(super) fn highest_cas(&self) -> u64 {
        self.next_cas.0.load(Ordering::Relaxed)
    }

    /// Makes every CAS token from now on a higher one than this.
    pub(super) fn raise_cas(&self, above: u64) {
        self.next_cas.0.fetch_max(above, Ordering::Relaxed);
    }
}
