//! Items that move from one node's memory to another's, with everything that belongs to them.

use std::ops::ControlFlow;

use crate::command::Failure;
use crate::item::ItemView;
use crate::store::commands;
use crate::store::context::{Context, Request, ScanContext};
use crate::store::facts::{FETCHED, Facts, KEY_BINARY, LOADED, STALE, WIN_SENT};
use crate::store::generation::Generation;
use crate::store::{Before, Caller, Store};

/// An item, and what no client sees of it.
#[derive(Debug, Clone, Copy)]
pub struct MovingItem<'a> {
    /// Its key, value, client flags, CAS token and times.
    pub item: ItemView<'a>,
    /// Whether it is marked stale.
    pub stale: bool,
    /// Whether a client has won its refill.
    pub win_sent: bool,
    /// How often it was asked for, as far as that is counted; it stays longer for it.
    pub uses: u8,
    /// The generation it was written in. Each store counts its own: whoever brings an item of
    /// another node names the one that was the newest here when that node still had the item.
    pub generation: Generation,
}

/// What became of an item that was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It lies here now.
    Stored,
    /// A live item lies under its key, and stays.
    Present,
    /// A client has written or deleted something under its key since [`Store::expect_arrivals`].
    ///
    /// [`Store::expect_arrivals`]: crate::store::Store::expect_arrivals
    Overwritten,
    /// Its time is over, or its generation counts no more.
    Dead,
    /// It is too large here, or there is no room and none may be made.
    Refused(Failure),
}

impl Store {
    /// Whether a live item lies under a key.
    pub fn is_live(&self, caller: &Caller<'_>, key: &[u8]) -> bool {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let rq = Request { cx: Context::new(&self.shards.shared, caller), key, key_binary: false };
        commands::live(&mut table, &rq).is_some()
    }

    /// Takes the live item under a key out, which `show` is shown while it still lies here. Whether there was one. No command
    /// is counted.
    pub fn take(&self, caller: &Caller<'_>, key: &[u8], show: impl FnOnce(&MovingItem<'_>)) -> bool {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let before = Before::of(&table);
        let rq = Request { cx: Context::new(&self.shards.shared, caller), key, key_binary: false };
        let taken = commands::take(&mut table, &rq, show);
        self.count(&mut table, &before);
        taken
    }

    /// Takes live items of one part of the memory out: those for which `take`, to which each is shown, says so. It ends with the
    /// first for which that breaks off. The keys of a slot of a cluster lie in all parts. No command is counted.
    pub fn take_part(
        &self,
        caller: &Caller<'_>,
        part: usize,
        mut take: impl FnMut(&MovingItem<'_>) -> ControlFlow<(), bool>,
    ) {
        let (shard, piece) = self.shards.part(part);
        let mut table = self.shards.lock(shard);
        let before = Before::of(&table);
        let scan = ScanContext::new(&self.shards.shared, caller);
        table.take_out(piece, |key, facts, value, uses| match scan.dead(key, facts) {
            None => take(&MovingItem::new(&scan.cx, key, facts, value, uses)),
            Some(_) => ControlFlow::Continue(false),
        });
        self.count(&mut table, &before);
    }
}

impl<'a> MovingItem<'a> {
    /// As it lies here.
    pub(super) fn new(cx: &Context<'_>, key: &'a [u8], facts: &Facts, value: &'a [u8], uses: u64) -> Self {
        Self {
            item: facts.view(key, value, cx.now),
            stale: facts.is(STALE),
            win_sent: facts.is(WIN_SENT),
            uses: uses as u8,
            generation: Generation::of_stamp(facts.stamp, cx.current),
        }
    }

    /// As it is to lie here; `None` when it is dead. A generation that has not begun counts as
    /// the newest.
    pub(super) fn facts(&self, rq: &Request<'_>) -> Option<Facts> {
        let Self { item, stale, win_sent, generation, .. } = *self;
        let cx = &rq.cx;
        let generation = generation.earlier(cx.current);
        let marks = [
            (stale, STALE),
            (win_sent, WIN_SENT),
            (item.fetched, FETCHED),
            (item.key_binary, KEY_BINARY),
            (item.loaded, LOADED),
        ];
        let marks = marks.iter().filter(|(is, _)| *is).fold(0, |marks, (_, mark)| marks | mark);
        let facts = Facts {
            // Where it comes from, items may have no tokens.
            cas: cx.shared.new_cas(Some(item.cas).filter(|cas| *cas != 0)),
            flags: item.flags,
            exptime: item.ttl_seconds.map_or(0, |ttl| cx.now.saturating_add(ttl)),
            accessed: cx.now.saturating_sub(item.idle_seconds),
            stamp: generation.stamp() | marks,
        };
        (cx.counts(generation) && rq.dead(&facts).is_none()).then_some(facts)
    }
}
