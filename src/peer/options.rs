//! The options of calls between nodes.

use std::net::IpAddr;
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

impl Options {
    /// Whether keys and values go over a network in the clear: peers listen on another address
    /// than this machine's own, without TLS. A name is another address, apart from `localhost`.
    pub fn is_exposed(&self) -> bool {
        let host = self.listen.rsplit_once(':').map_or(self.listen.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => host == "localhost",
        };
        self.tls.is_none() && !is_loopback
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_tls_are_not_exposed() {
        let exposed = |listen: &str, tls: Option<Tls>| {
            Options { listen: listen.to_owned(), tls, ..Options::default() }.is_exposed()
        };
        assert!(!Options::default().is_exposed());
        for listen in ["127.0.0.1:11212", "127.9.9.9:0", "[::1]:11212", "[::ffff:127.0.0.1]:1", "localhost:1"]
        {
            assert!(!exposed(listen, None), "{listen}");
        }
        for listen in ["0.0.0.0:11212", "[::]:11212", "10.0.0.1:1", "[fe80::1]:1", "cache-1:11212"] {
            assert!(exposed(listen, None), "{listen}");
            let tls = Tls { cert: "c".into(), key: "k".into(), ca: "a".into() };
            assert!(!exposed(listen, Some(tls)), "{listen}");
        }
    }
}
