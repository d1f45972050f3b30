//! What watchers are told of items, in memcached's words (logger.c).

use crate::clock::Seconds;
use crate::command::{Delete, Failure, Outcome, Set};
use crate::events::{Kinds, write_uri_encoded};
use crate::store::entry::{FETCHED, Item};
use crate::store::{Context, Shared};

pub(super) fn tell_get(cx: &Context<'_>, shared: &Shared, key: &[u8], status: &str, size: usize) {
    if shared.events.watched(Kinds::FETCHERS) {
        shared.events.tell(Kinds::FETCHERS, |line| {
            line.push_str("type=item_get key=");
            write_uri_encoded(line, key);
            let class = u8::from(status == "found");
            line.push_str(&format!(" status={status} clsid={class} cfd={} size={size}", cx.connection));
        });
    }
}

pub(super) fn tell_eviction(cx: &Context<'_>, shared: &Shared, key: &[u8], item: &Item, size: usize) {
    if shared.events.watched(Kinds::EVICTIONS) {
        shared.events.tell(Kinds::EVICTIONS, |line| {
            line.push_str("type=eviction key=");
            write_uri_encoded(line, key);
            let fetch = if item.is(FETCHED) { "yes" } else { "no" };
            let ttl = if item.exptime == 0 { -1 } else { i64::from(item.exptime.saturating_sub(cx.now)) };
            let idle = cx.now.saturating_sub(item.accessed);
            line.push_str(&format!(" fetch={fetch} ttl={ttl} la={idle} clsid=1 size={size}"));
        });
    }
}

/// Why a `set` stored nothing.
pub(super) fn tell_refused(
    cx: &Context<'_>,
    shared: &Shared,
    key: &[u8],
    outcome: &Outcome<'_>,
    set: &Set<'_>,
) {
    if let &Outcome::Failed(why) = outcome {
        return tell_unstored(shared, cx.connection, key, set.name(), why);
    }
    let exptime = shared.clock.deadline(set.exptime, cx.now);
    tell_mutation(cx, shared, key, (outcome.name(), set.name()), exptime, set.value.len());
}

/// What lies there now, by this command: when it ends, and its bytes.
pub(super) fn tell_stored(
    cx: &Context<'_>,
    shared: &Shared,
    key: &[u8],
    command: &str,
    (exptime, size): (Seconds, usize),
) {
    tell_mutation(cx, shared, key, ("stored", command), exptime, size);
}

fn tell_mutation(
    cx: &Context<'_>,
    shared: &Shared,
    key: &[u8],
    (status, command): (&str, &str),
    exptime: Seconds,
    size: usize,
) {
    if shared.events.watched(Kinds::MUTATIONS) {
        shared.events.tell(Kinds::MUTATIONS, |line| {
            let ttl = exptime.saturating_sub(cx.now);
            line.push_str("type=item_store key=");
            write_uri_encoded(line, key);
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

pub(super) fn tell_deletion(shared: &Shared, key: &[u8], delete: &Delete, size: usize) {
    if shared.events.watched(Kinds::DELETIONS) {
        shared.events.tell(Kinds::DELETIONS, |line| {
            let command = if delete.meta { "md" } else { "delete" };
            line.push_str("type=deleted key=");
            write_uri_encoded(line, key);
            line.push_str(&format!(" cmd={command} clsid=1 size={size}"));
        });
    }
}
