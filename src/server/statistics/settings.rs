//! `stats settings`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::server::ServerContext;
use crate::server::statistics::Sink;
use crate::tls::{self, MinVersion};

/// What memcached shows for a text that nobody has set.
const NO_TEXT: &str = "(null)";

/// `stats settings`, in memcached's order.
pub fn settings(context: &ServerContext, lines: &mut impl Sink) {
    let options = &context.options;
    let inter: Vec<_> = options.listen.iter().filter_map(|listen| listen.host.clone()).collect();
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "NULL".into());

    lines.stat("maxbytes", context.store.budget_bytes());
    lines.stat("maxconns", options.max_connections);
    lines.stat("tcpport", options.port);
    lines.stat("udpport", 0);
    lines.stat("inter", if inter.is_empty() { "NULL".into() } else { inter.join(",") });
    lines.stat("verbosity", context.verbosity.load(Ordering::Relaxed));
    lines.stat("oldest", 0);
    lines.stat("evictions", if context.store.evicts() { "on" } else { "off" });
    lines.stat("domain_socket", or_null(options.unix.as_ref().map(|unix| unix.path.display().to_string())));
    lines.stat("umask", format_args!("{:o}", options.unix.as_ref().map_or(0o700, |unix| unix.mode)));
    lines.stat("shutdown_command", yes_no(options.shutdown_allowed));
    lines.stat("growth_factor", "1.25");
    lines.stat("chunk_size", 48);
    lines.stat("num_threads", options.threads);
    lines.stat("num_threads_per_udp", 0);
    lines.stat("stat_key_prefix", char::from(context.prefixes.delimiter()));
    lines.stat("detail_enabled", yes_no(context.prefixes.enabled()));
    lines.stat("reqs_per_event", 20);
    lines.stat("cas_enabled", yes_no(context.store.has_cas()));
    lines.stat("tcp_backlog", options.backlog);
    lines.stat("binding_protocol", options.protocol.name());
    lines.stat("auth_enabled_sasl", yes_no(options.sasl));
    lines.stat(
        "auth_enabled_ascii",
        options.auth_file.as_ref().map_or_else(|| "no".into(), |path| path.display().to_string()),
    );
    lines.stat("item_size_max", context.store.item_size_max());
    lines.stat("maxconns_fast", yes_no(options.reject_over_limit));
    lines.stat("hashpower_init", 0);
    lines.stat("slab_reassign", "no");
    lines.stat("slab_automove", 0);
    lines.stat("lru_crawler", yes_no(context.store.sweep_enabled()));
    lines.stat("lru_crawler_sleep", 0);
    lines.stat("lru_crawler_tocrawl", 0);
    lines.stat("tail_repair_time", 0);
    lines.stat("flush_enabled", yes_no(options.flush_allowed));
    lines.stat("dump_enabled", yes_no(options.dump_allowed));
    lines.stat("watch_enabled", yes_no(options.watch_allowed));
    memory_settings(context, lines);
    tls_settings(lines, options.tls.as_ref());
    lines.stat("num_napi_ids", NO_TEXT);
    lines.stat("memory_file", NO_TEXT);
    lines.stat("client_flags_size", size_of::<u32>());
}

fn memory_settings(context: &ServerContext, lines: &mut impl Sink) {
    let options = &context.options;
    lines.stat("hash_algorithm", "foldhash");
    lines.stat("lru_maintainer_thread", "no");
    lines.stat("lru_segmented", "no");
    lines.stat("temp_lru", "no");
    lines.stat("idle_timeout", options.idle_timeout.map_or(0, |timeout| timeout.as_secs()));
    let [requests, replies] =
        [&context.requests, &context.replies].map(|quota| quota.usage().limit.unwrap_or(0));
    lines.stat("read_buf_mem_limit", requests);
    lines.stat("resp_obj_mem_limit", replies);
    lines.stat("track_sizes", "no");
    lines.stat("inline_ascii_response", "no");
    lines.stat("drop_privileges", "no");
}

fn tls_settings(lines: &mut impl Sink, tls: Option<&tls::Options>) {
    let path = |path: Option<&PathBuf>, none: &str| {
        path.map_or_else(|| none.to_owned(), |path| path.display().to_string())
    };
    lines.stat("ssl_enabled", yes_no(tls.is_some()));
    lines.stat("ssl_chain_cert", path(tls.map(|tls| &tls.chain_cert), NO_TEXT));
    lines.stat("ssl_key", path(tls.map(|tls| &tls.key), NO_TEXT));
    lines.stat("ssl_verify_mode", tls.map_or(0, |tls| tls.verify as u8));
    // SSL_FILETYPE_PEM; the library's own choice; a record at most; tickets.
    lines.stat("ssl_keyformat", 1);
    lines.stat("ssl_ciphers", "NULL");
    lines.stat("ssl_ca_cert", path(tls.and_then(|tls| tls.ca_cert.as_ref()), "NULL"));
    lines.stat("ssl_wbuf_size", 16384);
    lines.stat("ssl_session_cache", yes_no(tls.is_some()));
    lines.stat("ssl_kernel_tls", "no");
    lines.stat("ssl_min_version", tls.map_or(MinVersion::Tls12, |tls| tls.min_version).name());
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
