//! The state that every listener needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;

use tokio_util::sync::CancellationToken;

use crate::auth::Users;
use crate::cache::loads::Loads;
use crate::events::Events;
use crate::server::connections::Connections;
use crate::server::history::History;
use crate::server::options::Options;
use crate::server::prefix::Prefixes;
use crate::server::quota::Quota;
use crate::server::strangers::Strangers;
use crate::stats::Registry;
use crate::store::{Store, TooManyFlushes};
use crate::tls::Reloadable as Certificates;
use crate::watchdog::Watchdog;

/// What the connections of the memcached listener share.
pub struct ServerContext {
    /// This node's memory.
    pub store: Arc<Store>,
    /// What is loaded from origins.
    pub loads: Arc<Loads>,
    /// What `watch` shows.
    pub events: Events,
    /// Every thread's counters.
    pub registry: Registry,
    /// The settings given at start.
    pub options: Options,
    /// 2 and above shows every command line; `-v` counted, until `verbosity` changes it.
    pub verbosity: AtomicU8,
    /// The open connections.
    pub connections: Connections,
    /// Clients that speak another protocol.
    pub strangers: Strangers,
    /// The bound for memory of incoming requests.
    pub requests: Arc<Quota>,
    /// The bound for memory of outgoing replies.
    pub replies: Arc<Quota>,
    /// `stats detail`.
    pub prefixes: Prefixes,
    /// The users that may log in; `None` lets everybody in.
    pub auth: Option<Users>,
    /// The certificates for clients.
    pub certificates: Option<Certificates>,
    /// Whether every thread makes progress.
    pub watchdog: Arc<Watchdog>,
    /// Cancelled when the node is to stop: it hands over first what it holds, and answers meanwhile.
    pub leave: CancellationToken,
    /// Cancelled when every thread is to stop.
    pub stop: CancellationToken,
    /// Asks for a sweep at once (`lru_crawler crawl`).
    pub sweep: SyncSender<()>,
    /// Connections close once they have answered what they have read.
    pub draining: AtomicBool,
    /// Its activity in the last minutes.
    pub history: History,
    /// Where a browser reaches its status page, `host:port`; empty when there is no page, or when only this machine
    /// reaches it.
    pub http_addr: String,
}

impl ServerContext {
    /// Reads new certificates and users from their files; a bad file leaves the old ones in force. Returns the errors.
    pub fn reload(&self) -> Vec<String> {
        let certificates = self.certificates.as_ref().and_then(|certificates| certificates.reload().err());
        let users = self.auth.as_ref().and_then(|users| users.reload().err());
        certificates.iter().map(ToString::to_string).chain(users.iter().map(ToString::to_string)).collect()
    }

    /// Makes every item under a key with this prefix a miss, in this node.
    ///
    /// # Errors
    /// Too many flushes of prefixes wait for a sweep.
    pub fn flush_prefix(&self, prefix: &[u8]) -> Result<(), TooManyFlushes> {
        self.store.flush_prefix(prefix)?;
        self.loads.forget_negatives();
        self.sweep_now();
        Ok(())
    }

    /// Starts a sweep for expired items now.
    pub fn sweep_now(&self) {
        // When the queue is full, a sweep is about to begin anyway.
        _ = self.sweep.try_send(());
    }

    /// Lets every connection finish what it has read, and closes it.
    pub fn drain(self: &Arc<Self>) {
        self.draining.store(true, Ordering::Release);
        self.connections.wake_all();
    }
}
