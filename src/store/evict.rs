//! Making room: which shard gives way when the budget is used up.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Seconds;
use crate::item::Exptime;
use crate::stats::Counter;
use crate::store::caller::Caller;
use crate::store::context::{Request, ScanContext};
use crate::store::facts::{Dead, FETCHED, Facts};
use crate::store::generation::Span;
use crate::store::shards::Shards;
use crate::store::sweep;
use crate::store::table::{Cursor, Gone, Judge, Table};
use crate::store::tell::tell_eviction;

/// A write takes apart what it took and this much: a budget that does not hold then, or was lowered, is reached by the
/// writes that follow, and no client waits for all of it.
const SLICE_BYTES: i64 = 64 << 10;

/// Nothing is spared either while more is missing than this, or this part of the budget, beside what was just written and
/// what the budget was lowered by.
const MISSING_BYTES: i64 = 2 << 20;
const MISSING_PART: i64 = 32;

/// What a step towards a lower budget takes apart, beside [`SLICE_BYTES`], where no write asks for it.
const SHRINK_BYTES: i64 = 1 << 20;

/// Bytes that are taken apart, beside four times what is missing, before nothing in them is spared.
const PATIENCE_BYTES: i64 = 8 * SLICE_BYTES;

/// A segment is written together with others when this part of it was removed,
const SPARSE_PART: usize = 4;
/// or where nothing may be evicted.
const SPARSE_PART_FULL: usize = 16;

/// Which write needs room, and how much.
pub(super) struct Need {
    /// The shard that was just written to.
    pub(super) written: Option<usize>,
    /// Bytes that it grew by.
    pub(super) grown: i64,
}

impl Need {
    /// Of one step towards a budget that was lowered.
    pub(super) const STEP: Self = Self { written: None, grown: SHRINK_BYTES };
}

/// Finds the shard that gives way.
#[derive(Default)]
pub(super) struct Evictor {
    /// Where the search goes on.
    hand: AtomicU64,
    /// Bytes that were taken apart since the budget held.
    taken: AtomicI64,
    /// What there was when a search for something dead found nothing.
    fruitless: Mutex<Option<Present>>,
}

/// All that something can die of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Present {
    now: Seconds,
    span: Span,
    times_set: u64,
    removals: u64,
}

impl Evictor {
    /// Frees memory until the budget holds again, or as much as one write has to. A shard gives way that has at least its share:
    /// the one just written to, or the next one of a hand that goes round. So no flood of one shard empties the others. False
    /// when there is nothing left to drop.
    pub(super) fn make_room(&self, shards: &Shards, caller: &Caller<'_>, need: &Need) -> bool {
        caller.counters.bump(Counter::DirectReclaims);
        let budget = &shards.shared.budget;
        let bearable =
            MISSING_BYTES.min(budget.limit() as i64 / MISSING_PART) + need.grown + budget.lowered();
        let mut left = need.grown + SLICE_BYTES;
        let mut fruitless = 0;
        loop {
            let missing = budget.missing();
            if missing <= 0 {
                self.taken.store(0, Ordering::Relaxed);
                budget.note_reached();
                return true;
            }
            if left <= 0 {
                return true;
            }
            // In the shard just written to, there may be nothing but what was written.
            let written = need.written.filter(|_| fruitless == 0);
            let victim = self.victim(shards, written);
            let force =
                self.taken.load(Ordering::Relaxed) >= PATIENCE_BYTES + 4 * missing || missing > bearable;
            match victim.and_then(|index| evict_from(shards, caller, index, force)) {
                Some(bytes) => {
                    left -= bytes;
                    self.taken.fetch_add(bytes, Ordering::Relaxed);
                }
                None if fruitless > shards.len() => return false,
                None => fruitless += 1,
            }
        }
    }

    /// A shard that has at least its share of the bytes, and an item.
    fn victim(&self, shards: &Shards, written: Option<usize>) -> Option<usize> {
        let share = shards.shared.budget.used_bytes() as i64 / shards.len() as i64;
        let has_share = |index: &usize| {
            let table = shards.lock(*index);
            table.used() >= share && table.len() > 0
        };
        if let Some(written) = written.filter(has_share) {
            return Some(written);
        }
        let mask = shards.len() - 1;
        let hand = self.hand.fetch_add(1, Ordering::Relaxed) as usize;
        let mut round = (hand..hand + shards.len()).map(|index| index & mask);
        let found = round.clone().find(has_share);
        // The shares have changed meanwhile, or one item takes more than all.
        found.or_else(|| round.find(|&index| shards.lock(index).len() > 0))
    }

