//! The metrics of groups.

use std::sync::atomic::Ordering;

use crate::groups::stats::Result;
use crate::groups::{Group, Groups};

pub(super) fn publish(groups: &Groups) {
    groups.iter().filter(|group| group.origin.is_some()).for_each(|group| publish_group(group));
}

fn publish_group(group: &Group) {
    let (name, stats) = (&group.options.name, &group.stats);
    for result in Result::ALL {
        let labels = [("group", name.clone()), ("result", result.name().to_owned())];
        metrics::counter!("filbert_group_loads_total", &labels).absolute(stats.loads(result));
    }
    for (result, count) in [
        ("miss", &stats.misses),
        ("negative", &stats.negative_hits),
        ("stale", &stats.stale),
        ("timeout", &stats.timeouts),
    ] {
        let labels = [("group", name.clone()), ("result", result.to_owned())];
        metrics::counter!("filbert_group_reads_total", &labels).absolute(count.load(Ordering::Relaxed));
    }
    for (metric, value) in [
        ("filbert_group_reads_waiting", stats.waiting.load(Ordering::Relaxed) as f64),
        ("filbert_group_loads_in_flight", stats.inflight.load(Ordering::Relaxed) as f64),
        ("filbert_group_origin_broken", f64::from(u8::from(group.is_broken()))),
    ] {
        metrics::gauge!(metric, "group" => name.clone()).set(value);
    }
}
