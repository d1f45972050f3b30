//! What is not about one key: statistics, tuning, watching, stopping.

use std::sync::atomic::Ordering;

use crate::events::Kinds;
use crate::item::Exptime;
use crate::protocol::COMPATIBLE_VERSION;
use crate::protocol::admin::{AdminCommand, Crawler, names_our_class};
use crate::protocol::error::ProtocolError;
use crate::protocol::token::Tokens;
use crate::server::cluster_tasks::Task;
use crate::server::connections::CloseReason;
use crate::server::report;
use crate::server::session::{Next, Session};
use crate::stats::Counter;
use crate::store::Caller;

/// Highest level of `verbosity` (memcached.h, `MAX_VERBOSITY_LEVEL`).
const VERBOSITY_MAX: u32 = 2;

impl Session {
    pub(super) fn admin(&mut self, admin: AdminCommand<'_>) {
        let ok_unless = |quiet: bool| if quiet { None } else { Some("OK") };
        let answer = match admin {
            AdminCommand::NoOp => {
                self.note_sent();
                Some("MN")
            }
            AdminCommand::Version => {
                self.answer(&format!("VERSION {COMPATIBLE_VERSION}"));
                None
            }
            AdminCommand::Quit => {
                self.next = Next::Close(CloseReason::Normal);
                None
            }
            AdminCommand::Stats(arguments) => {
                self.stats(arguments);
                None
            }
            AdminCommand::Verbosity { level, quiet } => {
                self.set_verbosity(level);
                ok_unless(quiet)
            }
            AdminCommand::FlushAll { delay, quiet } => {
                self.counters.bump(Counter::CmdFlush);
                if !self.context.options.flush_allowed {
                    (!quiet).then_some("CLIENT_ERROR flush_all not allowed")
                } else if self.flush(delay, Task::Flush { delay, quiet }) {
                    ok_unless(quiet)
                } else {
                    None
                }
            }
            AdminCommand::MemoryLimit { bytes, quiet } => {
                if self.context.store.set_budget(bytes) {
                    self.context.sweep_now();
                    ok_unless(quiet)
                } else {
                    (!quiet).then_some("MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust")
                }
            }
            AdminCommand::Shutdown { .. } if !self.context.options.shutdown_allowed => {
                Some("SERVER_ERROR: shutdown not enabled")
            }
            AdminCommand::Shutdown { is_known: false } => Some(ProtocolError::ShutdownMode.as_str()),
            AdminCommand::Shutdown { is_known: true } => {
                self.next = Next::Close(CloseReason::Shutdown);
                self.context.stop.cancel();
                None
            }
            AdminCommand::Watch(kinds) => self.watch(kinds),
            AdminCommand::Crawler(crawler, classes) => {
                Some(self.crawler(crawler, classes).map_or_else(ProtocolError::as_str, |()| "OK"))
            }
            AdminCommand::Tuned { quiet } => ok_unless(quiet),
            AdminCommand::Why(key) => {
                self.why(key);
                None
            }
            AdminCommand::ClusterConfig => {
                self.cluster_config();
                None
            }
            AdminCommand::RefreshCerts => {
                let Some(certificates) = &self.context.certificates else {
                    return self.answer(ProtocolError::Unknown.as_str());
                };
                match certificates.reload() {
                    Ok(()) => Some("OK"),
                    Err(error) => {
                        let line = format!("SERVER_ERROR {error}").replace(['\r', '\n'], " ");
                        self.answer(&line);
                        None
                    }
                }
            }
        };
        if let Some(line) = answer {
            self.answer(line);
        }
    }

    pub(super) fn set_verbosity(&self, level: u32) {
        self.context.verbosity.store(level.min(VERBOSITY_MAX) as u8, Ordering::Relaxed);
    }

    /// Flushes this node, when it is alone, or has the cluster flushed by `task`, which answers
    /// later. Whether it is done.
    pub(super) fn flush(&mut self, delay: Exptime, task: Task) -> bool {
        if self.later(task) {
            return false;
        }
        self.context.store.flush_all(&self.caller(), delay);
        true
    }

