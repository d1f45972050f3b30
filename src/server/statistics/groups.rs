//! `stats groups`, and what `why` says of a key's group.

use std::sync::atomic::Ordering;

use crate::cache::loads::Loads;
use crate::cache::turn::Turn;
use crate::groups::Group;
use crate::groups::stats::Result;
use crate::server::statistics::Sink;
use crate::store::{GroupUse, Store};

/// Tells of every group, in the order of their names.
pub fn groups(loads: &Loads, store: &Store, lines: &mut impl Sink) {
    let uses = store.group_uses();
    let groups = loads.groups();
    lines.stat("groups", groups.iter().count());
    lines.stat("groups_digest", format_args!("{:016x}", groups.digest()));
    let mut sorted: Vec<_> = groups.iter().collect();
    sorted.sort_by_key(|group| &group.options.name);
    for group in sorted {
        tell(group, uses.get(&*group.options.prefix), lines);
    }
}

fn tell(group: &Group, memory: Option<&GroupUse>, lines: &mut impl Sink) {
    let name = &group.options.name;
    let mut stat =
        |what: &str, value: &dyn std::fmt::Display| lines.stat(format_args!("{name}:{what}"), value);
    stat("prefix", &group.options.prefix.escape_ascii());
    let GroupUse { items, bytes, hits, misses, evictions } = memory.copied().unwrap_or_default();
    stat("curr_items", &items);
    stat("bytes", &bytes);
    if let Some(most) = group.options.max_bytes {
        stat("limit_maxbytes", &most);
    }
    stat("evictions", &evictions);
    stat("hits", &hits);
    stat("misses", &misses);
    let Some(origin) = &group.options.origin else { return stat("origin", &"none") };
    stat("origin", &origin.kind());
    stat("origin_broken", &u8::from(group.is_broken()));
    let stats = &group.stats;
    for (what, count) in [
        ("negative_hits", &stats.negative_hits),
        ("stale", &stats.stale),
        ("timeouts", &stats.timeouts),
        ("waiting", &stats.waiting),
        ("inflight", &stats.inflight),
    ] {
        stat(what, &count.load(Ordering::Relaxed));
    }
    for result in Result::ALL {
        stat(&format!("loads_{}", result.name()), &stats.loads(result));
    }
    let latency = stats.latency();
    for (what, part) in [("load_p50_us", 0.5), ("load_p99_us", 0.99)] {
        // The distribution tells seconds.
        let micros = latency.quantile(part).map_or(0, |seconds| (seconds * 1e6) as u64);
        stat(what, &micros);
    }
}

/// Tells which group a key belongs to, and with a turn of its owner, what has become of its loads.
pub fn why(loads: &Loads, store: &Store, turn: Option<&mut Turn<'_>>, key: &[u8], lines: &mut impl Sink) {
    let groups = loads.groups();
    let Some(group) = groups.find(key) else { return };
    lines.stat("group", &group.options.name);
    if let Some(origin) = &group.options.origin {
        lines.stat("origin", origin);
        lines.stat("origin_broken", if group.is_broken() { "yes" } else { "no" });
        if let Some(turn) = turn {
            lines.stat("loading", if store.is_loading(key) { "yes" } else { "no" });
            lines.stat("negative", if loads.is_negative(store, key) { "yes" } else { "no" });
            if let Some(left) = turn.loaded_seconds_left(key) {
                tell_life(group, left.into(), lines);
            }
        }
    }
}

/// Of a loaded value that is kept for so many seconds: how old it is, give or take the jitter, and when its time is over.
fn tell_life(group: &Group, left: u64, lines: &mut impl Sink) {
    let (own, stale) = (group.options.own_ttl().unwrap_or_default(), group.options.stale_span());
    let fresh = left.saturating_sub(stale.as_secs());
    lines.stat("stale", if fresh == 0 { "yes" } else { "no" });
    lines.stat("fresh_seconds_left", fresh);
    lines.stat("age", (own + stale).as_secs().saturating_sub(left));
}
