//! The names of Prometheus' memcached_exporter, so that dashboards and alerts made for it still work
//! (memcached_exporter, pkg/exporter/exporter.go). Values are true. A memcached counter that has no meaning here is
//! left out, as the exporter leaves out a value that a server does not send.

use std::sync::atomic::Ordering;

use nix::sys::resource::{UsageWho, getrusage};

use crate::protocol::COMPATIBLE_VERSION;
use crate::server::ServerContext;
use crate::stats::{Counter as C, Snapshot};

/// Counters by what they are called there.
const COUNTERS: [(&str, C); 17] = [
    ("memcached_read_bytes_total", C::BytesRead),
    ("memcached_written_bytes_total", C::BytesWritten),
    ("memcached_connections_total", C::TotalConnections),
    ("memcached_connections_rejected_total", C::RejectedConnections),
    ("memcached_connections_yielded_total", C::ConnYields),
    ("memcached_connections_listener_disabled_total", C::ListenDisabled),
    ("memcached_items_total", C::TotalItems),
    ("memcached_items_evicted_total", C::Evictions),
    ("memcached_item_too_large_total", C::StoreTooLarge),
    ("memcached_item_no_memory_total", C::StoreNoMemory),
    ("memcached_direct_reclaims_total", C::DirectReclaims),
    ("memcached_lru_crawler_starts_total", C::CrawlerStarts),
    ("memcached_lru_crawler_reclaimed_total", C::CrawlerReclaimed),
    ("memcached_lru_crawler_items_checked_total", C::CrawlerItemsChecked),
    ("memcached_slab_items_evicted_total", C::Evictions),
    ("memcached_slab_items_evicted_unfetched_total", C::EvictedUnfetched),
    ("memcached_slab_items_expired_unfetched_total", C::ExpiredUnfetched),
];

/// Commands and their outcomes.
const COMMANDS: [(&str, &str, C); 14] = [
    ("get", "hit", C::GetHits),
    ("get", "miss", C::GetMisses),
    ("delete", "hit", C::DeleteHits),
    ("delete", "miss", C::DeleteMisses),
    ("incr", "hit", C::IncrHits),
    ("incr", "miss", C::IncrMisses),
    ("decr", "hit", C::DecrHits),
    ("decr", "miss", C::DecrMisses),
    ("cas", "hit", C::CasHits),
    ("cas", "miss", C::CasMisses),
    ("cas", "badval", C::CasBadval),
    ("touch", "hit", C::TouchHits),
    ("touch", "miss", C::TouchMisses),
    ("flush", "hit", C::CmdFlush),
];

pub(super) fn publish(context: &ServerContext, counts: &Snapshot) {
    let (store, clock) = (&context.store, context.store.clock());
    for (name, counter) in COUNTERS {
        let slab = name.starts_with("memcached_slab_");
        let labels = [("slab", "1")];
        metrics::counter!(name, &labels[..usize::from(slab)]).absolute(counts.get(counter));
    }
    for (command, status, counter) in COMMANDS {
        commands(command, status, counts.get(counter));
    }
    metrics::counter!("memcached_items_reclaimed_total").absolute(counts.reclaimed());
    // memcached counts cas among the sets, and the exporter takes it out again.
    let cas = counts.get(C::CasHits) + counts.get(C::CasMisses) + counts.get(C::CasBadval);
    commands("set", "hit", counts.get(C::CmdSet).saturating_sub(cas));

    metrics::counter!("memcached_uptime_seconds").absolute(clock.uptime().into());
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec()).unwrap_or(0);
        metrics::counter!("memcached_process_user_cpu_seconds_total").absolute(seconds(usage.user_time()));
        metrics::counter!("memcached_process_system_cpu_seconds_total")
            .absolute(seconds(usage.system_time()));
    }
    let accepting = context.connections.accepting.load(Ordering::Relaxed);
    for (name, value) in [
        ("memcached_up", 1.0),
        ("memcached_time_seconds", clock.unix(clock.now()) as f64),
        ("memcached_current_bytes", store.item_bytes() as f64),
        ("memcached_limit_bytes", store.budget_bytes() as f64),
        ("memcached_malloced_bytes", store.used_bytes() as f64),
        ("memcached_current_items", store.len() as f64),
        ("memcached_current_connections", context.connections.open() as f64),
        ("memcached_max_connections", context.connections.max() as f64),
        ("memcached_accepting_connections", f64::from(u8::from(accepting))),
        ("memcached_lru_crawler_enabled", f64::from(u8::from(store.sweep_enabled()))),
    ] {
        metrics::gauge!(name).set(value);
    }
    for (name, value) in [
        ("memcached_slab_current_items", store.len() as f64),
        ("memcached_slab_items_age_seconds", f64::from(store.age(clock.now()))),
        ("memcached_slab_mem_requested_bytes", store.item_bytes() as f64),
    ] {
        metrics::gauge!(name, "slab" => "1").set(value);
    }
    metrics::gauge!("memcached_version", "version" => COMPATIBLE_VERSION).set(1.0);
}

fn commands(command: &'static str, status: &'static str, count: u64) {
    metrics::counter!("memcached_commands_total", "command" => command, "status" => status).absolute(count);
}
