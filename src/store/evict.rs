//! Making room: which item gives way when the budget is used up.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Seconds;
use crate::stats::Counter;
use crate::store::caller::Caller;
use crate::store::context::{Context, ScanContext};
use crate::store::facts::FETCHED;
use crate::store::shards::Shards;
use crate::store::sweep::drop_dead;
use crate::store::table::Table;
use crate::store::tell::tell_eviction;

/// When over budget, one visit to a shard frees this much at once, so that a full cache does
/// not look for a victim at every write. More for a write of more: a 64th of it.
const BATCH_BYTES: i64 = 8 << 10;

/// One more shard is looked at for a victim for each of these bytes of a usual item.
const CANDIDATE_BYTES: i64 = 1 << 10;

/// Shards that are looked at for one victim.
const CANDIDATES_MAX: i64 = 1 << 10;

/// A write frees at most twice what it took and this much: a budget that was lowered is
/// reached step by step, and no client waits for all of it.
const SLICE_BYTES: i64 = 64 << 10;

/// What a step towards a lower budget frees, where no write asks for it.
const SHRINK_BYTES: i64 = 1 << 20;

/// Which write needs room, and how much.
pub(super) struct Need {
    /// The shard that was just written to.
    pub(super) written: Option<usize>,
    /// Bytes that it grew by.
    pub(super) grown: i64,
    /// Bytes of a usual item there.
    pub(super) mean_item: i64,
}

impl Need {
    /// Of one step towards a budget that was lowered.
    pub(super) const STEP: Self = Self { written: None, grown: SHRINK_BYTES / 2, mean_item: 0 };
}

/// Finds victims. Where the search goes on is all it keeps.
#[derive(Default)]
pub(super) struct Evictor {
    hand: AtomicU64,
}

impl Evictor {
    /// Frees memory until the budget holds again, or as much as one write has to: expired
    /// items first where there may be any, then the least recently used. Candidates are the
    /// shard just written to and the next ones of a hand that goes round; of these, the one
    /// with the oldest item gives way. Small items are many, and every shard's oldest is about
    /// as old; of large ones a shard has few, and it pays to look at more shards. False when
    /// there is nothing left to drop.
    pub(super) fn make_room(&self, shards: &Shards, caller: &Caller<'_>, need: &Need) -> bool {
        caller.counters.bump(Counter::DirectReclaims);
        let candidates = (need.mean_item / CANDIDATE_BYTES).clamp(2, CANDIDATES_MAX);
        let candidates = candidates.min(shards.len() as i64) as usize;
        let batch = BATCH_BYTES.max(need.grown / 64);
        let mut left = 2 * need.grown + SLICE_BYTES;
        let mut fruitless = 0;
        while left > 0 && shards.shared.budget.is_over(0) {
            match self.victim(shards, need.written, candidates) {
                Some(index) => {
                    left -= evict_from(shards, caller, index, batch);
                    fruitless = 0;
                }
                // A few large items leave most shards empty: look round once before giving up.
                None if fruitless > shards.len() => return false,
                None => fruitless += candidates,
            }
        }
        true
    }

    /// The candidate with the oldest item.
    fn victim(&self, shards: &Shards, written: Option<usize>, candidates: usize) -> Option<usize> {
        let mask = shards.len() - 1;
        let hand = self.hand.fetch_add(candidates as u64, Ordering::Relaxed) as usize;
        let ages = (hand..hand + candidates).map(|index| index & mask).chain(written).filter_map(|index| {
            let table = shards.lock(index);
            // What was just written must not be its own victim.
            let spared = written == Some(index) && table.len() == 1;
            let (_, oldest) = table.oldest().filter(|_| !spared)?;
            // The token orders what was written in the same second.
            Some((index, (oldest.accessed, oldest.cas)))
        });
        ages.min_by_key(|&(_, age)| age).map(|(index, _)| index)
    }
}

/// Drops dead items, then old ones, until this many bytes are free; how many were freed. One
/// goes in any case, and one stays where others went, which may be the one just written.
fn evict_from(shards: &Shards, caller: &Caller<'_>, index: usize, batch: i64) -> i64 {
    let mut table = shards.lock(index);
    let scan = &ScanContext::new(&shards.shared, caller);
    let used = table.used();
    if table.next_expiry() <= caller.now {
        let dropped = drop_dead(&mut table, scan);
        caller.counters.add(Counter::Reclaimed, dropped);
    }
    let mut age = None;
    while used - table.used() < batch && table.len() > 0 {
        let freed_some = table.used() < used;
        if freed_some && table.len() == 1 {
            break;
        }
        // One goes each time, whether or not an age is known already.
        let evicted = evict_oldest(&mut table, scan);
        age = age.or(evicted);
    }
    // Those that go together are about as old.
    if let Some(age) = age {
        caller.counters.eviction_age(age);
    }
    table.fit();
    shards.shared.budget.used_changed(table.used() - used);
    used - table.used()
}

/// Drops the least recently used item. For how long it had not been used; `None` when it was
/// dead, or there is none.
fn evict_oldest(table: &mut Table, scan: &ScanContext<'_>) -> Option<Seconds> {
    let cx = &scan.cx;
    let age = table.evict(|key, facts, size| {
        if scan.dead(key, facts).is_some() {
            cx.count(Counter::Reclaimed);
            return None;
        }
        cx.count(Counter::Evictions);
        cx.counters.add(Counter::EvictedUnfetched, u64::from(!facts.is(FETCHED)));
        tell_eviction(cx, key, facts, size);
        Some(cx.now.saturating_sub(facts.accessed))
    });
    age.flatten()
}

/// Whether there is room for this many more bytes. A cache that evicts makes it afterwards; one
/// that may not drops what is dead in this shard.
#[inline]
pub(super) fn has_room(table: &mut Table, cx: &Context<'_>, bytes: usize) -> bool {
    let budget = &cx.shared.budget;
    budget.evict || !budget.is_over(bytes as i64) || find_room(table, cx, bytes)
}

/// Drops what is dead; whether there is room for this many bytes then.
#[cold]
fn find_room(table: &mut Table, cx: &Context<'_>, bytes: usize) -> bool {
    let used = table.used();
    let scan = &ScanContext::new(cx.shared, &Caller::new(cx.now, cx.counters, cx.connection));
    // Flushed items are behind all others: they are no longer used.
    let flushed = table.oldest().is_some_and(|(key, facts)| scan.dead(key, facts).is_some());
    if flushed || table.next_expiry() <= cx.now {
        let dropped = drop_dead(table, scan);
        cx.counters.add(Counter::Reclaimed, dropped);
    }
    // What was freed here is told to the store once the whole operation is over.
    !cx.shared.budget.is_over(bytes as i64 + table.used() - used)
}
