//! This node's memory: items in shards, each a table behind a lock of its own, under one budget
//! of bytes. Synchronous; nothing here ever awaits.
//!
//! The budget counts what items take with everything around them. Nothing that an operation waits
//! for grows with the number of items.

mod budget;
mod caller;
mod commands;
mod context;
mod evict;
mod expected;
mod facts;
mod flush;
mod generation;
mod groups;
mod load;
mod loading;
mod lookup;
mod min_generations;
mod moving;
mod options;
mod padded;
mod prefix_flushes;
mod shards;
mod shared;
mod sweep;
mod table;
mod tell;
mod transfer;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::clock::{Clock, Seconds};
use crate::command::{Command, Failure, Get, Outcome, SetMode, Unavailable, Verb};
use crate::events::Events;
use crate::item::ItemView;
use crate::store::context::{Context, Request, ScanContext};
use crate::store::evict::{Evictor, Need};
use crate::store::shards::Shards;
use crate::store::sweep::Sweeper;
use crate::store::table::Table;

pub use caller::Caller;
pub use expected::Expected;
pub use generation::Generation;
pub use load::{Load, LoadEnd, LoadStart};
pub use min_generations::MinGenerations;
pub use moving::{Arrival, MovingItem};
pub use options::Options;
pub use prefix_flushes::TooManyFlushes;
pub use table::{GroupUse, KeyGroup};
pub use transfer::Usage;

/// Fewer bytes no item takes, with its slot.
const ITEM_BYTES_LEAST: u64 = 24;

/// Digits of the longest number.
const DECIMAL_MAX: usize = 20;

/// This node's memory.
pub struct Store {
    shards: Shards,
    evictor: Evictor,
    sweeper: Sweeper,
    /// Held while other groups are set.
    setting_groups: Mutex<()>,
}

impl Store {
    /// An empty store.
    pub fn new(options: &Options, clock: Clock, events: Events) -> Self {
        Self::of(Shards::new(options, clock, events))
    }

    fn of(shards: Shards) -> Self {
        let (evictor, sweeper) = (Evictor::default(), Sweeper::default());
        Self { shards, evictor, sweeper, setting_groups: Mutex::default() }
    }

    /// Executes a command and hands what came of it to `reply`, which writes it out while the
    /// item lies still. Costs one lock, and a second one only when a full cache must evict.
    #[inline]
    pub fn execute<R>(
        &self,
        caller: &Caller<'_>,
        command: &Command<'_>,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        let (key, index) = self.shards.locate(command.key);
        if !self.evicts() {
            self.find_room(caller, command, index);
        }
        let mut table = self.shards.lock(index);
        let before = Before::of(&table);
        // A thread that stood still on its way here finds out here, where nothing can hold it up:
        // its client was told long ago that this did not happen.
        if caller.expires.is_some_and(|moment| Instant::now() >= moment) {
            return reply(Outcome::Failed(Failure::Unavailable(Unavailable::Unanswered)));
        }
        let cx = Context::new(&self.shards.shared, caller);
        let rq = Request { cx, key, key_binary: command.key_binary };
        let result = commands::execute(&mut table, &rq, &command.verb, reply);
        let writes = !matches!(command.verb, Verb::Get(Get { vivify: None, .. }) | Verb::Inspect);
        if writes {
            table.writes().note(key.hash);
        } else if matches!(command.verb, Verb::Get(Get { touch: Some(_), .. })) {
            table.writes().note_touch(key.hash);
        }
        self.account(caller, index, table, before, writes);
        result
    }

    /// Where nothing may be evicted: looks for room among the dead, if a command needs more than there is.
    fn find_room(&self, caller: &Caller<'_>, command: &Command<'_>, index: usize) {
        let value_len = match &command.verb {
            Verb::Set(set) => set.value.len(),
            Verb::Get(Get { vivify: Some(_), .. }) => 0,
            Verb::Arithmetic(_) => DECIMAL_MAX,
            _ => return,
        };
        let most = self.shards.most_growth(command.key.len(), value_len) as i64;
        let is_over =
            self.shards.shared.budget.is_over(most) || self.shards.lock(index).excess(command.key, most) > 0;
        if is_over {
            self.evictor.find_room(&self.shards, caller, command.key, most);
        }
    }

    /// Counts what a command has changed in a shard, and makes room where that was too much.
    #[inline(always)]
    fn account(
        &self,
        caller: &Caller<'_>,
        index: usize,
        mut table: MutexGuard<'_, Table>,
        before: Before,
        writes: bool,
    ) {
        let grown = self.count(&mut table, &before);
        let budget = &self.shards.shared.budget;
        if !(writes || grown > 0) || !budget.evict {
            return;
        }
        let overfull = table.overfull();
        drop(table);
        if overfull.is_some() || budget.is_near() {
            self.make_room(caller, &Need::write(index, grown, overfull));
        }
    }