    /// Where nothing may be evicted: looks for what is dead in all shards until there is room for so many bytes.
    pub(super) fn find_room(&self, shards: &Shards, caller: &Caller<'_>, bytes: i64) {
        let shared = &shards.shared;
        let (generations, min_generations) = (&shared.generations.0, &shared.min_generations);
        let present = Present {
            now: caller.now,
            span: generations.span(caller.now),
            times_set: min_generations.times_set(),
            removals: shared.budget.removals(),
        };
        if *self.fruitless.lock() == Some(present) {
            return;
        }
        let all = generations.wants_full_sweep() || min_generations.want_full_sweep();
        for index in 0..shards.len() {
            let mut table = shards.lock(index);
            let used = table.used();
            let scan = ScanContext::new(shared, caller);
            let (mut cursor, horizon) = (Cursor::default(), scan.cx.horizon());
            while let Some(swept) = sweep::step(&mut table, &mut cursor, &scan, all) {
                caller.counters.add(Counter::Reclaimed, swept.dropped);
            }
            while table.reclaim_waste(horizon, SPARSE_PART_FULL, &mut Reclaimer::new(&scan)).is_some() {}
            shared.budget.used_changed(table.used() - used);
            drop(table);
            if !shared.budget.is_over(bytes) {
                return;
            }
        }
        *self.fruitless.lock() = Some(present);
    }
}

/// Takes apart one unit of a shard; how many bytes it had. `None` when there was none.
fn evict_from(shards: &Shards, caller: &Caller<'_>, index: usize, force: bool) -> Option<i64> {
    let mut table = shards.lock(index);
    let scan = ScanContext::new(&shards.shared, caller);
    let used = table.used();
    let mut reclaimer = Reclaimer::new(&scan);
    let horizon = scan.cx.horizon();
    let waste = table.reclaim_waste(horizon, SPARSE_PART, &mut reclaimer);
    let bytes = waste.or_else(|| table.reclaim(force, &mut reclaimer));
    // Those that go together are about as old.
    if let Some(age) = reclaimer.age {
        caller.counters.eviction_age(age);
    }
    shards.shared.budget.used_changed(table.used() - used);
    bytes.map(|bytes| bytes as i64)
}

/// Judges the items of a unit that is taken apart, and counts those that go.
struct Reclaimer<'a> {
    scan: &'a ScanContext<'a>,
    /// For how long the first live item that went had not been used.
    age: Option<Seconds>,
}

impl<'a> Reclaimer<'a> {
    fn new(scan: &'a ScanContext<'a>) -> Self {
        Self { scan, age: None }
    }
}

impl Judge for Reclaimer<'_> {
    fn dead(&self, key: &[u8], facts: &Facts) -> Option<Dead> {
        self.scan.dead(key, facts)
    }

    fn gone(&mut self, item: Gone<'_>) {
        let Gone { key, facts, value_len, why } = item;
        let cx = &self.scan.cx;
        let unfetched = u64::from(!facts.is(FETCHED));
        if let Some(why) = why {
            cx.count(Counter::Reclaimed);
            cx.counters.add(Counter::ExpiredUnfetched, u64::from(why == Dead::Expired) * unfetched);
            return;
        }
        cx.count(Counter::Evictions);
        cx.counters.add(Counter::EvictedUnfetched, unfetched);
        tell_eviction(cx, key, facts, value_len);
        self.age = self.age.or(Some(cx.now.saturating_sub(facts.accessed)));
    }
}

/// Whether there is room for a new item. A cache that evicts makes it afterwards.
#[inline]
pub(super) fn has_room(
    table: &mut Table,
    rq: &Request<'_>,
    flags: u32,
    value_len: usize,
    exptime: Exptime,
) -> bool {
    let budget = &rq.cx.shared.budget;
    let growth = |table: &mut Table| {
        // The widest token, which is not drawn yet.
        let (cas, exptime) = (u64::MAX, rq.ends(exptime));
        let facts = Facts { cas, flags, exptime, accessed: rq.cx.now, stamp: rq.stamp() };
        table.growth(&facts, rq.key.bytes.len(), value_len) as i64
    };
    budget.evict || !budget.is_over(growth(table))
}
