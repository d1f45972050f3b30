//! How any number of items are made dead at one stroke.

use crate::clock::Seconds;
use crate::item::Exptime;
use crate::stats::Counters;
use crate::store::prefix_flushes::TooManyFlushes;
use crate::store::{Caller, Generation, Store, sweep};

impl Store {
    /// Makes every item that is there now a miss, or every one that is there after `delay`.
    /// Costs the same however many there are; the memory comes back by sweeps and evictions.
    pub fn flush_all(&self, caller: &Caller<'_>, delay: Exptime) {
        let generations = &self.shards.shared.generations.0;
        // One that has come due unseen happens before this one takes its place.
        generations.span(caller.now);
        let due = self.shards.shared.clock.deadline(delay, caller.now);
        if due > caller.now {
            generations.flush_at(due);
        } else {
            generations.flush();
        }
        sweep::sweep_overdue(&self.shards, caller);
    }

    /// Makes every item that is there now under a key with this prefix a miss. Costs the same however many there are;
    /// the memory comes back by a sweep.
    ///
    /// # Errors
    /// Too many flushes of prefixes wait for the sweep.
    pub fn flush_prefix(&self, prefix: &[u8]) -> Result<(), TooManyFlushes> {
        let shared = &self.shards.shared;
        let flushed = shared.prefix_flushes.flush(prefix, || shared.generations.0.advance());
        self.sweep_overdue();
        flushed
    }

    /// When a delayed flush makes every item a miss that is there now; `None` where there is none.
    pub fn flush_due(&self) -> Option<Seconds> {
        self.shards.shared.generations.0.due()
    }

    /// Begins a new generation, which every value that is set from now on carries, and returns
    /// it, for [`Caller::min_generation`] and [`MinGenerations`](crate::store::MinGenerations). What is there stays.
    pub fn advance(&self) -> Generation {
        let generation = self.shards.shared.generations.0.advance();
        self.sweep_overdue();
        generation
    }

    /// Once in four million generations; nobody's to count.
    fn sweep_overdue(&self) {
        let counters = Counters::default();
        let caller = Caller::new(self.shards.shared.clock.now(), &counters, 0);
        sweep::sweep_overdue(&self.shards, &caller);
    }
}
