//! Items that move from one node's memory to another's, with everything that belongs to them.

use crate::command::Failure;
use crate::item::ItemView;
use crate::store::context::{Context, Request};
use crate::store::facts::{FETCHED, Facts, KEY_BINARY, LOADED, STALE, WIN_SENT};
use crate::store::generation::Generation;

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
