//! The options of the memcached listener.

use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::codec::Protocol;
use crate::tls;

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
    /// `-B`: the protocol that clients speak.
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

/// What a listener requires of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// The general setting: TLS with `-Z`, else plain text.
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
