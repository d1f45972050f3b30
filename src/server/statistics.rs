//! This node's statistics: memcached's fields, with true values, for `stats`, other nodes and JSON. What memcached counts
//! and this server does not have (slabs, segments of an LRU) is 0.

mod groups;
mod settings;

use std::fmt::{self, Display};
use std::sync::atomic::Ordering;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::clock::Seconds;
use crate::protocol::COMPATIBLE_VERSION;
use crate::protocol::reply::write_line;
use crate::server::ServerContext;
use crate::stats::{Counter, Snapshot};

pub(super) use groups::{groups, why};
pub(super) use settings::settings;

/// memcached's page size; `stats slabs` shows memory as a number of such pages.
const PAGE_BYTES: u64 = 1 << 20;

/// Bytes of a slot of the index.
const SLOT_BYTES: u64 = 8;

/// Takes statistics, one after the other.
pub(super) trait Sink {
    /// Takes the next one.
    fn take(&mut self, name: fmt::Arguments<'_>, value: fmt::Arguments<'_>);

    /// Takes the next one.
    fn stat(&mut self, name: impl Display, value: impl Display)
    where
        Self: Sized,
    {
        self.take(format_args!("{name}"), format_args!("{value}"));
    }
}

/// Lines of `stats`.
pub(super) struct Lines<'a>(pub(super) &'a mut Vec<u8>);

impl Sink for Lines<'_> {
    fn take(&mut self, name: fmt::Arguments<'_>, value: fmt::Arguments<'_>) {
        write_line(self.0, &format!("STAT {name} {value}"));
    }
}

impl Lines<'_> {
    pub(super) fn end(self) {
        write_line(self.0, "END");
    }
}

impl Sink for Vec<(String, String)> {
    fn take(&mut self, name: fmt::Arguments<'_>, value: fmt::Arguments<'_>) {
        self.push((name.to_string(), value.to_string()));
    }
}

/// Writes the lines of `tell`, and their end.
pub(super) fn write(out: &mut Vec<u8>, tell: impl FnOnce(&mut Lines<'_>)) {
    let mut lines = Lines(out);
    tell(&mut lines);
    lines.end();
}

fn seconds(time: TimeVal) -> String {
    format!("{}.{:06}", time.tv_sec(), time.tv_usec())
}

/// The general statistics as names and values, for other nodes and for JSON.
pub(super) fn general_stats(context: &ServerContext) -> Vec<(String, String)> {
    let mut stats = Vec::new();
    general(context, context.store.clock().now(), &mut stats);
    stats
}

/// `stats` without a group, in memcached's order.
pub(super) fn general(context: &ServerContext, now: Seconds, lines: &mut impl Sink) {
    let counts = context.registry.since_reset();
    process(context, now, lines);
    connection_counts(context, &counts, lines);
    command_counts(context, &counts, lines);
    // Takes the lock of every shard.
    let items = context.store.len() as u64;
    threads(context, &counts, lines);
    memory(context, &counts, items, lines);
    if let Some(certificates) = &context.certificates {
        counter(lines, &counts, Counter::TlsFailures);
        lines.stat("time_since_server_cert_refresh", certificates.age().as_secs());
    }
}

fn counter(lines: &mut impl Sink, counts: &Snapshot, counter: Counter) {
    lines.stat(counter.stats_name(), counts.get(counter));
}

fn process(context: &ServerContext, now: Seconds, lines: &mut impl Sink) {
    let clock = context.store.clock();
    lines.stat("pid", std::process::id());
    lines.stat("uptime", clock.uptime());
    lines.stat("time", clock.unix(now));
    lines.stat("version", COMPATIBLE_VERSION);
    lines.stat("filbert_version", env!("CARGO_PKG_VERSION"));
    lines.stat("pointer_size", usize::BITS);
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        lines.stat("rusage_user", seconds(usage.user_time()));
        lines.stat("rusage_system", seconds(usage.system_time()));
    }
}

