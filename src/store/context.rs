//! What counts for a command, and for code that looks at a whole shard.

use std::sync::Arc;

use crate::clock::Seconds;
use crate::item::Exptime;
use crate::stats::{Counter, Counters};
use crate::store::caller::Caller;
use crate::store::facts::{Dead, Facts, KEY_BINARY, MARKS};
use crate::store::generation::{self, Generation, Span};
use crate::store::lookup::Lookup;
use crate::store::min_generations::MinGenerations;
use crate::store::shared::Shared;
use crate::store::table::Horizon;

/// A [`Caller`], and what counted when the shard's lock was taken.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) shared: &'a Shared,
    pub(super) now: Seconds,
    pub(super) counters: &'a Counters,
    pub(super) connection: u64,
    /// Whether the command was executed and counted before.
    pub(super) repeats: bool,
    /// The newest generation.
    pub(super) current: Generation,
    /// What was written in an older generation is dead.
    floor: Generation,
}

impl<'a> Context<'a> {
    /// What counts for a command of this caller; to be asked under the lock of its key's shard.
    #[inline]
    pub(super) fn new(shared: &'a Shared, caller: &Caller<'a>) -> Self {
        let &Caller { now, counters, connection, repeats, min_generation, .. } = caller;
        let Span { floor, current } = shared.generations.0.span(now);
        let floor = min_generation.map_or(floor, |min| floor.later(min));
        Self { shared, now, counters, connection, repeats, current, floor }
    }

    /// Why an item is dead, if it is.
    #[inline]
    pub(super) fn dead(&self, facts: &Facts) -> Option<Dead> {
        if generation::is_older(facts.stamp, self.floor.stamp()) {
            Some(Dead::Flushed)
        } else if facts.exptime != 0 && facts.exptime <= self.now {
            Some(Dead::Expired)
        } else {
            None
        }
    }

    /// What is dead now under any key.
    pub(super) fn horizon(&self) -> Horizon {
        Horizon { now: self.now, floor: self.floor.stamp() }
    }

    /// Whether a load that began in this generation may still be joined, and its value stored.
    pub(super) fn admits_load(&self, generation: Generation) -> bool {
        self.counts(generation) && !self.shared.prefix_flushes.since(generation)
    }

    /// Whether what was written in this generation may live.
    pub(super) fn counts(&self, generation: Generation) -> bool {
        self.floor.later(generation) == generation
    }

    #[inline]
    pub(super) fn count(&self, counter: Counter) {
        if !self.repeats {
            self.counters.bump(counter);
        }
    }
}

/// A command's key, and what counts for it.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) cx: Context<'a>,
    pub(super) key: Lookup<'a>,
    /// Whether the key came base64-encoded.
    pub(super) key_binary: bool,
}

impl Request<'_> {
    /// Why an item under this key is dead, if it is.
    #[inline]
    pub(super) fn dead(&self, facts: &Facts) -> Option<Dead> {
        match self.cx.dead(facts) {
            None if self.cx.shared.prefix_flushes.cover(self.key.bytes, facts.stamp) => Some(Dead::Flushed),
            dead => dead,
        }
    }

    /// The stamp of what is written now under this key: the newest generation, and no mark but
    /// that of the key's form.
    #[inline]
    pub(super) fn stamp(&self) -> u32 {
        self.stamp_of(self.cx.current.stamp())
    }

    /// The stamp of what is made out of an item with this stamp: its generation, and no mark but
    /// that of the key's form.
    #[inline]
    pub(super) fn stamp_of(&self, stamp: u32) -> u32 {
        stamp & !MARKS | if self.key_binary { KEY_BINARY } else { 0 }
    }

    /// When something with this expiry time ends; 0 is never.
    #[inline]
    pub(super) fn ends(&self, exptime: Exptime) -> Seconds {
        self.cx.shared.clock.deadline(exptime, self.cx.now)
    }
}

/// What counts in a whole shard whose lock is held, key by key.
pub(super) struct ScanContext<'a> {
    pub(super) cx: Context<'a>,
    min_generations: Option<Arc<dyn MinGenerations>>,
}

impl<'a> ScanContext<'a> {
    /// To be asked under the shard's lock. Of its keys `caller.min_generation` says nothing.
    pub(super) fn new(shared: &'a Shared, caller: &Caller<'a>) -> Self {
        let cx = Context::new(shared, &Caller { min_generation: None, ..*caller });
        Self { cx, min_generations: shared.min_generations.get() }
    }

    /// Why an item is dead, if it is.
    pub(super) fn dead(&self, key: &[u8], facts: &Facts) -> Option<Dead> {
        if self.cx.shared.prefix_flushes.cover(key, facts.stamp) {
            return Some(Dead::Flushed);
        }
        self.cx.dead(facts).or_else(|| {
            let min = self.min_generations.as_ref()?.min_generation(key);
            let counts =
                min.is_some_and(|min| !generation::is_older(facts.stamp, self.cx.floor.later(min).stamp()));
            (!counts).then_some(Dead::Flushed)
        })
    }
}
