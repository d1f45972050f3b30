//! `md`, `delete`: an item removed, emptied or marked stale.

use crate::command::{Delete, Set};
use crate::stats::Counter;
use crate::store::commands::decision::{Answer, Decision, Effect, Plain};
use crate::store::context::Request;
use crate::store::facts::{Facts, KEY_BINARY, MARKS, NewValue, STALE, WIN_SENT};
use crate::store::tell::{tell_deletion, tell_stored};

/// What becomes of an item whose value has `len` bytes.
pub(super) fn on_item(rq: &Request<'_>, delete: &Delete, facts: &Facts, len: usize) -> Decision<'static> {
    if delete.compare.is_some_and(|compare| compare != facts.cas) {
        rq.cx.count(Counter::DeleteMisses);
        return Decision::refuse(Plain::Exists);
    }
    let effect = effect(rq, delete, *facts);
    if let Effect::Rewrite(emptied, _) = &effect {
        tell_stored(rq, Set::PLAIN.name(), emptied.ttl(rq.cx.now), 0);
    }
    if !delete.invalidate {
        rq.cx.count(Counter::DeleteHits);
        tell_deletion(rq, delete, if delete.clear { 0 } else { len });
    }
    Decision { effect, answer: Answer::Plain(Plain::Deleted) }
}

fn effect(rq: &Request<'_>, delete: &Delete, mut facts: Facts) -> Effect<'static> {
    let ends = delete.touch.map(|touch| rq.ends(touch));
    if delete.clear {
        facts.flags = 0;
        facts.exptime = ends.unwrap_or(0);
        facts.stamp &= !MARKS | KEY_BINARY;
        facts.cas = rq.cx.shared.new_cas(delete.new_cas);
    }
    if delete.invalidate {
        facts.exptime = ends.unwrap_or(facts.exptime);
        facts.stamp = facts.stamp & !WIN_SENT | STALE;
        facts.cas = rq.cx.shared.new_cas(delete.new_cas);
    }
    match delete {
        Delete { clear: true, .. } => Effect::Rewrite(facts, NewValue::Bytes(&[])),
        Delete { invalidate: true, .. } => Effect::Touch(facts),
        _ => Effect::Remove,
    }
}
