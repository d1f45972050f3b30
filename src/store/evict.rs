//! Making room: which item gives way when the budget is used up.

use std::sync::atomic::Ordering;

use crate::stats::Counter;
use crate::store::{Caller, Store};

/// When over budget, one visit to a shard frees this much at once, so that a full cache does
/// not look for a victim at every write. More for a write of more: a 64th of it.
const BATCH_BYTES: i64 = 8 << 10;

/// One more shard is looked at for a victim for so many bytes of a usual item.
const CANDIDATE_BYTES: i64 = 1 << 10;

/// Shards that are looked at for one victim.
const CANDIDATES_MAX: i64 = 1 << 10;

/// A write frees at most twice what it took and this much: a budget that was lowered is
/// reached step by step, and no client waits for all of it.
const SLICE_BYTES: i64 = 64 << 10;

/// What [`Store::shrink`] frees in one step.
const SHRINK_BYTES: i64 = 1 << 20;

/// Who needs room, and how much.
pub(super) struct Need {
    /// The shard that was just written to.
    pub(super) written: Option<usize>,
    /// Bytes that it grew by.
    pub(super) grown: i64,
    /// Bytes of a usual item there.
    pub(super) mean_item: i64,
}

impl Store {
    /// One step towards a budget that was lowered; true while there is more to do.
    pub fn shrink(&self, caller: &Caller<'_>) -> bool {
        let need = Need { written: None, grown: SHRINK_BYTES / 2, mean_item: 0 };
        self.shared.evict && self.shared.over_budget(0) && self.make_room(caller, &need)
    }

    /// Frees memory until the budget holds again, or as much as one write has to: expired
    /// items first where there may be any, then the least recently used. Candidates are the
    /// shard just written to and the next ones of a hand that goes round; of these, the one
    /// with the oldest item gives way. Small items are many, and every shard's oldest is about
    /// as old; of large ones a shard has few, and it pays to look at more shards. False when
    /// there is nothing left to drop.
    pub(super) fn make_room(&self, caller: &Caller<'_>, need: &Need) -> bool {
        caller.counters.bump(Counter::DirectReclaims);
        let candidates = (need.mean_item / CANDIDATE_BYTES).clamp(2, CANDIDATES_MAX);
        let candidates = candidates.min(self.shards.len() as i64) as usize;
        let batch = BATCH_BYTES.max(need.grown / 64);
        let mut left = 2 * need.grown + SLICE_BYTES;
        let mut fruitless = 0;
        while left > 0 && self.shared.over_budget(0) {
            match self.victim(need.written, candidates) {
                Some(index) => {
                    left -= self.evict_from(caller, index, batch);
                    fruitless = 0;
                }
                // A few large items leave most shards empty: look round once before giving up.
                None if fruitless > self.shards.len() => return false,
                None => fruitless += candidates,
            }
        }
        true
    }

    /// The candidate with the oldest item.
    fn victim(&self, written: Option<usize>, candidates: usize) -> Option<usize> {
        let mask = self.shards.len() - 1;
        let hand = self.hand.fetch_add(candidates as u64, Ordering::Relaxed) as usize;
        let tails = (hand..hand + candidates).map(|index| index & mask).chain(written).filter_map(|index| {
            let shard = self.shards[index].lock();
            // What was just written must not be its own victim.
            let spared = written == Some(index) && shard.len() == 1;
            Some((index, shard.tail().filter(|_| !spared)?))
        });
        tails.min_by_key(|(_, tail)| (tail.accessed, tail.cas)).map(|(index, _)| index)
    }

    /// Drops dead items, then old ones, until so many bytes are free; how many it were. One
    /// goes in any case, and one stays where others went, which may be the one just written.
    fn evict_from(&self, caller: &Caller<'_>, index: usize, batch: i64) -> i64 {
        let mut shard = self.shards[index].lock();
        let survey = &self.shared.survey(caller);
        let used = shard.used();
        if shard.next_expiry() <= caller.now {
            let swept = shard.sweep(survey);
            caller.counters.add(Counter::Reclaimed, swept.dropped);
        }
        let mut age = None;
        while used - shard.used() < batch && shard.len() > 0 {
            let freed_some = shard.used() < used;
            if freed_some && shard.len() == 1 {
                break;
            }
            age = age.or(shard.evict(survey, &self.shared));
        }
        // Those that go together are about as old.
        if let Some(age) = age {
            caller.counters.eviction_age(age);
        }
        shard.fit();
        self.shared.used_changed(shard.used() - used);
        used - shard.used()
    }
}
