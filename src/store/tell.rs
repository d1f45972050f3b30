//! What watchers are told of items, in memcached's words (logger.c).

use crate::command::{Delete, Failure, Outcome, Set};
use crate::events::{Kinds, write_uri_encoded};
use crate::store::context::{Context, Request};
use crate::store::facts::{FETCHED, Facts};
use crate::store::shared::Shared;

/// An item was looked for.
#[inline]
pub(super) fn tell_get(rq: &Request<'_>, status: &str, size: usize) {
    let Request { cx, key, .. } = rq;
    if cx.shared.events.watched(Kinds::FETCHERS) {
        cx.shared.events.tell(Kinds::FETCHERS, |line| {
            line.push_str("type=item_get key=");
            write_uri_encoded(line, key.bytes);
            let class = u8::from(status == "found");
            line.push_str(&format!(" status={status} clsid={class} cfd={} size={size}", cx.connection));
        });
    }
}

/// A live item gives way; its value has `size` bytes.
pub(super) fn tell_eviction(cx: &Context<'_>, key: &[u8], facts: &Facts, size: usize) {
    if cx.shared.events.watched(Kinds::EVICTIONS) {
        cx.shared.events.tell(Kinds::EVICTIONS, |line| {
            line.push_str("type=eviction key=");
            write_uri_encoded(line, key);
            let fetch = if facts.is(FETCHED) { "yes" } else { "no" };
            let ttl = facts.ttl(cx.now).map_or(-1, i64::from);
            let idle = cx.now.saturating_sub(facts.accessed);
            line.push_str(&format!(" fetch={fetch} ttl={ttl} la={idle} clsid=1 size={size}"));
        });
    }
}

/// What came of a command that would write a value.
#[inline]
pub(super) fn tell_set(rq: &Request<'_>, set: &Set<'_>, outcome: &Outcome<'_>) {
    if rq.cx.shared.events.watched(Kinds::MUTATIONS) {
        tell_watched_set(rq, set, outcome);
    }
}

#[cold]
fn tell_watched_set(rq: &Request<'_>, set: &Set<'_>, outcome: &Outcome<'_>) {
    let Context { shared, now, connection, .. } = rq.cx;
    match outcome {
        &Outcome::Failed(why) => tell_unstored(shared, connection, rq.key.bytes, set.name(), why),
        Outcome::Stored(item) => tell_stored(rq, set.name(), item.ttl_seconds, item.value_len),
        refused => {
            let exptime = shared.clock.deadline(set.exptime, now);
            tell_mutation(rq, (refused.name(), set.name()), exptime.saturating_sub(now), set.value.len());
        }
    }
}

/// What lies there now, by this command: seconds until it ends, and its bytes.
pub(super) fn tell_stored(rq: &Request<'_>, command: &str, ttl: Option<u32>, size: usize) {
    tell_mutation(rq, ("stored", command), ttl.unwrap_or(0), size);
}

fn tell_mutation(rq: &Request<'_>, (status, command): (&str, &str), ttl: u32, size: usize) {
    let Request { cx, key, .. } = rq;
    if cx.shared.events.watched(Kinds::MUTATIONS) {
        cx.shared.events.tell(Kinds::MUTATIONS, |line| {
            line.push_str("type=item_store key=");
            write_uri_encoded(line, key.bytes);
            line.push_str(&format!(
                " status={status} cmd={command} ttl={ttl} clsid=1 cfd={} size={size}",
                cx.connection
            ));
        });
    }
}

/// A value that was too large, or that there was no room for: `command` would have written it.
pub(super) fn tell_unstored(shared: &Shared, connection: u64, key: &[u8], command: &str, why: Failure) {
    if shared.events.watched(Kinds::MUTATIONS) {
        shared.events.tell(Kinds::MUTATIONS, |line| {
            let status = Outcome::Failed(why).name();
            line.push_str("type=item_store key=");
            write_uri_encoded(line, key);
            line.push_str(&format!(" status={status} cmd={command} ttl=0 clsid=0 cfd={connection} size=0"));
        });
    }
}

/// An item was removed, or its value was: this many bytes.
pub(super) fn tell_deletion(rq: &Request<'_>, delete: &Delete, size: usize) {
    let Request { cx, key, .. } = rq;
    if cx.shared.events.watched(Kinds::DELETIONS) {
        cx.shared.events.tell(Kinds::DELETIONS, |line| {
            let command = if delete.meta { "md" } else { "delete" };
            line.push_str("type=deleted key=");
            write_uri_encoded(line, key.bytes);
            line.push_str(&format!(" cmd={command} clsid=1 size={size}"));
        });
    }
}
