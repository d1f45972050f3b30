//! This node's memory: items in shards, each a table in the order of last use behind a lock of
//! its own, under one budget of bytes. Synchronous; nothing here ever awaits.
//!
//! The budget counts what items really cost, the tables and the allocator's rounding included.
//! There are enough shards that no table holds more than a few thousand entries, so that none
//! ever stalls an operation by growing.

mod entry;
mod evict;
mod floors;
mod generation;
mod key;
mod meter;
mod number;
mod shard;
mod sweep;
mod tell;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::clock::{Clock, Seconds};
use crate::command::{Command, Failure, Made, Outcome, SetMode, Unavailable, Verb};
use crate::events::Events;
use crate::item::{Exptime, ItemView};
use crate::stats::Counters;
use crate::store::evict::Need;
use crate::store::floors::{Posted, Survey};
use crate::store::generation::{Generations, Span};
use crate::store::key::{KeyHash, Lookup};
use crate::store::shard::Shard;

/// Budget of one shard. The smallest item costs about 110 bytes with its share of the table,
/// so a table stays under some 5,000 entries, and growing it takes well under a millisecond.
const SHARD_BYTES: u64 = 512 << 10;

/// Bounds of the number of shards; the upper one lets a 64 GiB cache keep its tables small.
const SHARDS: std::ops::RangeInclusive<u64> = 16..=1 << 17;

/// The hash bits that choose a shard. The tables use the lowest bits and the highest seven.
const SHARD_SHIFT: u32 = 32;

/// How much this node may keep, and of what.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that items and the structures that hold them may take (`-m`).
    pub budget_bytes: u64,
    /// Largest item in bytes, as memcached counts it: key, value and header (`-I`).
    pub item_size_max: usize,
    /// Whether a full cache drops its least recently used items (`-M` says no).
    pub evict: bool,
    /// Whether items carry a CAS token (`-C` says no).
    pub cas: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { budget_bytes: 64 << 20, item_size_max: 1 << 20, evict: true, cas: true }
    }
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The time, read once for everything that came together.
    pub now: Seconds,
    /// Where this thread counts.
    pub counters: &'a Counters,
    /// The connection's number, for `watch`.
    pub connection: u64,
    /// In a cluster, the generation from which on items under the command's key count
    /// ([`Store::advance`]); what was written under an earlier one is dead. Means nothing where
    /// no key is named.
    pub since: Option<u32>,
    /// A command that has not begun by then is refused, as [`Unavailable::Unanswered`].
    pub expires: Option<Instant>,
}

impl<'a> Caller<'a> {
    /// A caller on a node that is alone.
    #[inline]
    pub fn new(now: Seconds, counters: &'a Counters, connection: u64) -> Self {
        Self { now, counters, connection, since: None, expires: None }
    }
}

/// Tells the store which items count. A command brings that along ([`Caller::since`]); sweeps,
/// dumps and evictions come upon items of which only the key is known.
///
/// It is asked while a shard is locked: it must be quick, and must not call the store.
pub trait Floors: Send + Sync {
    /// From which generation on an item under this key counts; `None` when the key is not this
    /// node's at all.
    fn floor(&self, key: &[u8]) -> Option<u32>;
}

/// A [`Caller`], and what counted when the shard's lock was taken.
struct Context<'a> {
    now: Seconds,
    counters: &'a Counters,
    connection: u64,
    /// The stamp of what is written, without marks.
    stamp: u32,
    /// What has an older stamp than this is dead.
    floor: u32,
}

/// What every shard needs to know.
struct Shared {
    clock: Clock,
    events: Events,
    evict: bool,
    cas: bool,
    item_size_max: AtomicU64,
    budget_bytes: AtomicU64,
    next_cas: Padded<AtomicU64>,
    used_bytes: Padded<AtomicI64>,
    generations: Padded<Generations>,
    floors: Posted,
}

/// Keeps what every write touches on a cache line of its own.
#[repr(align(128))]
struct Padded<T>(T);

impl Shared {
    fn item_size_max(&self) -> usize {
        self.item_size_max.load(Ordering::Relaxed) as usize
    }

    fn new_cas(&self, wanted: Option<u64>) -> u64 {
        match wanted {
            Some(cas) => cas,
            None if self.cas => self.next_cas.0.fetch_add(1, Ordering::Relaxed) + 1,
            None => 0,
        }
    }

    /// What [`Found::ttl_before`](crate::command::Found::ttl_before) says of an item that is made.
    fn ttl_before(&self, made: Made, now: Seconds) -> Option<u32> {
        let deadline = self.clock.deadline(made.before?, now);
        (deadline != 0).then(|| deadline.saturating_sub(now))
    }

