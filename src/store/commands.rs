//! memcached's rules, carried out: what lies under a key is looked up, the rule of the verb says
//! what becomes of it and what is answered, and the table does that.

mod arithmetic;
mod decision;
mod delete;
mod get;
mod number;
mod set;

use std::cell::OnceCell;

use crate::command::{Arithmetic, Delete, Failure, Get, Made, Outcome, Set, SetMode, Verb};
use crate::item::{Exptime, item_size};
use crate::stats::Counter;
use crate::store::commands::decision::{Decision, Effect, NewItem, Shown};
use crate::store::commands::number::Decimal;
use crate::store::context::Request;
use crate::store::evict::has_room;
use crate::store::facts::{Dead, FETCHED, Facts, KEY_BINARY, LOADED, NewValue};
use crate::store::load::{Load, LoadEnd, may_replace};
use crate::store::lookup::Lookup;
use crate::store::moving::{Arrival, MovingItem};
use crate::store::table::{Entry, Table};
use crate::store::tell::{tell_get, tell_set, tell_stored};

/// Executes a command, and hands what came of it to `reply` while the item lies still.
#[inline]
pub(super) fn execute<R>(
    table: &mut Table,
    rq: &Request<'_>,
    verb: &Verb<'_>,
    reply: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    match verb {
        Verb::Get(get) => read(table, rq, get, reply),
        Verb::Set(set) => store(table, rq, set, reply),
        Verb::Delete(delete) => remove(table, rq, delete, reply),
        Verb::Arithmetic(sum) => add(table, rq, sum, reply),
        Verb::Inspect => inspect(table, rq, reply),
    }
}

#[inline]
fn read<R>(table: &mut Table, rq: &Request<'_>, get: &Get, reply: impl FnOnce(Outcome<'_>) -> R) -> R {
    let (requests, hits, misses) = match get.touch {
        None => (Counter::CmdGet, Counter::GetHits, Counter::GetMisses),
        Some(_) => (Counter::CmdTouch, Counter::TouchHits, Counter::TouchMisses),
    };
    rq.cx.count(requests);
    let dead = match table.find(&rq.key) {
        None => None,
        Some(mut entry) => match rq.dead(entry.facts()) {
            None => {
                rq.cx.count(hits);
                if !rq.cx.repeats {
                    entry.note_hit(rq.key.bytes);
                }
                tell_get(rq, "found", entry.value_len());
                let (shown, after) = get::on_item(rq, get, entry.facts());
                if get.bump {
                    entry.promote();
                }
                entry.update(after);
                let (value, shared) = entry.into_shared();
                let mut found = shown.found(rq, value);
                found.item.shared = shared;
                return reply(Outcome::Found(found));
            }
            Some(why) => Some((why, *entry.facts())),
        },
    };
    if let Some((why, facts)) = dead {
        rq.cx.count(if why == Dead::Expired { Counter::GetExpired } else { Counter::GetFlushed });
        bury(table, rq, why, &facts);
    }
    rq.cx.count(misses);
    if !rq.cx.repeats {
        table.note_read(rq.key.bytes, false);
    }
    tell_get(rq, dead.map_or("not_found", |(why, _)| why.name()), 0);
    reply(vivify(table, rq, get))
}

/// A miss, which may make the item.
fn vivify<'a>(table: &mut Table, rq: &Request<'a>, get: &Get) -> Outcome<'a> {
    let Some(made) = Made::new(get.vivify, get.touch, get.touch_last) else { return Outcome::NotFound };
    if let Err(why) = admit(table, rq, 0, 0, made.ends) {
        return Outcome::Failed(why);
    }
    let (shown, item) = get::on_miss(rq, get, made);
    insert(table, rq, &item);
    Outcome::Found(shown.found(rq, item.value))
}

#[inline]
fn store<R>(table: &mut Table, rq: &Request<'_>, set: &Set<'_>, reply: impl FnOnce(Outcome<'_>) -> R) -> R {
    rq.cx.count(Counter::CmdSet);
    let reply = |outcome: Outcome<'_>| {
        if !set::is_cas(set) {
            match outcome {
                Outcome::Stored(_) => rq.cx.count(Counter::Stored),
                Outcome::NotStored | Outcome::Exists => rq.cx.count(Counter::NotStored),
                _ => {}
            }
        }
        tell_set(rq, set, &outcome);
        reply(outcome)
    };
    if let Err(why) = admit(table, rq, set.flags, set.value.len(), set.exptime) {
        drop_unstored(table, &rq.key, set.mode);
        return reply(Outcome::Failed(why));
    }
    let on_miss = |table: &mut Table| match set::on_miss(rq, set) {
        Ok(item) => {
            insert(table, rq, &item);
            Outcome::Stored(item.facts.view(rq.key.bytes, item.value, rq.cx.now))
        }
        Err(why) => why.outcome(),
    };
    let on_item = |entry: &Entry<'_>| set::on_item(rq, set, entry.facts(), entry.value_len());
    change(table, rq, on_item, on_miss, reply)
}