fn connection_counts(context: &ServerContext, counts: &Snapshot, lines: &mut impl Sink) {
    lines.stat("max_connections", context.connections.max());
    lines.stat("curr_connections", context.connections.open());
    counter(lines, counts, Counter::TotalConnections);
    counter(lines, counts, Counter::RejectedConnections);
    lines.stat("connection_structures", context.connections.open());
    let (requests, replies) = (context.requests.usage(), context.replies.usage());
    lines.stat("response_obj_oom", replies.refused);
    lines.stat("response_obj_count", replies.holders);
    lines.stat("response_obj_bytes", replies.bytes);
    lines.stat("read_buf_count", requests.holders);
    lines.stat("read_buf_bytes", requests.bytes);
    // Nothing is kept for later.
    lines.stat("read_buf_bytes_free", 0);
    lines.stat("read_buf_oom", requests.refused);
    lines.stat("reserved_fds", 0);
}

fn command_counts(context: &ServerContext, counts: &Snapshot, lines: &mut impl Sink) {
    use Counter as C;

    for each in [
        C::CmdGet,
        C::CmdSet,
        C::CmdFlush,
        C::CmdTouch,
        C::CmdMeta,
        C::GetHits,
        C::GetMisses,
        C::GetExpired,
        C::GetFlushed,
        C::DeleteMisses,
        C::DeleteHits,
        C::IncrMisses,
        C::IncrHits,
        C::DecrMisses,
        C::DecrHits,
        C::CasMisses,
        C::CasHits,
        C::CasBadval,
        C::TouchHits,
        C::TouchMisses,
        C::StoreTooLarge,
        C::StoreNoMemory,
        C::UnavailableReads,
        C::UnavailableWrites,
        C::AuthCmds,
        C::AuthErrors,
    ] {
        counter(lines, counts, each);
    }
    if context.options.idle_timeout.is_some() {
        counter(lines, counts, C::IdleKicks);
    }
    counter(lines, counts, C::BytesRead);
    counter(lines, counts, C::BytesWritten);
}

fn threads(context: &ServerContext, counts: &Snapshot, lines: &mut impl Sink) {
    use Counter as C;

    let store = &context.store;
    let index_bytes = store.index_bytes();
    let (sent, skipped) = context.events.sent_and_skipped();
    lines.stat("limit_maxbytes", store.budget_bytes());
    lines.stat("accepting_conns", u8::from(context.connections.accepting.load(Ordering::Relaxed)));
    counter(lines, counts, C::ListenDisabled);
    counter(lines, counts, C::ListenDisabledMicros);
    lines.stat("threads", context.options.threads);
    counter(lines, counts, C::ConnYields);
    lines.stat("hash_power_level", (index_bytes / SLOT_BYTES).max(1).ilog2());
    lines.stat("hash_bytes", index_bytes);
    lines.stat("hash_is_expanding", 0);
    for absent in [
        "slab_reassign_rescues",
        "slab_reassign_chunk_rescues",
        "slab_reassign_evictions_nomem",
        "slab_reassign_inline_reclaim",
        "slab_reassign_busy_items",
        "slab_reassign_busy_deletes",
        "slab_reassign_busy_nomem",
        "slab_reassign_running",
        "slabs_moved",
    ] {
        lines.stat(absent, 0);
    }
    lines.stat("slab_reassign_last_busy_status", "none");
    lines.stat("lru_crawler_running", u8::from(store.is_sweeping()));
    counter(lines, counts, C::CrawlerStarts);
    lines.stat("lru_maintainer_juggles", 0);
    lines.stat("malloc_fails", 0);
    lines.stat("log_worker_dropped", 0);
    lines.stat("log_worker_written", sent);
    lines.stat("log_watcher_skipped", skipped);
    lines.stat("log_watcher_sent", sent);
    lines.stat("log_watchers", context.events.watchers());
    lines.stat("unexpected_napi_ids", 0);
    lines.stat("round_robin_fallback", 0);
}

fn memory(context: &ServerContext, counts: &Snapshot, items: u64, lines: &mut impl Sink) {
    use Counter as C;

    let store = &context.store;
    lines.stat("bytes", store.item_bytes());
    lines.stat("curr_items", items);
    counter(lines, counts, C::TotalItems);
    lines.stat("slab_global_page_pool", 0);
    counter(lines, counts, C::ExpiredUnfetched);
    counter(lines, counts, C::EvictedUnfetched);
    lines.stat("evicted_active", 0);
    counter(lines, counts, C::Evictions);
    lines.stat("reclaimed", counts.reclaimed());
    counter(lines, counts, C::CrawlerReclaimed);
    counter(lines, counts, C::CrawlerItemsChecked);
    for absent in ["lrutail_reflocked", "moves_to_cold", "moves_to_warm", "moves_within_lru"] {
        lines.stat(absent, 0);
    }
    counter(lines, counts, C::DirectReclaims);
    lines.stat("lru_bumps_dropped", 0);
}

