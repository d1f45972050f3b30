//! Making room: which shard gives way when the budget is used up.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Seconds;
use crate::item::Exptime;
use crate::stats::Counter;
use crate::store::budget::{Budget, SLICE_BYTES};
use crate::store::caller::Caller;
use crate::store::context::{Request, ScanContext};
use crate::store::facts::{Dead, FETCHED, Facts};
use crate::store::generation::Span;
use crate::store::shards::Shards;
use crate::store::shared::Shared;
use crate::store::sweep;
use crate::store::table::{Cursor, Gone, Judge, KeyGroups, Partition, Portion, Table};
use crate::store::tell::tell_eviction;

/// Nothing is spared either while more is missing than this, or this part of the budget, beside what was just written and
/// what the budget was lowered by.
const MISSING_BYTES: i64 = 2 << 20;
const MISSING_PART: i64 = 32;

/// What a step towards a lower budget takes apart, beside [`SLICE_BYTES`], where no write asks for it.
const SHRINK_BYTES: i64 = 1 << 20;

/// Bytes that are taken apart, beside four times what is missing, before nothing in them is spared.
const PATIENCE_BYTES: i64 = 8 * SLICE_BYTES;

/// Items that a write looks at while the budget holds, but not by much,
pub(super) const ITEMS_AHEAD: usize = 64;
/// and while less than [`SLICE_BYTES`] is missing. Many items lie in a segment where they are small.
pub(super) const ITEMS_MISSING: usize = 512;

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
    /// The partition that is above its bound; `None` where that is the memory of the whole.
    pub(super) partition: Option<usize>,
    /// Items that are looked at, at most.
    pub(super) items: usize,
}

impl Need {
    /// Of a write to a shard, which grew it by so many bytes.
    pub(super) fn write(shard: usize, grown: i64, partition: Option<usize>) -> Self {
        Self { written: Some(shard), grown: grown.max(0), partition, items: usize::MAX }
    }

    /// Of a step for a value that is to come.
    pub(super) fn value(items: usize) -> Self {
        Self { written: None, grown: 0, partition: None, items }
    }

    /// Of one step towards a bound that was lowered.
    pub(super) fn step(partition: Option<usize>) -> Self {
        Self { written: None, grown: SHRINK_BYTES, partition, items: usize::MAX }
    }
}

/// Finds the shard that gives way.
#[derive(Default)]
pub(super) struct Evictor {
    /// Where the search goes on.
    hand: AtomicU64,
    /// One more than the number of a shard of which a segment was begun to be taken apart; 0 is none.
    begun: AtomicUsize,
    /// Bytes that were taken apart since there was room.
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
    /// Frees memory until the budget holds and more fits in, or as much as one write has to. First goes what is left of a
    /// segment that was begun. Else the partition gives way that is furthest above its share, and of it a shard that has at
    /// least its share: the one just written to, or the next one of a hand that goes round. So no flood of one group or
    /// shard empties the others. False when there is nothing left to drop.
    pub(super) fn make_room(&self, shards: &Shards, caller: &Caller<'_>, need: &Need) -> bool {
        let groups = shards.shared.groups();
        let goal = Goal::new(&shards.shared.budget, &groups, need.partition);
        let taken = goal.partition().map_or(&self.taken, |partition| &*partition.taken);
        let bearable = MISSING_BYTES.min(goal.limit() / MISSING_PART) + need.grown + goal.lowered();
        let (mut left, mut looked_at) = (need.grown + SLICE_BYTES, 0);
        let (mut fruitless, mut is_empty) = (0, false);
        caller.counters.add(Counter::DirectReclaims, u64::from(goal.missing() > 0));
        loop {
            let missing = goal.missing();
            if missing <= 0 {
                goal.note_reached();
            }
            let wanted = missing + goal.ahead();
            if wanted <= 0 {
                taken.store(0, Ordering::Relaxed);
                return true;
            }
            let most = goal.items(missing).min(need.items);
            if left <= 0 || looked_at >= most {
                return true;
            }
            let partition = goal.victim(is_empty);
            // In the shard just written to, there may be nothing but what was written.
            let written = need.written.filter(|_| fruitless == 0);
            let begun =
                self.begun.load(Ordering::Relaxed).checked_sub(1).filter(|_| need.partition.is_none());
            let victim = begun.or_else(|| self.victim(shards, goal.used_by(partition), partition, written));
            let force = taken.load(Ordering::Relaxed) >= PATIENCE_BYTES + 4 * wanted || missing > bearable;
            let took = if let Some(shard) = victim {
                let table =
                    if missing > 0 { Some(shards.lock(shard)) } else { shards.tables[shard].try_lock() };
                // It is not urgent, and somebody else is there.
                let Some(table) = table else { return true };
                let is_written = need.written == Some(shard);
                let most = most - looked_at;
                let eviction =
                    Eviction { table, shard, is_written, partition, only: need.partition, force, most };
                self.take(eviction, &shards.shared, caller)
            } else {
                None
            };
            match took {
                Some((bytes, items)) => {
                    looked_at += items;
                    left -= bytes;
                    taken.fetch_add(bytes, Ordering::Relaxed);
                }
                None if begun.is_some() => self.begun.store(0, Ordering::Relaxed),
                None if victim.is_some() && fruitless <= shards.len() => fruitless += 1,
                None if is_empty || need.partition.is_some() => return false,
                // Another partition gives way.
                None => (fruitless, is_empty) = (0, true),
            }
        }
    }

