//! The metrics of groups.

use std::sync::atomic::Ordering;

use crate::groups::stats::Result;
use crate::groups::{Group, Groups};
use crate::store::{GroupUse, Store};

pub(super) fn publish(groups: &Groups, store: &Store) {
    let uses = store.group_uses();
    for group in groups.iter() {
        publish_memory(group, uses.get(&*group.options.prefix).copied().unwrap_or_default());
        if group.origin.is_some() {
            publish_loads(group);
        }
    }
}

fn publish_memory(group: &Group, memory: GroupUse) {
    let name = &group.options.name;
    let GroupUse { items, bytes, hits, misses, evictions } = memory;
    publish_reads(name, [("hit", hits), ("miss", misses)]);
    metrics::counter!("filbert_group_evictions_total", "group" => name.clone()).absolute(evictions);
    metrics::gauge!("filbert_group_items", "group" => name.clone()).set(items as f64);
    metrics::gauge!("filbert_group_item_bytes", "group" => name.clone()).set(bytes as f64);
    if let Some(most) = group.options.max_bytes {
        metrics::gauge!("filbert_group_limit_bytes", "group" => name.clone()).set(most as f64);
    }
}

fn publish_reads(name: &str, counts: impl IntoIterator<Item = (&'static str, u64)>) {
    for (result, count) in counts {
        let labels = [("group", name.to_owned()), ("result", result.to_owned())];
        metrics::counter!("filbert_group_reads_total", &labels).absolute(count);
    }
}

fn publish_loads(group: &Group) {
    let (name, stats) = (&group.options.name, &group.stats);
    for result in Result::ALL {
        let labels = [("group", name.clone()), ("result", result.name().to_owned())];
        metrics::counter!("filbert_group_loads_total", &labels).absolute(stats.loads(result));
    }
    let counts = [("negative", &stats.negative_hits), ("stale", &stats.stale), ("timeout", &stats.timeouts)];
    publish_reads(name, counts.map(|(result, count)| (result, count.load(Ordering::Relaxed))));
    for (metric, value) in [
        ("filbert_group_reads_waiting", stats.waiting.load(Ordering::Relaxed) as f64),
        ("filbert_group_loads_in_flight", stats.inflight.load(Ordering::Relaxed) as f64),
        ("filbert_group_origin_broken", f64::from(u8::from(group.is_broken()))),
    ] {
        metrics::gauge!(metric, "group" => name.clone()).set(value);
    }
}