    /// Makes room after a write: in a partition that is above its bound, and in all of the memory.
    #[cold]
    fn make_room(&self, caller: &Caller<'_>, need: &Need) {
        if need.partition.is_some() {
            self.evictor.make_room(&self.shards, caller, need);
        }
        if self.shards.shared.budget.is_near() {
            self.evictor.make_room(&self.shards, caller, &Need { partition: None, ..*need });
        }
    }

    /// Counts what has changed in a shard; by how many bytes it grew.
    #[inline]
    fn count(&self, table: &mut Table, before: &Before) -> i64 {
        let shared = &self.shards.shared;
        if !shared.budget.evict && table.len() < before.len {
            shared.budget.removed();
        }
        shared.note_growth(table, before.used)
    }

    /// Drops what lies under `key`, as a `set` does that could not be stored.
    pub fn drop_unstored(&self, key: &[u8], mode: SetMode) {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let before = Before::of(&table);
        commands::drop_unstored(&mut table, &key, mode);
        table.writes().note(key.hash);
        self.count(&mut table, &before);
    }

    /// Tells watchers of a value that `command` did not store, which the store was not shown.
    pub fn tell_unstored(&self, caller: &Caller<'_>, key: &[u8], command: &str, why: Failure) {
        tell::tell_unstored(&self.shards.shared, caller.connection, key, command, why);
    }

    /// Says from now on which items count, for what looks at items without a command: sweeps,
    /// dumps, evictions. `None`: all. The next sweep looks at every shard, to bring the memory
    /// of those back that count no more.
    ///
    /// To be called before any command acts on a change of the cluster: then nothing that it
    /// writes is taken for what was there before.
    pub fn set_min_generations(&self, min_generations: Option<Arc<dyn MinGenerations>>) {
        self.shards.shared.min_generations.set(min_generations);
    }

