//! Commands that are not about one key: tuning, watching, stopping.

use std::sync::atomic::Ordering;

use crate::events::Kinds;
use crate::item::Exptime;
use crate::protocol::COMPATIBLE_VERSION;
use crate::protocol::admin::{AdminCommand, Crawler, names_our_class};
use crate::protocol::error::ProtocolError;
use crate::protocol::token::Tokens;
use crate::server::ServerContext;
use crate::server::connections::CloseReason;
use crate::server::memcached::commands::scope::{Done, Next, Scope};
use crate::server::memcached::commands::task::Task;
use crate::server::memcached::commands::{cluster, stats};
use crate::stats::Counter;
use crate::store::TooManyFlushes;

/// What is said when so many prefixes are being flushed that one more cannot be remembered.
pub(super) const TOO_MANY_FLUSHES: &str = "SERVER_ERROR too many prefixes are being flushed";

/// Highest level of `verbosity` (memcached.h, `MAX_VERBOSITY_LEVEL`).
const VERBOSITY_MAX: u32 = 2;

pub(in crate::server::memcached) fn run(scope: &mut Scope<'_, '_>, admin: AdminCommand<'_>) -> Done {
    match admin {
        AdminCommand::NoOp => {
            scope.answer("MN");
            Done::Sent
        }
        AdminCommand::Version => scope.answer(&format!("VERSION {COMPATIBLE_VERSION}")),
        AdminCommand::Quit => Done::Next(Next::Close(CloseReason::Normal)),
        AdminCommand::Stats(arguments) => stats::run(scope, arguments),
        AdminCommand::Verbosity { level, quiet } => {
            set_verbosity(scope.context, level);
            ok(scope, quiet)
        }
        AdminCommand::FlushAll { delay, quiet } => flush_all(scope, delay, quiet),
        AdminCommand::FlushPrefix { prefix, quiet } => flush_prefix(scope, prefix, quiet),
        AdminCommand::FlushGroup { name, quiet } => {
            let groups = scope.context.loads.groups();
            match groups.iter().find(|group| group.options.name.as_bytes() == name) {
                Some(group) => flush_prefix(scope, &group.options.prefix, quiet),
                None => unless(scope, quiet, "CLIENT_ERROR no such group"),
            }
        }
        AdminCommand::MemoryLimit { bytes, quiet } => {
            if scope.context.store.set_budget(bytes) {
                scope.context.sweep_now();
                return ok(scope, quiet);
            }
            unless(scope, quiet, "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust")
        }
        AdminCommand::Shutdown { is_known } => shutdown(scope, is_known),
        AdminCommand::Watch(kinds) => watch(scope, kinds),
        AdminCommand::Crawler(crawler, classes) => crawl(scope, crawler, classes),
        AdminCommand::Tuned { quiet } => ok(scope, quiet),
        AdminCommand::Why(key) => cluster::why(scope, key),
        AdminCommand::ClusterConfig => cluster::config(scope),
        AdminCommand::RefreshCerts if scope.context.certificates.is_none() => {
            scope.answer(ProtocolError::Unknown.as_str())
        }
        AdminCommand::RefreshCerts => Done::Later(Task::RefreshCerts),
    }
}

/// Replies `OK`, unless its client asked for no reply.
fn ok(scope: &mut Scope<'_, '_>, quiet: bool) -> Done {
    unless(scope, quiet, "OK")
}

fn unless(scope: &mut Scope<'_, '_>, quiet: bool, line: &str) -> Done {
    if quiet { Done::Now } else { scope.answer(line) }
}

pub(super) fn set_verbosity(context: &ServerContext, level: u32) {
    context.verbosity.store(level.min(VERBOSITY_MAX) as u8, Ordering::Relaxed);
}

/// Flushes this node, when it is alone, or has the cluster flushed, which answers later.
fn flush_all(scope: &mut Scope<'_, '_>, delay: Exptime, quiet: bool) -> Done {
    scope.turn.counters().bump(Counter::CmdFlush);
    if !scope.context.options.flush_allowed {
        return unless(scope, quiet, "CLIENT_ERROR flush_all not allowed");
    }
    if let Some(later) = scope.in_cluster(Task::Flush { delay, quiet }) {
        return later;
    }
    scope.context.store.flush_all(&scope.turn.caller(), delay);
    ok(scope, quiet)
}

