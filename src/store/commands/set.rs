//! `ms`, `set`, `add`, `replace`, `append`, `prepend`, `cas`: what is written where.

use crate::command::{Set, SetMode};
use crate::item::item_size;
use crate::stats::Counter;
use crate::store::commands::decision::{Answer, Decision, Effect, NewItem, Plain};
use crate::store::context::Request;
use crate::store::facts::{Facts, NewValue, STALE, WIN_SENT};

/// A compare turns set and replace into cas (proto_text.c, process_mset_command).
#[inline]
pub(super) fn is_cas(set: &Set<'_>) -> bool {
    set.compare.is_some() && matches!(set.mode, SetMode::Set | SetMode::Replace)
}

/// What is written where there is no item.
pub(super) fn on_miss<'v>(rq: &Request<'_>, set: &Set<'v>) -> Result<NewItem<'v>, Plain> {
    if is_cas(set) {
        rq.cx.count(Counter::CasMisses);
        return Err(Plain::NotFound);
    }
    let exptime = match (set.mode, set.vivify) {
        (SetMode::Set | SetMode::Add, _) => set.exptime,
        (SetMode::Append | SetMode::Prepend, Some(vivify)) => vivify,
        _ => return Err(Plain::NotStored),
    };
    let facts = Facts {
        cas: rq.cx.shared.new_cas(set.new_cas),
        flags: set.flags,
        exptime: rq.ends(exptime),
        accessed: rq.cx.now,
        stamp: rq.stamp(),
    };
    Ok(NewItem { facts, value: set.value, received: set.received })
}

/// What becomes of an item that is there, whose value has `len` bytes.
// Called by itself, it costs each `set` some 60 instructions for what it hands over in memory; so does the next one.
#[inline(always)]
pub(super) fn on_item<'v>(rq: &Request<'_>, set: &Set<'v>, facts: &Facts, len: usize) -> Decision<'v> {
    // Every write looks at the item, though it may not come to pass.
    let facts = Facts { accessed: rq.cx.now, ..*facts };
    match write(rq, set, facts, len) {
        Ok((written, value)) => {
            let written = Facts { cas: rq.cx.shared.new_cas(set.new_cas), ..written };
            rq.cx.count(Counter::TotalItems);
            Decision { effect: Effect::Rewrite(written, value), answer: Answer::Stored(written) }
        }
        Err(why) => Decision { effect: Effect::Touch(facts), answer: Answer::Plain(why) },
    }
}

/// The new facts, but for the token, and the new value; or why nothing is written.
#[inline(always)]
fn write<'v>(
    rq: &Request<'_>,
    set: &Set<'v>,
    facts: Facts,
    len: usize,
) -> Result<(Facts, NewValue<'v>), Plain> {
    let is_stale = is_cas(set) && compare(rq, set, &facts)?;
    // What needed the old item is made out of it, and dies with it: whoever makes the old one
    // dead at this moment must not find it carried over.
    let needs_old = is_cas(set) || set.mode != SetMode::Set;
    let mut stamp = if needs_old { rq.stamp_of(facts.stamp) } else { rq.stamp() };
    if is_stale {
        stamp |= STALE | facts.stamp & WIN_SENT;
    }
    match set.mode {
        SetMode::Add => Err(Plain::NotStored),
        SetMode::Set | SetMode::Replace => {
            let exptime = if is_stale { facts.exptime } else { rq.ends(set.exptime) };
            Ok((Facts { flags: set.flags, exptime, stamp, ..facts }, NewValue::sent(set.value, set.received)))
        }
        SetMode::Append | SetMode::Prepend => {
            if set.compare.is_some_and(|compare| compare != 0 && compare != facts.cas) {
                return Err(Plain::Exists);
            }
            let value = match set.mode {
                SetMode::Append => NewValue::Appended(set.value),
                _ => NewValue::Prepended(set.value),
            };
            if item_size(rq.key.bytes.len(), value.len(len), facts.flags) > rq.cx.shared.item_size_max {
                return Err(Plain::NotStored);
            }
            Ok((Facts { stamp, ..facts }, value))
        }
    }
}

/// The compare of a cas; whether what is written is stale at once.
fn compare(rq: &Request<'_>, set: &Set<'_>, facts: &Facts) -> Result<bool, Plain> {
    let compare = set.compare.unwrap_or(0);
    let is_same = compare != 0 && compare == facts.cas;
    // An older token with I: the value is taken, but as a stale one.
    let is_stale = !is_same && set.invalidate && compare != 0 && compare < facts.cas;
    if is_same || is_stale {
        rq.cx.count(Counter::CasHits);
        Ok(is_stale)
    } else {
        rq.cx.count(Counter::CasBadval);
        Err(Plain::Exists)
    }
}