pub(super) fn items(context: &ServerContext, now: Seconds, lines: &mut impl Sink) {
    use Counter as C;

    let counts = context.registry.since_reset();
    let items = context.store.len();
    if items > 0 {
        let age = context.store.age(now);
        for (name, value) in [
            ("number", items as u64),
            ("number_hot", 0),
            ("number_warm", 0),
            ("number_cold", items as u64),
            ("age_hot", 0),
            ("age_warm", 0),
            ("age", u64::from(age)),
            ("mem_requested", context.store.item_bytes()),
            ("evicted", counts.get(C::Evictions)),
            ("evicted_nonzero", 0),
            ("evicted_time", u64::from(if counts.get(C::Evictions) > 0 { age } else { 0 })),
            ("outofmemory", counts.get(C::StoreNoMemory)),
            ("tailrepairs", 0),
            ("reclaimed", counts.reclaimed()),
            ("expired_unfetched", counts.get(C::ExpiredUnfetched)),
            ("evicted_unfetched", counts.get(C::EvictedUnfetched)),
            ("evicted_active", 0),
            ("crawler_reclaimed", counts.get(C::CrawlerReclaimed)),
            ("crawler_items_checked", counts.get(C::CrawlerItemsChecked)),
            ("lrutail_reflocked", 0),
            ("moves_to_cold", 0),
            ("moves_to_warm", 0),
            ("moves_within_lru", 0),
            ("direct_reclaims", counts.get(C::DirectReclaims)),
            ("hits_to_hot", 0),
            ("hits_to_warm", 0),
            ("hits_to_cold", counts.get(C::GetHits)),
            ("hits_to_temp", 0),
        ] {
            lines.stat(format_args!("items:1:{name}"), value);
        }
    }
}

pub(super) fn slabs(context: &ServerContext, lines: &mut impl Sink) {
    use Counter as C;

    let counts = context.registry.since_reset();
    let items = context.store.len() as u64;
    let bytes = context.store.item_bytes();
    let pages = bytes.div_ceil(PAGE_BYTES);
    // The one class has chunks of the mean size, and no more of them than items.
    if let Some(mean) = bytes.checked_div(items) {
        let chunk_size = mean.max(1);
        for (name, value) in [
            ("chunk_size", chunk_size),
            ("chunks_per_page", (PAGE_BYTES / chunk_size).max(1)),
            ("total_pages", pages),
            ("total_chunks", items),
            ("used_chunks", items),
            ("free_chunks", 0),
            ("free_chunks_end", 0),
            ("mem_requested", bytes),
            ("get_hits", counts.get(C::GetHits)),
            ("cmd_set", counts.get(C::CmdSet)),
            ("delete_hits", counts.get(C::DeleteHits)),
            ("incr_hits", counts.get(C::IncrHits)),
            ("decr_hits", counts.get(C::DecrHits)),
            ("cas_hits", counts.get(C::CasHits)),
            ("cas_badval", counts.get(C::CasBadval)),
            ("touch_hits", counts.get(C::TouchHits)),
        ] {
            lines.stat(format_args!("1:{name}"), value);
        }
    }
    lines.stat("active_slabs", u8::from(items > 0));
    lines.stat("total_malloced", pages * PAGE_BYTES);
}

/// `asking` is the connection that wants to know.
pub(super) fn connections(context: &ServerContext, asking: u64, now: Seconds, lines: &mut impl Sink) {
    context.connections.each_listener(|id, name| {
        lines.stat(format_args!("{id}:addr"), name);
        lines.stat(format_args!("{id}:state"), "conn_listening");
        lines.stat(format_args!("{id}:secs_since_last_cmd"), 0);
    });
    context.connections.each(|connection| {
        let id = connection.id;
        let state = if id == asking { "conn_parse_cmd" } else { connection.state().name() };
        lines.stat(format_args!("{id}:addr"), &connection.peer);
        lines.stat(format_args!("{id}:listen_addr"), &connection.listen);
        lines.stat(format_args!("{id}:state"), state);
        lines.stat(format_args!("{id}:secs_since_last_cmd"), now.saturating_sub(connection.last_command()));
    });
}
