//! Looking for dead items, so that their memory comes back without being asked for.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stats::Counter;
use crate::store::caller::Caller;
use crate::store::context::ScanContext;
use crate::store::shards::Shards;
use crate::store::table::{Cursor, Swept, Table};

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
    let flushed = shared.prefix_flushes.want_full_sweep();
    let full = generations.wants_full_sweep() || min_generations.want_full_sweep() || flushed.is_some();
    let mut any = false;
    for table in &shards.tables {
        let mut cursor = Cursor::default();
        loop {
            let mut table = table.lock();
            let used = table.used();
            let scan = ScanContext::new(shared, caller);
            let Some(swept) = step(&mut table, &mut cursor, &scan, full) else { break };
            shared.note_growth(&mut table, used);
            drop(table);
            if !any {
                caller.counters.bump(Counter::CrawlerStarts);
                any = true;
            }
            caller.counters.add(Counter::CrawlerItemsChecked, swept.checked);
            caller.counters.add(Counter::CrawlerReclaimed, swept.dropped);
            if pace(swept.checked).is_break() {
                return false;
            }
        }
    }
    if full {
        generations.note_swept(began);
        min_generations.note_swept(times_set);
        if let Some(flushed) = flushed {
            shared.prefix_flushes.note_swept(flushed);
        }
    }
    true
}

/// One step of a sweep of a shard, which looks where something may be dead, or with `all` everywhere. `None` at its end.
pub(super) fn step(
    table: &mut Table,
    cursor: &mut Cursor,
    scan: &ScanContext<'_>,
    all: bool,
) -> Option<Swept> {
    let swept = table.sweep(cursor, scan.cx.horizon(), all, |key, facts| scan.dead(key, facts))?;
    scan.cx.counters.add(Counter::ExpiredUnfetched, swept.expired_unfetched);
    Some(swept)
}
