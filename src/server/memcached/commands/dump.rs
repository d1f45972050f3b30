//! `lru_crawler metadump` and `mgdump`: every item of this node, part by part.

use crate::clock::{Clock, Seconds};
use crate::events::write_uri_encoded;
use crate::item::{ItemView, item_size};
use crate::protocol::admin::Crawler;
use crate::protocol::reply;
use crate::server::memcached::commands::scope::{Next, Scope};

/// Writes one part's items; returns what comes next.
pub(in crate::server::memcached) fn step(scope: &mut Scope<'_, '_>, kind: Crawler, part: usize) -> Next {
    let (store, now) = (&scope.context.store, scope.now());
    let out = &mut *scope.out;
    if part == store.part_count() {
        out.extend_from_slice(if kind == Crawler::KeyDump { b"EN\r\n" } else { b"END\r\n" });
        return Next::Read;
    }
    let mut line = String::new();
    store.walk(&scope.turn.caller(), part, |item| {
        line.clear();
        if kind == Crawler::KeyDump {
            out.extend_from_slice(b"mg ");
            reply::write_key_argument(out, item.key, item.key_binary);
            out.extend_from_slice(b"\r\n");
        } else {
            describe(&mut line, store.clock(), now, &item);
            out.extend_from_slice(line.as_bytes());
        }
    });
    Next::Dump(kind, part + 1)
}

/// A line of `lru_crawler metadump` (crawler.c, `crawler_metadump_eval`).
fn describe(line: &mut String, clock: &Clock, now: Seconds, item: &ItemView<'_>) {
    use std::fmt::Write as _;

    line.push_str("key=");
    write_uri_encoded(line, item.key);
    let exp = item.ttl_seconds.map_or(-1, |ttl| clock.unix(now + ttl) as i64);
    let last_access = clock.unix(now - item.idle_seconds);
    let fetch = if item.fetched { "yes" } else { "no" };
    let size = item_size(item.key.len(), item.value.len(), item.flags);
    // Writing to a String cannot fail.
    _ = writeln!(
        line,
        // After the last blank, memcached shows what is stored outside of memory.
        " exp={exp} la={last_access} cas={} fetch={fetch} cls=1 size={size} flags={} ",
        item.cas, item.flags
    );
}