    fn used_changed(&self, bytes: i64) {
        if bytes != 0 {
            self.used_bytes.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether the budget does not hold, once `more` bytes have come or gone.
    fn over_budget(&self, more: i64) -> bool {
        let used = self.used_bytes.0.load(Ordering::Relaxed).saturating_add(more);
        u64::try_from(used).unwrap_or(0) > self.budget_bytes.load(Ordering::Relaxed)
    }

    /// What counts for a command of this caller; to be asked under the lock of its key's shard.
    #[inline]
    fn context<'a>(&self, caller: &Caller<'a>) -> Context<'a> {
        let &Caller { now, counters, connection, since, .. } = caller;
        let Span { floor, current } = self.generations.0.span(now);
        let floor = since.map_or(floor, |since| generation::later(floor, since));
        let (stamp, floor) = (generation::stamp(current), generation::stamp(floor));
        Context { now, counters, connection, stamp, floor }
    }

    /// What counts in a whole shard, whose lock is held. Of its other keys `caller.since` says
    /// nothing.
    fn survey<'a>(&self, caller: &Caller<'a>) -> Survey<'a> {
        let &Caller { now, counters, connection, .. } = caller;
        let Span { floor, current } = self.generations.0.span(now);
        let (stamp, own) = (generation::stamp(current), generation::stamp(floor));
        let cx = Context { now, counters, connection, stamp, floor: own };
        Survey { cx, floor, floors: self.floors.get() }
    }
}

/// This node's memory.
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    hash: KeyHash,
    shared: Shared,
    empty_bytes: i64,
    /// Where the search for a victim goes on.
    hand: AtomicU64,
    sweeping: AtomicBool,
    sweep_enabled: AtomicBool,
}

impl Store {
    /// An empty store.
    pub fn new(options: &Options, clock: Clock, events: Events) -> Self {
        let wanted = (options.budget_bytes / SHARD_BYTES).clamp(*SHARDS.start(), *SHARDS.end());
        Self::with_shards(options, clock, events, wanted.next_power_of_two() as usize)
    }

    fn with_shards(options: &Options, clock: Clock, events: Events, shards: usize) -> Self {
        let hash = KeyHash::default();
        let before = meter::balance();
        let shards: Box<[_]> = (0..shards).map(|_| Mutex::new(Shard::new(hash.clone()))).collect();
        let empty_bytes = meter::balance() - before;
        let shared = Shared {
            clock,
            events,
            evict: options.evict,
            cas: options.cas,
            item_size_max: AtomicU64::new(options.item_size_max as u64),
            budget_bytes: AtomicU64::new(options.budget_bytes),
            next_cas: Padded(AtomicU64::new(0)),
            used_bytes: Padded(AtomicI64::new(empty_bytes)),
            generations: Padded(Generations::default()),
            floors: Posted::default(),
        };
        Self {
            shards,
            hash,
            shared,
            empty_bytes,
            hand: AtomicU64::new(0),
            sweeping: AtomicBool::new(false),
            sweep_enabled: AtomicBool::new(true),
        }
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
        let key = &Lookup { bytes: command.key, hash: self.hash.hash(command.key) };
        let index = self.shard_of(key.hash);
        let mut shard = self.shards[index].lock();
        // A thread that stood still on its way here finds out now, when nothing can hold it up
        // any more: its client was told long ago that this did not happen.
        let expired = caller.expires.is_some_and(|moment| Instant::now() >= moment);
        let shared = &self.shared;
        let cx = &shared.context(caller);
        let binary = command.key_binary;

        let used = shard.used();
        let result = match &command.verb {
            _ if expired => reply(Outcome::Failed(Failure::Unavailable(Unavailable::Unanswered))),
            Verb::Get(get) => shard.get(cx, shared, key, binary, get, reply),
            Verb::Set(set) => shard.set(cx, shared, key, binary, set, reply),
            Verb::Delete(delete) => shard.delete(cx, shared, key, delete, reply),
            Verb::Arithmetic(sum) => shard.arithmetic(cx, shared, key, binary, sum, reply),
            Verb::Inspect => shard.inspect(cx, key, reply),
        };
        let grown = shard.used() - used;
        if grown != 0 {
            let mean_item = shard.used() / shard.len().max(1) as i64;
            drop(shard);
            self.shared.used_changed(grown);
            if grown > 0 && self.shared.evict && self.shared.over_budget(0) {
                self.make_room(caller, &Need { written: Some(index), grown, mean_item });
            }
        }
        result
    }

