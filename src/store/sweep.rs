//! Looking for dead items, so that their memory comes back without being asked for.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::{Caller, Store};
use crate::stats::Counter;

impl Store {
    /// Sweeps the shards in which something may be dead, one lock at a time, and drops what
    /// is. `pace` is called between shards with the items checked since the last call, may
    /// sleep there, and may break off. Returns whether it went through.
    pub fn sweep(&self, caller: &Caller<'_>, mut pace: impl FnMut(u64) -> ControlFlow<()>) -> bool {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return false;
        }
        let flush = &self.shared.flush.0;
        // A delayed flush may have come due with nobody asking for anything since.
        self.shared.generation(caller.now);
        let generation = flush.generation.load(Ordering::Acquire);
        let flushed = generation != flush.swept.load(Ordering::Relaxed);
        let mut through = true;
        let mut any = false;
        for shard in &self.shards {
            let mut shard = shard.lock();
            if !flushed && shard.next_expiry() > caller.now {
                continue;
            }
            if !any {
                caller.counters.bump(Counter::CrawlerStarts);
                any = true;
            }
            let used = shard.used();
            let swept = shard.sweep(&self.context(caller));
            self.shared.used_changed(shard.used() - used);
            drop(shard);
            caller.counters.add(Counter::CrawlerItemsChecked, swept.checked);
            caller.counters.add(Counter::CrawlerReclaimed, swept.dropped);
            if pace(swept.checked).is_break() {
                through = false;
                break;
            }
        }
        if through {
            flush.swept.store(generation, Ordering::Relaxed);
        }
        self.sweeping.store(false, Ordering::Release);
        through
    }

    /// Whether the background sweep runs (`lru_crawler enable`).
    pub fn sweep_enabled(&self) -> bool {
        self.sweep_enabled.load(Ordering::Relaxed)
    }

    /// Turns the background sweep on or off.
    pub fn enable_sweep(&self, enabled: bool) {
        self.sweep_enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether a sweep is going on.
    pub fn is_sweeping(&self) -> bool {
        self.sweeping.load(Ordering::Relaxed)
    }
}
