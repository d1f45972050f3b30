//! What counts for a command, and for who looks at a whole shard.

use std::sync::Arc;

use crate::clock::Seconds;
use crate::item::Exptime;
use crate::stats::{Counter, Counters};
use crate::store::caller::Caller;
use crate::store::facts::{Dead, Facts, KEY_BINARY, MARKS};
use crate::store::floors::Floors;
use crate::store::generation::{self, Span};
use crate::store::lookup::Lookup;
use crate::store::shared::Shared;

/// A [`Caller`], and what counted when the shard's lock was taken.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) shared: &'a Shared,
    pub(super) now: Seconds,
    pub(super) counters: &'a Counters,
    pub(super) connection: u64,
    /// The newest generation.
    pub(super) current: u32,
    /// What was written in an older generation is dead.
    floor: u32,
}

impl<'a> Context<'a> {
    /// What counts for a command of this caller; to be asked under the lock of its key's shard.
    #[inline]
    pub(super) fn new(shared: &'a Shared, caller: &Caller<'a>) -> Self {
        let &Caller { now, counters, connection, since, .. } = caller;
        let Span { floor, current } = shared.generations.0.span(now);
        let floor = since.map_or(floor, |since| generation::later(floor, since));
        Self { shared, now, counters, connection, current, floor }
    }

    /// Why an item is dead, if it is.
    #[inline]
    pub(super) fn dead(&self, facts: &Facts) -> Option<Dead> {
        if generation::is_older(facts.stamp, generation::stamp(self.floor)) {
            Some(Dead::Flushed)
        } else if facts.exptime != 0 && facts.exptime <= self.now {
            Some(Dead::Expired)
        } else {
            None
        }
    }

    /// Whether what was written in this generation may live.
    pub(super) fn counts(&self, generation: u32) -> bool {
        generation::later(self.floor, generation) == generation
    }

    #[inline]
    pub(super) fn count(&self, counter: Counter) {
        self.counters.bump(counter);
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
    /// The stamp of what is written now under this key: the newest generation, and no mark but
    /// that of the key's form.
    #[inline]
    pub(super) fn stamp(&self) -> u32 {
        self.stamp_of(generation::stamp(self.cx.current))
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
    floors: Option<Arc<dyn Floors>>,
}

impl<'a> ScanContext<'a> {
    /// To be asked under the shard's lock. Of its keys `caller.since` says nothing.
    pub(super) fn new(shared: &'a Shared, caller: &Caller<'a>) -> Self {
        let cx = Context::new(shared, &Caller { since: None, ..*caller });
        Self { cx, floors: shared.floors.get() }
    }

    /// Why an item is dead, if it is.
    pub(super) fn dead(&self, key: &[u8], facts: &Facts) -> Option<Dead> {
        self.cx.dead(facts).or_else(|| {
            let floor = self.floors.as_ref()?.floor(key);
            let counts = floor.is_some_and(|floor| {
                let floor = generation::later(self.cx.floor, floor);
                !generation::is_older(facts.stamp, generation::stamp(floor))
            });
            (!counts).then_some(Dead::Flushed)
        })
    }
}
