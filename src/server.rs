//! What listens. Here: what the memcached listener is told, and what all of its connections share.

pub mod admin;
pub mod admin_commands;
mod binary_commands;
mod cluster_commands;
mod cluster_tasks;
pub mod connections;
mod forward;
pub mod guests;
pub mod history;
mod input;
pub mod listen;
pub mod memcached;
pub mod metrics;
mod output;
pub mod peer;
pub mod prefix;
pub mod quota;
mod replies;
mod report;
mod session;
pub mod strangers;
pub mod stream;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::Users;
use crate::events::Events;
use crate::protocol::codec::Protocol;
use crate::server::connections::Connections;
use crate::server::history::History;
use crate::server::prefix::Prefixes;
use crate::server::quota::Quota;
use crate::server::strangers::Strangers;
use crate::stats::Registry;
use crate::store::Store;
use crate::tls::{self, Reloadable as Certificates};
use crate::watchdog::Watchdog;

/// How the memcached listener listens and what it allows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen for TCP; empty with a unix socket alone.
    pub listen: Vec<Listen>,
    /// A unix socket to listen on (`-s`), in place of TCP.
    pub unix: Option<UnixListen>,
    /// `-p`: what `stats settings` shows as `tcpport`.
    pub port: u16,
    /// Worker threads (`-t`).
    pub threads: usize,
    /// Connections open at once (`-c`).
    pub max_connections: usize,
    /// Whether a connection over the limit is told so and closed (`maxconns_fast`, the
    /// default), or waits in the backlog.
    pub reject_over_limit: bool,
    /// Length of the listen queue (`-b`).
    pub backlog: u32,
    /// Close a connection that says nothing for this long (`-o idle_timeout`).
    pub idle_timeout: Option<Duration>,
    /// Bytes of requests on their way in that all connections may hold together (`-o
    /// read_buf_mem_limit`); 0 is any number.
    pub request_bytes: usize,
    /// The same of replies on their way out (`-o resp_obj_mem_limit`).
    pub reply_bytes: usize,
    /// `-v` counted: 2 and above shows every command line.
    pub verbosity: u8,
    /// `-F` says no.
    pub flush_allowed: bool,
    /// `-X` says no: `stats cachedump`, `stats detail`, `lru_crawler metadump` and `mgdump`.
    pub dump_allowed: bool,
    /// `-W` says no.
    pub watch_allowed: bool,
    /// `-A` says yes.
    pub shutdown_allowed: bool,
    /// `-D`: what divides a key's prefix from the rest; `stats detail` is on from the start
    /// when given.
    pub prefix_delimiter: Option<u8>,
    /// `-B`: what clients speak.
    pub protocol: Protocol,
    /// `-S`: clients of the binary protocol log in. They do with any file of users; this is for
    /// `stats settings`.
    pub sasl: bool,
    /// `-Y`: a file of `user:password` lines.
    pub auth_file: Option<PathBuf>,
    /// `-Z` and the `ssl_*` options.
    pub tls: Option<tls::Options>,
    /// How long replies may still be sent after a stop was asked for.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![Listen { host: Some("127.0.0.1".into()), port: 11211, security: Security::Tls }],
            unix: None,
            port: 11211,
            threads: 4,
            max_connections: 1024,
            reject_over_limit: true,
            backlog: 1024,
            idle_timeout: None,
            request_bytes: 8 << 20,
            reply_bytes: 8 << 20,
            verbosity: 0,
            flush_allowed: true,
            dump_allowed: true,
            watch_allowed: true,
            shutdown_allowed: false,
            prefix_delimiter: None,
            protocol: Protocol::Auto,
            sasl: false,
            auth_file: None,
            tls: None,
            grace: Duration::from_secs(5),
        }
    }
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// A host name or address, without brackets; `None` is every address.
    pub host: Option<String>,
    /// 0 picks a free port.
    pub port: u16,
    /// What stands before the address.
    pub security: Security,
}

/// What a listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// What is told for all: TLS with `-Z`, else plain text.
    #[default]
    Tls,
    /// `notls:`, plain text even with `-Z`.
    Plain,
    /// `mtls:`, TLS with a client certificate, whatever `ssl_verify_mode` says.
    MutualTls,
}

/// A unix socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixListen {
    /// Its path (`-s`).
    pub path: PathBuf,
    /// Its permissions (`-a`), octal 700 unless told otherwise.
    pub mode: u32,
}

/// What the connections of the memcached listener share.
pub struct ServerContext {
    /// This node's memory.
    pub store: Arc<Store>,
    /// What `watch` shows.
    pub events: Events,
    /// Every thread's counters.
    pub registry: Registry,
    /// What was asked for at start.
    pub options: Options,
    /// 2 and above shows every command line; `-v` counted, until `verbosity` changes it.
    pub verbosity: AtomicU8,
    /// Who is connected.
    pub connections: Connections,
    /// Clients that speak something else.
    pub strangers: Strangers,
    /// What requests on their way in may hold.
    pub requests: Arc<Quota>,
    /// What replies on their way out may hold.
    pub replies: Arc<Quota>,
    /// `stats detail`.
    pub prefixes: Prefixes,
    /// Who may log in; `None` lets everybody in.
    pub auth: Option<Users>,
    /// The certificates for clients.
    pub certificates: Option<Certificates>,
    /// Whether every thread goes on.
    pub watchdog: Arc<Watchdog>,
    /// Cancelled when the node is to stop.
    pub stop: CancellationToken,
    /// Asks for a sweep at once (`lru_crawler crawl`).
    pub sweep: SyncSender<()>,
    /// Connections close once they have answered what they have read.
    pub draining: AtomicBool,
    /// What it did in the last minutes.
    pub history: History,
    /// Where a browser reaches its status page, `host:port`; empty without one, or when nobody but
    /// this machine does.
    pub http_addr: String,
}

impl ServerContext {
    /// Takes new certificates and users from their files; what is bad leaves the old ones in
    /// force. Returns what went wrong.
    pub fn reload(&self) -> Vec<String> {
        let certificates = self.certificates.as_ref().and_then(|certificates| certificates.reload().err());
        let users = self.auth.as_ref().and_then(|users| users.reload().err());
        certificates.iter().map(ToString::to_string).chain(users.iter().map(ToString::to_string)).collect()
    }

    /// Starts a sweep for expired items now.
    pub fn sweep_now(&self) {
        // When the queue is full, one is about to begin anyway.
        _ = self.sweep.try_send(());
    }

    /// Lets every connection finish what it has read, and closes it.
    pub fn drain(self: &Arc<Self>) {
        self.draining.store(true, Ordering::Release);
        self.connections.wake_all();
    }
}