    fn watch(&mut self, arguments: Tokens<'_>) -> Option<&'static str> {
        if !self.context.options.watch_allowed {
            return Some("CLIENT_ERROR watch commands not allowed");
        }
        if self.is_pipelined() {
            return Some(ProtocolError::WatchPipelined.as_str());
        }
        let mut kinds = Kinds::NONE;
        for name in arguments {
            match Kinds::named(name) {
                Some(kind) => kinds = kinds.with(kind),
                None => return Some("ERROR"),
            }
        }
        if arguments.0.trim_ascii().is_empty() {
            kinds = Kinds::FETCHERS;
        }
        match self.context.events.watch(kinds) {
            Some(lines) => {
                self.next = Next::Watch(lines);
                Some("OK")
            }
            None => Some("WATCHER_TOO_MANY log watcher limit reached"),
        }
    }

    /// Does it, or begins a dump, in the order of proto_text.c, `process_lru_crawler_command`.
    fn crawler(&mut self, crawler: Crawler, classes: &[u8]) -> Result<(), ProtocolError> {
        let (store, dump_allowed) = (&self.context.store, self.context.options.dump_allowed);
        match crawler {
            Crawler::Enable(true) if store.sweep_enabled() => return Err(ProtocolError::CrawlerEnabled),
            Crawler::Enable(enabled) => {
                store.enable_sweep(enabled);
                return Ok(());
            }
            _ if !store.sweep_enabled() => return Err(ProtocolError::CrawlerDisabled),
            Crawler::MetaDump if !dump_allowed => return Err(ProtocolError::MetaDumpForbidden),
            Crawler::KeyDump if !dump_allowed => return Err(ProtocolError::KeyDumpForbidden),
            Crawler::MetaDump if self.is_pipelined() => return Err(ProtocolError::MetaDumpPipelined),
            Crawler::KeyDump if self.is_pipelined() => return Err(ProtocolError::KeyDumpPipelined),
            Crawler::MetaDump | Crawler::KeyDump | Crawler::Crawl => {}
        }
        let ours = names_our_class(classes)?;
        if crawler != Crawler::Crawl {
            self.next = Next::Dump(crawler, if ours { 0 } else { store.shard_count() });
        } else if ours {
            self.context.sweep_now();
        }
        Ok(())
    }

    pub(super) fn stats(&mut self, mut arguments: Tokens<'_>) {
        let dump_allowed = self.context.options.dump_allowed;
        match arguments.next() {
            None => report::general(&self.context, self.now, &mut self.out),
            Some(b"settings") => report::settings(&self.context, &mut self.out),
            Some(b"items") => report::items(&self.context, self.now, &mut self.out),
            Some(b"slabs") => report::slabs(&self.context, &mut self.out),
            Some(b"sizes") => report::sizes(&mut self.out),
            Some(b"conns") => report::connections(&self.context, self.connection.id, self.now, &mut self.out),
            Some(b"ring") if self.forward.is_some() => self.stats_ring(),
            Some(b"cluster") if self.later(Task::Stats) => {}
            Some(b"reset") => {
                self.context.registry.reset();
                self.context.prefixes.clear();
                self.answer("RESET");
            }
            Some(b"detail") if !dump_allowed => self.answer("CLIENT_ERROR stats detail not allowed"),
            Some(b"detail") => match arguments.next() {
                Some(b"on") => {
                    self.context.prefixes.enable(true);
                    self.answer("OK");
                }
                Some(b"off") => {
                    self.context.prefixes.enable(false);
                    self.answer("OK");
                }
                Some(b"dump") => {
                    let dump = self.context.prefixes.dump();
                    self.out.extend_from_slice(&dump);
                }
                _ => self.answer(ProtocolError::DetailUsage.as_str()),
            },
            Some(b"cachedump") if !dump_allowed => self.answer("CLIENT_ERROR stats cachedump not allowed"),
            Some(b"cachedump") => {
                let caller = Caller::new(self.now, &self.counters, self.connection.id);
                report::cachedump(&self.context.store, &caller, &mut self.out, arguments);
            }
            Some(_) => self.answer(ProtocolError::Unknown.as_str()),
        }
    }
}
