//! What is done to a whole shard: sweeps, dumps, evictions.

use std::num::NonZeroUsize;

use crate::clock::Seconds;
use crate::item::ItemView;
use crate::stats::Counter;
use crate::store::Shared;
use crate::store::entry::{Dead, FETCHED};
use crate::store::floors::Survey;
use crate::store::meter;
use crate::store::shard::Shard;
use crate::store::tell::tell_eviction;

/// A table is fitted to its items when there are fewer than this part of what there were.
const FIT_BELOW: usize = 8;

/// A capacity that is never reached, and is not [`NonZeroUsize::MAX`].
const UNBOUNDED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(usize::MAX - 2);

/// What [`Shard::sweep`] saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Swept {
    pub(in crate::store) checked: u64,
    pub(in crate::store) dropped: u64,
}

/// The oldest item of a shard, for choosing where to evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Tail {
    pub(in crate::store) accessed: Seconds,
    /// Orders what was written in the same second.
    pub(in crate::store) cas: u64,
}

impl Shard {
    /// Drops every dead item.
    pub(in crate::store) fn sweep(&mut self, survey: &Survey<'_>) -> Swept {
        let checked = self.items.len() as u64;
        let mut next_expiry = Seconds::MAX;
        let mut unfetched = 0;
        self.metered(|shard| {
            shard.items.retain(|key, item| match survey.dead(key.bytes(), item) {
                Some(why) => {
                    unfetched += u64::from(why == Dead::Expired && !item.is(FETCHED));
                    false
                }
                None => {
                    if item.exptime != 0 {
                        next_expiry = next_expiry.min(item.exptime);
                    }
                    true
                }
            });
        });
        self.next_expiry = next_expiry;
        self.fit();
        survey.cx.counters.add(Counter::ExpiredUnfetched, unfetched);
        Swept { checked, dropped: checked - self.items.len() as u64 }
    }

    /// Gives back what the table takes for items that are gone, once those are most.
    pub(in crate::store) fn fit(&mut self) {
        if self.items.len() < self.most / FIT_BELOW {
            self.most = self.items.len();
            // Shrinks its table at every change of the capacity, which has no meaning here.
            let other = if self.items.cap() == NonZeroUsize::MAX { UNBOUNDED } else { NonZeroUsize::MAX };
            self.metered(|shard| shard.items.resize(other));
        }
    }

    /// The item that was used longest ago.
    pub(in crate::store) fn tail(&self) -> Option<Tail> {
        self.items.peek_lru().map(|(_, item)| Tail { accessed: item.accessed, cas: item.cas })
    }

    /// Drops the least recently used item. For how long it had not been used; `None` when it was
    /// dead, or there is none.
    pub(in crate::store) fn evict(&mut self, survey: &Survey<'_>, shared: &Shared) -> Option<Seconds> {
        let (key, (item, len)) = self.metered(|shard| {
            let (key, mut item) = shard.items.pop_lru()?;
            // Only its length is still of interest; the bytes are given back within the meter.
            let len = std::mem::take(&mut item.value).len();
            Some((key, (item, len)))
        })?;
        let cx = &survey.cx;
        let is_dead = survey.dead(key.bytes(), &item).is_some();
        if is_dead {
            cx.counters.bump(Counter::Reclaimed);
        } else {
            cx.counters.bump(Counter::Evictions);
            cx.counters.add(Counter::EvictedUnfetched, u64::from(!item.is(FETCHED)));
            tell_eviction(cx, shared, key.bytes(), &item, len);
        }
        // A long key lies outside its entry; it is freed here, and counted like the rest.
        let before = meter::balance();
        drop(key);
        self.used += meter::balance() - before;
        (!is_dead).then(|| cx.now.saturating_sub(item.accessed))
    }

    /// Shows every item that counts, most recently used first.
    pub(in crate::store) fn walk(&self, survey: &Survey<'_>, mut show: impl FnMut(ItemView<'_>)) {
        for (key, item) in &self.items {
            if survey.dead(key.bytes(), item).is_none() {
                show(item.view(key.bytes(), survey.cx.now));
            }
        }
    }
}
