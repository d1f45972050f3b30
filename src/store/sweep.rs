//! Looking for dead items, so that their memory comes back without being asked for.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stats::Counter;
use crate::store::caller::Caller;
use crate::store::context::ScanContext;
use crate::store::shards::Shards;
use crate::store::table::Table;

/// Sweeps a store, one sweep at a time.
pub(super) struct Sweeper {
    sweeping: AtomicBool,
    enabled: AtomicBool,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { sweeping: AtomicBool::new(false), enabled: AtomicBool::new(true) }
    }
}

impl Sweeper {
    /// Sweeps, unless a sweep goes on; whether it went through.
    pub(super) fn sweep(
        &self,
        shards: &Shards,
        caller: &Caller<'_>,
        pace: impl FnMut(u64) -> ControlFlow<()>,
    ) -> bool {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return false;
        }
        let through = sweep_shards(shards, caller, pace);
        self.sweeping.store(false, Ordering::Release);
        through
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(super) fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    pub(super) fn is_sweeping(&self) -> bool {
        self.sweeping.load(Ordering::Relaxed)
    }
}

/// Sweeps where no more generations may begin without. Waits for nobody: a sweep that goes
/// on meanwhile may rest for long.
pub(super) fn sweep_overdue(shards: &Shards, caller: &Caller<'_>) {
    if shards.shared.generations.0.is_overdue() {
        sweep_shards(shards, caller, |_| ControlFlow::Continue(()));
    }
}

fn sweep_shards(shards: &Shards, caller: &Caller<'_>, mut pace: impl FnMut(u64) -> ControlFlow<()>) -> bool {
    let shared = &shards.shared;
    let (generations, min_generations) = (&shared.generations.0, &shared.min_generations);
    let times_set = min_generations.times_set();
    // A delayed flush may have come due with nobody asking for anything since.
    let began = generations.span(caller.now);
    let full = generations.wants_full_sweep() || min_generations.want_full_sweep();
    let mut any = false;
    for table in &shards.tables {
        let mut table = table.lock();
        if !full && table.next_expiry() > caller.now {
            continue;
        }
        if !any {
            caller.counters.bump(Counter::CrawlerStarts);
            any = true;
        }
        let used = table.used();
        let checked = table.len() as u64;
        let dropped = drop_dead(&mut table, &ScanContext::new(shared, caller));
        shared.budget.used_changed(table.used() - used);
        drop(table);
        caller.counters.add(Counter::CrawlerItemsChecked, checked);
        caller.counters.add(Counter::CrawlerReclaimed, dropped);
        if pace(checked).is_break() {
            return false;
        }
    }
    if full {
        generations.note_swept(began);
        min_generations.note_swept(times_set);
    }
    true
}

/// Drops what is dead in one shard; how many items that were.
pub(super) fn drop_dead(table: &mut Table, scan: &ScanContext<'_>) -> u64 {
    let swept = table.sweep(|key, facts| scan.dead(key, facts));
    scan.cx.counters.add(Counter::ExpiredUnfetched, swept.expired_unfetched);
    swept.dropped
}