fn remove<R>(
    table: &mut Table,
    rq: &Request<'_>,
    delete: &Delete,
    reply: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    let on_miss = |_: &mut Table| {
        rq.cx.count(Counter::DeleteMisses);
        Outcome::NotFound
    };
    let on_item = |entry: &Entry<'_>| delete::on_item(rq, delete, entry.facts(), entry.value_len());
    change(table, rq, on_item, on_miss, reply)
}

fn add<R>(table: &mut Table, rq: &Request<'_>, sum: &Arithmetic, reply: impl FnOnce(Outcome<'_>) -> R) -> R {
    let digits = OnceCell::new();
    let on_item = |entry: &Entry<'_>| arithmetic::on_item(rq, sum, entry.facts(), entry.value(), &digits);
    change(table, rq, on_item, |table: &mut Table| create(table, rq, sum, &digits), reply)
}

/// A miss, which may make the number: to limits and watchers that is an `add`.
fn create<'v>(
    table: &mut Table,
    rq: &Request<'v>,
    sum: &Arithmetic,
    digits: &'v OnceCell<Decimal>,
) -> Outcome<'v> {
    let Some(made) = Made::new(sum.vivify, sum.touch, sum.touch_last) else {
        rq.cx.count(if sum.decrement { Counter::DecrMisses } else { Counter::IncrMisses });
        return Outcome::NotFound;
    };
    let value = digits.get_or_init(|| Decimal::new(sum.initial)).as_bytes();
    let add = Set { mode: SetMode::Add, value, ..Set::PLAIN };
    if let Err(why) = admit(table, rq, add.flags, value.len(), made.ends) {
        tell_set(rq, &add, &Outcome::Failed(why));
        return Outcome::Failed(why);
    }
    tell_get(rq, "not_found", 0);
    let (shown, item) = arithmetic::on_miss(rq, sum, made, value);
    insert(table, rq, &item);
    tell_stored(rq, add.name(), item.facts.ttl(rq.cx.now), value.len());
    Outcome::Found(shown.found(rq, value))
}

/// `me`: looks, and touches nothing.
fn inspect<R>(table: &mut Table, rq: &Request<'_>, reply: impl FnOnce(Outcome<'_>) -> R) -> R {
    match table.find(&rq.key) {
        Some(entry) if rq.dead(entry.facts()).is_none() => {
            let shown = Shown::marked(*entry.facts());
            reply(Outcome::Found(shown.found(rq, entry.into_value())))
        }
        _ => reply(Outcome::NotFound),
    }
}

/// Stores an item that comes from another node as it was there, unless a live one is here.
pub(super) fn arrive(table: &mut Table, rq: &Request<'_>, moving: &MovingItem<'_>) -> Arrival {
    let Some(facts) = moving.facts(rq) else { return Arrival::Dead };
    if table.writes().was_written(rq.key.hash) {
        return Arrival::Overwritten;
    }
    if find_live(table, rq).is_some() {
        return Arrival::Present;
    }
    if let Err(why) = admit_moving(table, rq, moving) {
        return Arrival::Refused(why);
    }
    table.insert_used(&rq.key, facts, NewValue::Bytes(moving.item.value), moving.uses.into());
    Arrival::Stored
}

/// Takes out the live item under a key, which `show` is shown.
pub(super) fn take(table: &mut Table, rq: &Request<'_>, show: impl FnOnce(&MovingItem<'_>)) -> bool {
    let Some(entry) = table.find(&rq.key) else { return false };
    let facts = *entry.facts();
    let is_live = rq.dead(&facts).is_none();
    if is_live {
        show(&MovingItem::new(&rq.cx, rq.key.bytes, &facts, entry.value(), entry.uses()));
    }
    entry.remove();
    is_live
}

/// Stores an item that was loaded, where there is none or the one that it `replaces`. That one goes, too, when the new one
/// cannot be stored.
pub(super) fn arrive_loaded(
    table: &mut Table,
    rq: &Request<'_>,
    loaded: &MovingItem<'_>,
    replaces: Option<u64>,
) -> LoadEnd {
    let Some(mut facts) = loaded.facts(rq) else { return LoadEnd::Overwritten };
    let there = find_live(table, rq);
    if !may_replace(there.as_ref(), replaces) {
        return LoadEnd::Overwritten;
    }
    if let Err(why) = admit_moving(table, rq, loaded) {
        table.remove(&rq.key);
        return LoadEnd::Refused(why);
    }
    facts.stamp |= there.map_or(0, |there| there.stamp & KEY_BINARY);
    let value = NewValue::sent(loaded.item.value, loaded.item.shared);
    match table.find(&rq.key) {
        Some(mut entry) => entry.rewrite(facts, value),
        None => table.insert(&rq.key, facts, value),
    }
    LoadEnd::Stored { cas: facts.cas }
}