/// Flushes the keys with a prefix of this node, when it is alone, or has the cluster do so, which answers later.
fn flush_prefix(scope: &mut Scope<'_, '_>, prefix: &[u8], quiet: bool) -> Done {
    scope.turn.counters().bump(Counter::CmdFlush);
    if !scope.context.options.flush_allowed {
        return unless(scope, quiet, "CLIENT_ERROR flush not allowed");
    }
    if let Some(later) = scope.in_cluster(Task::FlushPrefix { prefix: prefix.to_vec(), quiet }) {
        return later;
    }
    match scope.context.flush_prefix(prefix) {
        Ok(()) => ok(scope, quiet),
        Err(TooManyFlushes) => unless(scope, quiet, TOO_MANY_FLUSHES),
    }
}

fn shutdown(scope: &mut Scope<'_, '_>, is_known: bool) -> Done {
    if !scope.context.options.shutdown_allowed {
        return scope.answer("SERVER_ERROR: shutdown not enabled");
    }
    if !is_known {
        return scope.answer(ProtocolError::ShutdownMode.as_str());
    }
    scope.context.leave.cancel();
    Done::Next(Next::Close(CloseReason::Shutdown))
}

fn watch(scope: &mut Scope<'_, '_>, arguments: Tokens<'_>) -> Done {
    if !scope.context.options.watch_allowed {
        return scope.answer("CLIENT_ERROR watch commands not allowed");
    }
    if scope.is_pipelined {
        return scope.answer(ProtocolError::WatchPipelined.as_str());
    }
    let mut kinds = Kinds::NONE;
    for name in arguments {
        match Kinds::named(name) {
            Some(kind) => kinds = kinds.with(kind),
            None => return scope.answer("ERROR"),
        }
    }
    if arguments.0.trim_ascii().is_empty() {
        kinds = Kinds::FETCHERS;
    }
    match scope.context.events.watch(kinds) {
        Some(lines) => {
            scope.answer("OK");
            Done::Next(Next::Watch(lines))
        }
        None => scope.answer("WATCHER_TOO_MANY log watcher limit reached"),
    }
}

/// `lru_crawler`: does what it asks for, or begins a dump.
fn crawl(scope: &mut Scope<'_, '_>, crawler: Crawler, classes: &[u8]) -> Done {
    let next = match crawler_step(scope, crawler, classes) {
        Err(error) => return scope.answer(error.as_str()),
        Ok(next) => next,
    };
    scope.answer("OK");
    next.map_or(Done::Now, Done::Next)
}

/// In the order of proto_text.c, `process_lru_crawler_command`.
fn crawler_step(
    scope: &Scope<'_, '_>,
    crawler: Crawler,
    classes: &[u8],
) -> Result<Option<Next>, ProtocolError> {
    let (store, dump_allowed) = (&scope.context.store, scope.context.options.dump_allowed);
    match crawler {
        Crawler::Enable(true) if store.sweep_enabled() => return Err(ProtocolError::CrawlerEnabled),
        Crawler::Enable(enabled) => {
            store.enable_sweep(enabled);
            return Ok(None);
        }
        _ if !store.sweep_enabled() => return Err(ProtocolError::CrawlerDisabled),
        Crawler::MetaDump if !dump_allowed => return Err(ProtocolError::MetaDumpForbidden),
        Crawler::KeyDump if !dump_allowed => return Err(ProtocolError::KeyDumpForbidden),
        Crawler::MetaDump if scope.is_pipelined => return Err(ProtocolError::MetaDumpPipelined),
        Crawler::KeyDump if scope.is_pipelined => return Err(ProtocolError::KeyDumpPipelined),
        Crawler::MetaDump | Crawler::KeyDump | Crawler::Crawl => {}
    }
    let ours = names_our_class(classes)?;
    if crawler != Crawler::Crawl {
        return Ok(Some(Next::Dump(crawler, if ours { 0 } else { store.part_count() })));
    }
    if ours {
        scope.context.sweep_now();
    }
    Ok(None)
}