    /// Drops what lies under `key`, as a `set` does that could not be stored.
    pub fn drop_unstored(&self, key: &[u8], mode: SetMode) {
        let key = &Lookup { bytes: key, hash: self.hash.hash(key) };
        let mut shard = self.shards[self.shard_of(key.hash)].lock();
        let used = shard.used();
        shard.drop_unstored(key, mode);
        self.shared.used_changed(shard.used() - used);
    }

    /// Tells watchers of a value that `command` did not store, which the store was not shown.
    pub fn tell_unstored(&self, caller: &Caller<'_>, key: &[u8], command: &str, why: Failure) {
        tell::tell_unstored(&self.shared, caller.connection, key, command, why);
    }

    /// Makes every item that is there now a miss, or every one that is there after `delay`.
    /// Costs the same however many there are; the memory comes back by sweeps and evictions.
    pub fn flush_all(&self, caller: &Caller<'_>, delay: Exptime) {
        let generations = &self.shared.generations.0;
        // One that has come due unseen happens before this one takes its place.
        generations.span(caller.now);
        let due = self.shared.clock.deadline(delay, caller.now);
        if due > caller.now {
            generations.flush_at(due);
        } else {
            generations.flush();
        }
        self.sweep_overdue(caller);
    }

    /// Begins a new generation, which every value that is set from now on carries, and returns
    /// it, for [`Caller::since`] and [`Floors`]. What is there stays.
    pub fn advance(&self) -> u32 {
        let generation = self.shared.generations.0.advance();
        // Once in four million; nobody's to count.
        self.sweep_overdue(&Caller::new(self.shared.clock.now(), &Counters::default(), 0));
        generation
    }

    /// Says from now on which items count, for what looks at items without a command: sweeps,
    /// dumps, evictions. `None`: all. The next sweep looks at every shard, to bring the memory
    /// of those back that count no more.
    ///
    /// To be called before any command acts on a change of the cluster: then nothing that it
    /// writes is taken for what was there before.
    pub fn set_floors(&self, floors: Option<Arc<dyn Floors>>) {
        self.shared.floors.set(floors);
    }

    /// Shows every item of one shard that counts, most recently used first. The shard is locked
    /// meanwhile; it holds a few thousand items at most.
    pub fn walk(&self, caller: &Caller<'_>, shard: usize, show: impl FnMut(ItemView<'_>)) {
        let shard = self.shards[shard].lock();
        shard.walk(&self.shared.survey(caller), show);
    }

    /// Shards there are, for [`Store::walk`].
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Items in memory, dead ones that nobody has met yet included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is no item in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes every CAS token from now on a higher one than this.
    pub fn raise_cas(&self, above: u64) {
        self.shared.next_cas.0.fetch_max(above, Ordering::Relaxed);
    }

    /// Seconds since the least recently used item was used.
    pub fn age(&self, now: Seconds) -> Seconds {
        let tails = self.shards.iter().filter_map(|shard| shard.lock().tail());
        tails.map(|tail| now.saturating_sub(tail.accessed)).max().unwrap_or(0)
    }

    /// Bytes that items and tables take.
    pub fn used_bytes(&self) -> u64 {
        u64::try_from(self.shared.used_bytes.0.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Bytes that items and tables take beyond those of an empty store.
    pub fn item_bytes(&self) -> u64 {
        u64::try_from(self.shared.used_bytes.0.load(Ordering::Relaxed) - self.empty_bytes).unwrap_or(0)
    }

    /// Whether a full cache drops its least recently used items.
    pub fn evicts(&self) -> bool {
        self.shared.evict
    }

    /// Whether items carry a CAS token.
    pub fn has_cas(&self) -> bool {
        self.shared.cas
    }

    /// Bytes they may take.
    pub fn budget_bytes(&self) -> u64 {
        self.shared.budget_bytes.load(Ordering::Relaxed)
    }

    /// `cache_memlimit`: a new budget, which writes keep to from now on. When it is lower,
    /// [`Store::shrink`] gets there in steps. False, and nothing changed, when the empty
    /// tables alone would take more.
    pub fn set_budget(&self, bytes: u64) -> bool {
        let possible = u64::try_from(self.empty_bytes).is_ok_and(|empty| bytes > empty);
        if possible {
            self.shared.budget_bytes.store(bytes, Ordering::Relaxed);
        }
        possible
    }

    /// Largest item in bytes.
    pub fn item_size_max(&self) -> usize {
        self.shared.item_size_max()
    }

    /// The clock that items expire by.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> SHARD_SHIFT) as usize & (self.shards.len() - 1)
    }
}

#[cfg(test)]
mod tests;