/// Gives the item that a load was to replace as long to live as if it had been loaded anew; whether it is there. It stays
/// `loaded` as one would be.
pub(super) fn renew_loaded(
    table: &mut Table,
    rq: &Request<'_>,
    load: &Load,
    ttl_seconds: Option<u32>,
    loaded: bool,
) -> bool {
    let Some(mut entry) = table.find(&rq.key) else { return false };
    let there = *entry.facts();
    if rq.dead(&there).is_some() || !may_replace(Some(&there), load.replaces) {
        return false;
    }
    let marks = there.stamp & (FETCHED | KEY_BINARY) | if loaded { LOADED } else { 0 };
    entry.update(Facts {
        exptime: ttl_seconds.map_or(0, |ttl| rq.cx.now.saturating_add(ttl)),
        stamp: load.generation.stamp() | marks,
        ..there
    });
    true
}

/// What is known of the live item under a key.
pub(super) fn live(table: &mut Table, rq: &Request<'_>) -> Option<Facts> {
    table.find(&rq.key).map(|entry| *entry.facts()).filter(|facts| rq.dead(facts).is_none())
}

/// What is known of the live item under a key; a dead one is dropped.
fn find_live(table: &mut Table, rq: &Request<'_>) -> Option<Facts> {
    let there = *table.find(&rq.key)?.facts();
    match rq.dead(&there) {
        None => Some(there),
        Some(why) => {
            bury(table, rq, why, &there);
            None
        }
    }
}

/// Whether an item that comes from elsewhere may be stored.
fn admit_moving(table: &mut Table, rq: &Request<'_>, moving: &MovingItem<'_>) -> Result<(), Failure> {
    let MovingItem { item, .. } = moving;
    let exptime = item.ttl_seconds.map_or(Exptime::Never, Exptime::In);
    admit(table, rq, item.flags, item.value.len(), exptime)
}

/// Lets `on_item` decide what becomes of a live item, and `on_miss` act where there is none; a
/// dead item is dropped. Whatever comes of it, an item that is there counts as used.
#[inline]
fn change<'v, R>(
    table: &mut Table,
    rq: &Request<'v>,
    on_item: impl FnOnce(&Entry<'_>) -> Decision<'v>,
    on_miss: impl FnOnce(&mut Table) -> Outcome<'v>,
    reply: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    let dead = match table.find(&rq.key) {
        None => {
            tell_get(rq, "not_found", 0);
            None
        }
        Some(mut entry) => {
            let dead = rq.dead(entry.facts());
            tell_get(rq, dead.map_or("found", Dead::name), entry.value_len());
            match dead {
                None => {
                    entry.promote();
                    let Decision { effect, answer } = on_item(&entry);
                    match effect {
                        Effect::Nothing => {}
                        Effect::Touch(facts) => entry.update(facts),
                        Effect::Rewrite(facts, value) => entry.rewrite(facts, value),
                        Effect::Remove => {
                            entry.remove();
                            return reply(answer.outcome(rq, &[]));
                        }
                    }
                    return reply(answer.outcome(rq, entry.into_value()));
                }
                Some(why) => Some((why, *entry.facts())),
            }
        }
    };
    if let Some((why, facts)) = dead {
        bury(table, rq, why, &facts);
    }
    reply(on_miss(table))
}

/// Whether a value may be stored, by its size and by the room there is.
#[inline]
fn admit(
    table: &mut Table,
    rq: &Request<'_>,
    flags: u32,
    len: usize,
    exptime: Exptime,
) -> Result<(), Failure> {
    let key_len = rq.key.bytes.len();
    if item_size(key_len, len, flags) > rq.cx.shared.item_size_max {
        rq.cx.count(Counter::StoreTooLarge);
        Err(Failure::TooLarge)
    } else if !has_room(table, rq, flags, len, exptime) {
        rq.cx.count(Counter::StoreNoMemory);
        Err(Failure::OutOfMemory)
    } else {
        Ok(())
    }
}

/// A `set` that could not be stored drops the old value, or it would be served for ever as
/// if it were the last one written (proto_text.c, process_update_command).
pub(super) fn drop_unstored(table: &mut Table, key: &Lookup<'_>, mode: SetMode) {
    if mode == SetMode::Set {
        table.remove(key);
    }
}

fn insert(table: &mut Table, rq: &Request<'_>, item: &NewItem<'_>) {
    rq.cx.count(Counter::TotalItems);
    table.insert(&rq.key, item.facts, item.new_value());
}

/// Drops an item that was found dead.
fn bury(table: &mut Table, rq: &Request<'_>, why: Dead, facts: &Facts) {
    table.remove(&rq.key);
    rq.cx.counters.add(Counter::ExpiredUnfetched, u64::from(why == Dead::Expired && !facts.is(FETCHED)));
}
