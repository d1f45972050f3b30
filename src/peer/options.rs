//! What calls between nodes are told.

use std::path::PathBuf;
use std::time::Duration;

/// How this node is reached by others, and how long it waits for them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where other nodes' calls are taken, `host:port`; port 0 picks a free one.
    pub listen: String,
    /// Mutual TLS between nodes; without it, calls are in the clear.
    pub tls: Option<Tls>,
    /// How long a connection to a peer may take to come about.
    pub connect_timeout: Duration,
    /// How long a client waits for the owner of its key.
    pub operation_timeout: Duration,
    /// Commands that may wait for one peer in one thread; more are refused.
    pub queue_len: usize,
    /// Bytes of keys and values that may wait for one peer in one thread.
    pub queue_bytes: usize,
}

/// Certificates of the peers; both ends of a call show one of this authority.
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM file of this node's certificate and what it needs to be believed.
    pub cert: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// PEM file of the authorities that the peers' certificates come from.
    pub ca: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:11212".to_owned(),
            tls: None,
            connect_timeout: Duration::from_millis(100),
            operation_timeout: Duration::from_millis(250),
            queue_len: 1 << 14,
            queue_bytes: 64 << 20,
        }
    }
}
