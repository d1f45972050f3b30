//! What is done to all items of a table, or to those that lie there longest.

use std::num::NonZeroUsize;

use crate::clock::Seconds;
use crate::store::facts::{Dead, FETCHED, Facts};
use crate::store::table::{Table, meter};

/// A table is fitted to its items when there are fewer than this part of what there were.
const FIT_BELOW: usize = 8;

/// A capacity that is never reached, and is not [`NonZeroUsize::MAX`].
const UNBOUNDED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(usize::MAX - 2);

/// What [`Table::sweep`] saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Swept {
    pub(in crate::store) checked: u64,
    pub(in crate::store) dropped: u64,
    /// Of those, the expired ones that nobody had asked for.
    pub(in crate::store) expired_unfetched: u64,
}

impl Table {
    /// Drops every item that `dead` says is dead.
    pub(in crate::store) fn sweep(&mut self, dead: impl Fn(&[u8], &Facts) -> Option<Dead>) -> Swept {
        let checked = self.items.len() as u64;
        let mut next_expiry = Seconds::MAX;
        let mut expired_unfetched = 0;
        self.metered(|table| {
            table.items.retain(|key, item| match dead(key.bytes(), &item.facts) {
                Some(why) => {
                    expired_unfetched += u64::from(why == Dead::Expired && !item.facts.is(FETCHED));
                    false
                }
                None => {
                    if item.facts.exptime != 0 {
                        next_expiry = next_expiry.min(item.facts.exptime);
                    }
                    true
                }
            });
        });
        self.next_expiry = next_expiry;
        self.fit();
        Swept { checked, dropped: checked - self.items.len() as u64, expired_unfetched }
    }

    /// Gives back what the table takes for items that are gone, once those are most.
    pub(in crate::store) fn fit(&mut self) {
        if self.items.len() < self.most / FIT_BELOW {
            self.most = self.items.len();
            // Shrinks its table at every change of the capacity, which has no meaning here.
            let other = if self.items.cap() == NonZeroUsize::MAX { UNBOUNDED } else { NonZeroUsize::MAX };
            self.metered(|table| table.items.resize(other));
        }
    }

    /// The key and the facts of the item that was used longest ago.
    pub(in crate::store) fn oldest(&self) -> Option<(&[u8], &Facts)> {
        self.items.peek_lru().map(|(key, item)| (key.bytes(), &item.facts))
    }

    /// Drops the item that was used longest ago, once `show` has seen its key, its facts and how
    /// many bytes its value has; `None` when there is none.
    pub(in crate::store) fn evict<R>(&mut self, show: impl FnOnce(&[u8], &Facts, usize) -> R) -> Option<R> {
        let (key, item) = self.items.peek_lru()?;
        // Outside the meter: what `show` allocates is no item's memory.
        let shown = show(key.bytes(), &item.facts, item.value.len());
        let before = meter::balance();
        drop(self.items.pop_lru());
        self.used += meter::balance() - before;
        Some(shown)
    }

    /// Shows every item's key, facts and value, most recently used first.
    pub(in crate::store) fn walk(&self, mut show: impl FnMut(&[u8], &Facts, &[u8])) {
        for (key, item) in &self.items {
            show(key.bytes(), &item.facts, &item.value);
        }
    }
}