    /// Takes apart one unit, or a portion of it; how many bytes and items were looked at. `None` when there is none.
    fn take(&self, eviction: Eviction<'_>, shared: &Shared, caller: &Caller<'_>) -> Option<(i64, usize)> {
        let Eviction { mut table, shard, is_written, partition, only, force, most } = eviction;
        let scan = ScanContext::new(shared, caller);
        let used = table.used();
        let mut reclaimer = Reclaimer::new(&scan);
        let mut portion = Portion { horizon: scan.cx.horizon(), force, most };
        if !is_written {
            table.spare_nothing();
        }
        let begun = only.is_none().then(|| table.reclaim_begun(partition, &mut portion, &mut reclaimer));
        let bytes = begun
            .flatten()
            .or_else(|| table.reclaim_waste(only, SPARSE_PART, &mut portion, &mut reclaimer))
            .or_else(|| table.reclaim(partition, &mut portion, &mut reclaimer));
        // Those that go together are about as old.
        if let Some(age) = reclaimer.age {
            caller.counters.eviction_age(age);
        }
        shared.note_growth(&mut table, used);
        if table.has_begun(partition) {
            self.begun.store(shard + 1, Ordering::Relaxed);
        } else {
            _ = self.begun.compare_exchange(shard + 1, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        bytes.map(|bytes| (bytes as i64, most - portion.most))
    }

    /// A shard that has at least its share of the bytes that a partition takes, and an item of it.
    fn victim(&self, shards: &Shards, used: i64, partition: usize, written: Option<usize>) -> Option<usize> {
        let share = used / shards.len() as i64;
        let has_share = |index: &usize| {
            let table = shards.lock(*index);
            table.used_by(partition) >= share && table.has_items(partition)
        };
        if let Some(written) = written.filter(has_share) {
            return Some(written);
        }
        let mask = shards.len() - 1;
        let hand = self.hand.fetch_add(1, Ordering::Relaxed) as usize;
        let mut round = (hand..hand + shards.len()).map(|index| index & mask);
        let found = round.clone().find(has_share);
        // The shares have changed meanwhile, or one item takes more than all.
        found.or_else(|| round.find(|&index| shards.lock(index).has_items(partition)))
    }

    /// Where nothing may be evicted: looks for what is dead in all shards until there is room for so many bytes under a key.
    pub(super) fn find_room(&self, shards: &Shards, caller: &Caller<'_>, key: &[u8], bytes: i64) {
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
            let mut all = Portion { horizon, force: false, most: usize::MAX };
            while table.reclaim_waste(None, SPARSE_PART_FULL, &mut all, &mut Reclaimer::new(&scan)).is_some()
            {
            }
            shared.note_growth(&mut table, used);
            let is_over = shared.budget.is_over(bytes) || table.excess(key, bytes) > 0;
            drop(table);
            if !is_over {
                return;
            }
        }
        *self.fruitless.lock() = Some(present);
    }
}

/// What has to hold again.
struct Goal<'a> {
    budget: &'a Budget,
    groups: &'a KeyGroups,
    /// `None` where that is the budget.
    partition: Option<usize>,
}

