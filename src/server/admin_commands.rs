//! What is not about one key: statistics, tuning, watching, stopping.

use std::sync::atomic::Ordering;

use crate::events::Kinds;
use crate::item::Exptime;
use crate::protocol::COMPATIBLE_VERSION;
use crate::protocol::admin::{Admin, Crawler};
use crate::protocol::error::ProtocolError;
use crate::protocol::token::Tokens;
use crate::server::cluster_commands::Task;
use crate::server::memcached::Ended;
use crate::server::report;
use crate::server::session::{Next, Session};
use crate::stats::Counter;

/// Highest level of `verbosity` (memcached.h, `MAX_VERBOSITY_LEVEL`).
const VERBOSITY_MAX: u32 = 2;

impl Session {
    pub(super) fn admin(&mut self, admin: Admin<'_>) {
        let ok_unless = |quiet: bool| if quiet { None } else { Some("OK") };
        let answer = match admin {
            Admin::NoOp => Some("MN"),
            Admin::Version => {
                self.answer(&format!("VERSION {COMPATIBLE_VERSION}"));
                None
            }
            Admin::Quit => {
                self.next = Next::Close(Ended::Normal);
                None
            }
            Admin::Stats(arguments) => {
                self.stats(arguments);
                None
            }
            Admin::Verbosity { level, quiet } => {
                self.set_verbosity(level);
                ok_unless(quiet)
            }
            Admin::FlushAll { delay, quiet } => {
                self.counters.bump(Counter::CmdFlush);
                if !self.door.options.flush_allowed {
                    (!quiet).then_some("CLIENT_ERROR flush_all not allowed")
                } else if self.flush(delay, Task::Flush { delay, quiet }) {
                    ok_unless(quiet)
                } else {
                    None
                }
            }
            Admin::MemoryLimit { bytes, quiet } => {
                if self.door.store.set_budget(bytes) {
                    self.door.sweep_now();
                    ok_unless(quiet)
                } else {
                    (!quiet).then_some("MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust")
                }
            }
            Admin::Shutdown if self.door.options.shutdown_allowed => {
                self.next = Next::Close(Ended::Shutdown);
                self.door.stop.cancel();
                None
            }
            Admin::Shutdown => Some("SERVER_ERROR: shutdown not enabled"),
            Admin::Watch(kinds) => self.watch(kinds),
            Admin::Crawler(crawler) => Some(self.crawler(crawler)).filter(|answer| !answer.is_empty()),
            Admin::Tuned { quiet } => ok_unless(quiet),
            Admin::Why(key) => {
                self.why(key);
                None
            }
            Admin::ClusterConfig => {
                self.cluster_config();
                None
            }
            Admin::RefreshCerts => {
                let Some(certificates) = &self.door.certificates else {
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
        self.door.verbosity.store(level.min(VERBOSITY_MAX) as u8, Ordering::Relaxed);
    }

    /// Flushes this node, when it is alone, or has the cluster flushed by `task`, which answers
    /// later. Whether it is done.
    pub(super) fn flush(&mut self, delay: Exptime, task: Task) -> bool {
        if self.later(task) {
            return false;
        }
        self.door.store.flush_all(&self.caller(), delay);
        true
    }

    fn watch(&mut self, arguments: Tokens<'_>) -> Option<&'static str> {
        if !self.door.options.watch_allowed {
            return Some("CLIENT_ERROR watch commands not allowed");
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
        match self.door.events.watch(kinds) {
            Some(lines) => {
                self.next = Next::Watch(lines);
                Some("OK")
            }
            None => Some("WATCHER_TOO_MANY log watcher limit reached"),
        }
    }

    /// The answer; empty when a dump follows.
    fn crawler(&mut self, crawler: Crawler) -> &'static str {
        let store = &self.door.store;
        match crawler {
            Crawler::Enable(enabled) => {
                store.enable_sweep(enabled);
                "OK"
            }
            Crawler::Crawl if !store.sweep_enabled() => "CLIENT_ERROR lru crawler disabled",
            Crawler::Crawl => {
                self.door.sweep_now();
                "OK"
            }
            Crawler::MetaDump | Crawler::KeyDump if !self.door.options.dump_allowed => {
                if crawler == Crawler::MetaDump {
                    "ERROR metadump not allowed"
                } else {
                    "ERROR key dump not allowed"
                }
            }
            Crawler::MetaDump | Crawler::KeyDump => {
                self.next = Next::Dump(crawler, 0);
                ""
            }
        }
    }

    pub(super) fn stats(&mut self, mut arguments: Tokens<'_>) {
        let dump_allowed = self.door.options.dump_allowed;
        match arguments.next() {
            None => report::general(self),
            Some(b"settings") => report::settings(self),
            Some(b"items") => report::items(self),
            Some(b"slabs") => report::slabs(self),
            Some(b"sizes") => report::sizes(self),
            Some(b"conns") => report::connections(self),
            Some(b"ring") if self.forward.is_some() => self.stats_ring(),
            Some(b"cluster") if self.later(Task::Stats) => {}
            Some(b"reset") => {
                self.door.registry.reset();
                self.door.prefixes.clear();
                self.answer("RESET");
            }
            Some(b"detail") if !dump_allowed => self.answer("CLIENT_ERROR stats detail not allowed"),
            Some(b"detail") => match arguments.next() {
                Some(b"on") => {
                    self.door.prefixes.enable(true);
                    self.answer("OK");
                }
                Some(b"off") => {
                    self.door.prefixes.enable(false);
                    self.answer("OK");
                }
                Some(b"dump") => {
                    let dump = self.door.prefixes.dump();
                    self.out.extend_from_slice(&dump);
                }
                _ => self.answer(ProtocolError::DetailUsage.as_str()),
            },
            Some(b"cachedump") if !dump_allowed => self.answer("CLIENT_ERROR stats cachedump not allowed"),
            Some(b"cachedump") => report::cachedump(self, arguments),
            Some(_) => self.answer(ProtocolError::Unknown.as_str()),
        }
    }
}
