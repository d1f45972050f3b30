//! `mg`, `get`, `gat`, `touch`: what reading an item does to it.

use crate::clock::Seconds;
use crate::command::{Get, Made};
use crate::store::commands::decision::{NewItem, Shown};
use crate::store::context::Request;
use crate::store::facts::{FETCHED, Facts, LOADED, STALE, WIN_SENT};

/// The item as its reader sees it, and its facts from now on.
#[inline]
pub(super) fn on_item(rq: &Request<'_>, get: &Get, facts: &Facts) -> (Shown, Facts) {
    let now = rq.cx.now;
    let (win_sent, stale) = (facts.is(WIN_SENT), facts.is(STALE));
    let mut shown = *facts;
    if let Some(touch) = get.touch {
        shown.exptime = rq.ends(touch);
        shown.stamp &= !LOADED;
    }
    // R is judged by the time that was left when its turn came among the flags, and the
    // reply shows the time left before and after T likewise.
    let judged = if get.recache_first { facts.exptime } else { shown.exptime };
    let won = get.wins && !win_sent && (stale || recaches(rq, get, judged));
    let mut after = shown;
    if won {
        after.stamp |= WIN_SENT;
    }
    if get.bump {
        after.stamp |= FETCHED;
        after.accessed = now;
    }
    let ttl_before = facts.ttl(now);
    (Shown { facts: shown, won, stale, win_sent, created: false, ttl_before }, after)
}

fn recaches(rq: &Request<'_>, get: &Get, exptime: Seconds) -> bool {
    let ends_before = |limit| exptime != 0 && exptime < rq.ends(limit);
    get.recache.is_some_and(ends_before)
}

/// The item that a miss makes with `N`, and as its reader sees it, who wins the refill.
pub(super) fn on_miss(rq: &Request<'_>, get: &Get, made: Made) -> (Shown, NewItem<'static>) {
    let cas = rq.cx.shared.new_cas(get.new_cas);
    let fresh = Facts { cas, flags: 0, exptime: rq.ends(made.ends), accessed: rq.cx.now, stamp: rq.stamp() };
    let facts = Facts { stamp: fresh.stamp | WIN_SENT | if get.bump { FETCHED } else { 0 }, ..fresh };
    let shown = Shown { won: true, ..Shown::made(rq, fresh, made) };
    (shown, NewItem { facts, value: &[], received: None })
}