impl<'a> Goal<'a> {
    fn new(budget: &'a Budget, groups: &'a KeyGroups, partition: Option<usize>) -> Self {
        // With other groups than those of the write, it may have gone.
        let partition = partition.filter(|partition| *partition < groups.partitions());
        Self { budget, groups, partition }
    }

    /// The partition whose bound has to hold again.
    fn partition(&self) -> Option<&'a Partition> {
        self.partition.map(|number| self.groups.partition(number))
    }

    fn missing(&self) -> i64 {
        self.partition().map_or_else(|| self.budget.missing(), Partition::missing)
    }

    fn limit(&self) -> i64 {
        self.partition().map_or_else(|| self.budget.limit_bytes(), Partition::limit)
    }

    /// Bytes that are to be free, so that what comes next need not wait for them.
    fn ahead(&self) -> i64 {
        if self.partition.is_some() { 0 } else { self.budget.ahead() }
    }

    /// Items that a write looks at for it.
    fn items(&self, missing: i64) -> usize {
        match missing {
            _ if self.partition.is_some() => usize::MAX,
            ..=0 => ITEMS_AHEAD,
            1..=SLICE_BYTES => ITEMS_MISSING,
            _ => usize::MAX,
        }
    }

    /// Bytes that are missing because somebody has lowered the budget.
    fn lowered(&self) -> i64 {
        if self.partition.is_some() { 0 } else { self.budget.lowered() }
    }

    fn note_reached(&self) {
        if self.partition.is_none() {
            self.budget.note_reached();
        }
    }

    /// The partition that gives way; another one where that has nothing left.
    fn victim(&self, has_nothing: bool) -> usize {
        // Somebody is above its share of what is left beside the room ahead.
        let limit = self.budget.limit_bytes() - self.budget.ahead();
        let used = self.budget.used_bytes() as i64 + self.budget.expected();
        match self.partition {
            Some(partition) => partition,
            None if has_nothing => self.groups.largest(used),
            None => self.groups.greediest(limit, used),
        }
    }

    /// Bytes that a partition takes. The first has all that the others do not have.
    fn used_by(&self, partition: usize) -> i64 {
        match partition {
            0 => self.budget.used_bytes() as i64 - self.groups.bounded_bytes(),
            _ => self.groups.partition(partition).used(),
        }
    }
}

/// What of a shard is taken apart.
struct Eviction<'a> {
    table: MutexGuard<'a, Table>,
    shard: usize,
    /// Whether it was just written to: that is spared then.
    is_written: bool,
    /// The partition that gives way.
    partition: usize,
    /// Where only memory of that partition helps.
    only: Option<usize>,
    /// Whether nothing in it is spared.
    force: bool,
    /// How many items are looked at.
    most: usize,
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
    let fits = |table: &mut Table| {
        // The widest token, which is not drawn yet.
        let (cas, exptime) = (u64::MAX, rq.ends(exptime));
        let facts = Facts { cas, flags, exptime, accessed: rq.cx.now, stamp: rq.stamp() };
        let growth = table.growth(&facts, rq.key.bytes, value_len) as i64;
        !budget.is_over(growth) && table.excess(rq.key.bytes, growth) <= 0
    };
    budget.evict || fits(table)
}
