//! Looking for dead items, so that their memory comes back without being asked for.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::stats::Counter;
use crate::store::{Caller, Store};

impl Store {
    /// Sweeps the shards in which something may be dead, one lock at a time, and drops what
    /// is. `pace` is called between shards with the items checked since the last call, may
    /// sleep there, and may break off. Returns whether it went through.
    pub fn sweep(&self, caller: &Caller<'_>, pace: impl FnMut(u64) -> ControlFlow<()>) -> bool {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return false;
        }
        let through = self.sweep_shards(caller, pace);
        self.sweeping.store(false, Ordering::Release);
        through
    }

    /// Sweeps where no more generations may begin without. Waits for nobody: a sweep that goes
    /// on meanwhile may rest for long.
    pub(super) fn sweep_overdue(&self, caller: &Caller<'_>) {
        if self.shared.generations.0.is_overdue() {
            self.sweep_shards(caller, |_| ControlFlow::Continue(()));
        }
    }

    fn sweep_shards(&self, caller: &Caller<'_>, mut pace: impl FnMut(u64) -> ControlFlow<()>) -> bool {
        let (generations, floors) = (&self.shared.generations.0, &self.shared.floors);
        let times_set = floors.times_set();
        // A delayed flush may have come due with nobody asking for anything since.
        let began = generations.span(caller.now);
        let full = generations.wants_full_sweep() || floors.want_full_sweep();
        let mut any = false;
        for shard in &self.shards {
            let mut shard = shard.lock();
            if !full && shard.next_expiry() > caller.now {
                continue;
            }
            if !any {
                caller.counters.bump(Counter::CrawlerStarts);
                any = true;
            }
            let used = shard.used();
            let swept = shard.sweep(&self.shared.survey(caller));
            self.shared.used_changed(shard.used() - used);
            drop(shard);
            caller.counters.add(Counter::CrawlerItemsChecked, swept.checked);
            caller.counters.add(Counter::CrawlerReclaimed, swept.dropped);
            if pace(swept.checked).is_break() {
                return false;
            }
        }
        if full {
            generations.note_swept(began);
            floors.note_swept(times_set);
        }
        true
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