    /// Shows every item of one part of the memory that counts, in no order. A lock is held
    /// meanwhile; a part holds some hundred items.
    pub fn walk(&self, caller: &Caller<'_>, part: usize, mut show: impl FnMut(ItemView<'_>)) {
        self.scan(caller, part, |_| true, |moving| show(moving.item));
    }

    /// Shows what counts in one part under the keys that are `wanted`, such as those of one slot
    /// of a cluster, with all that belongs to it. The keys of a slot lie in all parts. Returns how many items lie in it.
    /// Otherwise like [`Store::walk`].
    pub fn scan(
        &self,
        caller: &Caller<'_>,
        part: usize,
        wanted: impl Fn(&[u8]) -> bool,
        mut show: impl FnMut(MovingItem<'_>),
    ) -> usize {
        let mut looked_at = 0;
        let (shard, piece) = self.shards.part(part);
        let table = self.shards.lock(shard);
        let scan = ScanContext::new(&self.shards.shared, caller);
        table.walk(piece, |key, facts, value, uses| {
            looked_at += 1;
            if wanted(key) && scan.dead(key, facts).is_none() {
                show(MovingItem::new(&scan.cx, key, facts, value, uses));
            }
        });
        looked_at
    }

    /// Items are going to be brought in. From now on, what clients write, touch, delete or let expire is not replaced by
    /// an item of before ([`Store::receive`]). To be called before clients are served.
    pub fn expect_arrivals(&self) {
        self.shards.tables.iter().for_each(|table| table.lock().writes().watch_arrivals(true));
        self.shards.shared.prefix_flushes.hold(true);
    }

    /// Makes the index as large as this many more items need, of so many bytes each, as far as they have room.
    pub fn expect_items(&self, items: u64, each: u64) {
        let most = self.budget_bytes() / each.max(ITEM_BYTES_LEAST);
        let items = items.min(most).div_ceil(self.shards.len() as u64) as usize;
        for table in &self.shards.tables {
            let mut table = table.lock();
            let before = Before::of(&table);
            table.expect_items(items);
            self.count(&mut table, &before);
        }
    }

    /// No more items are going to be brought in.
    pub fn end_arrivals(&self) {
        self.shards.tables.iter().for_each(|table| table.lock().writes().watch_arrivals(false));
        self.shards.shared.prefix_flushes.hold(false);
    }

    /// Stores an item that comes from another node, or from a snapshot, as it was there: with its CAS token, marks,
    /// generation and remaining time. What a client has stored here meanwhile stays. No command
    /// is counted.
    pub fn receive(&self, caller: &Caller<'_>, moving: &MovingItem<'_>) -> Arrival {
        let (key, index) = self.shards.locate(moving.item.key);
        let mut table = self.shards.lock(index);
        let before = Before::of(&table);
        let cx = Context::new(&self.shards.shared, caller);
        let rq = Request { cx, key, key_binary: moving.item.key_binary };
        let arrival = commands::arrive(&mut table, &rq, moving);
        self.account(caller, index, table, before, true);
        arrival
    }

    /// Whether such an item can come in and nothing need give way for it.
    pub fn has_room(&self, key_len: usize, value_len: usize) -> bool {
        !self.shards.shared.budget.is_over(self.shards.most_growth(key_len, value_len) as i64)
    }

    /// Parts of the memory, for [`Store::walk`]. Every key lies in one of them and stays there.
    pub fn part_count(&self) -> usize {
        self.shards.parts()
    }

    /// Items in memory, dead ones that nobody has met yet included.
    pub fn len(&self) -> usize {
        self.shards.tables.iter().map(|table| table.lock().len()).sum()
    }

    /// Whether there is no item in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest CAS token given so far.
    pub fn highest_cas(&self) -> u64 {
        self.shards.shared.highest_cas()
    }

    /// Makes every CAS token from now on a higher one than this.
    pub fn raise_cas(&self, above: u64) {
        self.shards.shared.raise_cas(above);
    }

    /// Seconds since the item was used that was not used for longest, of those that give way next.
    pub fn age(&self, now: Seconds) -> Seconds {
        let oldest = self.shards.tables.iter().filter_map(|table| table.lock().oldest()).min();
        oldest.map_or(0, |accessed| now.saturating_sub(accessed))
    }

    /// Bytes that the index of all items takes; a slot has 8.
    pub fn index_bytes(&self) -> u64 {
        self.shards.tables.iter().map(|table| table.lock().index_bytes() as u64).sum()
    }

    /// Bytes that items and tables take.
    pub fn used_bytes(&self) -> u64 {
        self.shards.shared.budget.used_bytes()
    }

    /// Bytes that items take, each with its slot in the index.
    pub fn item_bytes(&self) -> u64 {
        self.shards.tables.iter().map(|table| table.lock().item_bytes() as u64).sum()
    }

    /// Whether a full cache drops items to make room.
    pub fn evicts(&self) -> bool {
        self.shards.shared.budget.evict
    }

    /// Whether items carry a CAS token.
    pub fn has_cas(&self) -> bool {
        self.shards.shared.cas
    }

    /// Bytes they may take.
    pub fn budget_bytes(&self) -> u64 {
        self.shards.shared.budget.limit()
    }

    /// `cache_memlimit`: a new budget, which writes keep to from now on. When it is lower,
    /// [`Store::shrink`] gets there in steps. False, and nothing changed, when the empty
    /// tables alone would take more, or when the shards of the start are too few for so much.
    pub fn set_budget(&self, bytes: u64) -> bool {
        bytes <= self.shards.most_bytes() && self.shards.shared.budget.set_limit(bytes)
    }

    /// One step towards a bound that was lowered, of all memory or of a group; true while there is more to do.
    pub fn shrink(&self, caller: &Caller<'_>) -> bool {
        let budget = &self.shards.shared.budget;
        let overfull = self.shards.shared.groups().overfull();
        let is_due = budget.evict && (overfull.is_some() || budget.is_over(0));
        is_due && self.evictor.make_room(&self.shards, caller, &Need::step(overfull))
    }

    /// Sweeps the shards in which something may be dead, one lock at a time, and drops what
    /// is. `pace` is called between shards with the items checked since the last call, may
    /// sleep there, and may break off. Returns whether it went through.
    pub fn sweep(&self, caller: &Caller<'_>, pace: impl FnMut(u64) -> ControlFlow<()>) -> bool {
        self.sweeper.sweep(&self.shards, caller, pace)
    }

    /// Whether the background sweep runs (`lru_crawler enable`).
    pub fn sweep_enabled(&self) -> bool {
        self.sweeper.is_enabled()
    }

    /// Turns the background sweep on or off.
    pub fn enable_sweep(&self, enabled: bool) {
        self.sweeper.enable(enabled);
    }

    /// Whether a sweep is going on.
    pub fn is_sweeping(&self) -> bool {
        self.sweeper.is_sweeping()
    }

    /// Largest item in bytes.
    pub fn item_size_max(&self) -> usize {
        self.shards.shared.item_size_max
    }

    /// The clock that items expire by.
    pub fn clock(&self) -> &Clock {
        &self.shards.shared.clock
    }
}

/// What a shard took before a command.
struct Before {
    used: i64,
    len: usize,
}

impl Before {
    #[inline]
    fn of(table: &Table) -> Self {
        Self { used: table.used(), len: table.len() }
    }
}

#[cfg(test)]
mod tests;
