//! How a node takes part in a cluster.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::failure_detector::Timing;
use crate::cluster::view::Member;
use crate::watchdog::Watchdog;

/// How this node takes part in a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's name: nodes of one name and one etcd find each other.
    pub cluster: String,
    /// etcd's client addresses, `host:port` or a URL; the next one is tried when one fails.
    pub endpoints: Vec<String>,
    /// The user in etcd, when it asks for one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// PEM file of the authorities that etcd's certificate must come from; with it, endpoints
    /// without a scheme are `https`.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to etcd.
    pub cert: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub key: Option<PathBuf>,
    /// This node's id, the same after a restart ([`default_node_id`]).
    pub node_id: String,
    /// Where other nodes reach this one, `host:port`.
    pub peer_addr: String,
    /// Where clients reach this one, `host:port`.
    pub memcached_addr: String,
    /// Its share of the keys in relation to the others'; 100 is usual.
    pub weight: u32,
    /// Where it stands, for people.
    pub zone: String,
    /// How long the others wait for a node that does not answer; etcd counts in seconds and has a
    /// minimum of 1.5 times its election timeout.
    pub lease_ttl: Duration,
    /// The deadline of each call to etcd, the connection included.
    pub call_timeout: Duration,
    /// How long less than half of the members may be without a lease before the rest takes them
    /// for lost. Half of it is how long a node without etcd serves on when it does not reach
    /// *every* other member.
    pub gone_after: Duration,
    /// Whether every thread of this node goes on: while one does not, the node lets go of its lease.
    pub watchdog: Arc<Watchdog>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            endpoints: Vec::new(),
            user: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
            node_id: String::new(),
            peer_addr: String::new(),
            memcached_addr: String::new(),
            weight: 100,
            zone: String::new(),
            lease_ttl: Duration::from_secs(5),
            call_timeout: Duration::from_secs(1),
            gone_after: Duration::from_secs(60),
            watchdog: Arc::default(),
        }
    }
}

/// A password that does not show in logs.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An id for a node that was not given one: its host's name and the port of its peers.
pub fn default_node_id(port: u16) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{port}", host.as_deref().unwrap_or("localhost"))
}

impl Options {
    pub(super) fn login(&self) -> Option<(&str, &str)> {
        Some((self.user.as_deref()?, &self.password.as_ref()?.0))
    }

    pub(super) fn member(&self) -> Member {
        Member {
            id: self.node_id.clone(),
            incarnation: 0,
            peer_addr: self.peer_addr.clone(),
            memcached_addr: self.memcached_addr.clone(),
            weight: self.weight,
            zone: self.zone.clone(),
        }
    }

    /// How long nodes with this lease go by what they heard of each other.
    pub fn timing(&self) -> Timing {
        Timing::of(self.lease_ttl)
    }

    /// How often the clock is looked at.
    pub(super) fn tick(&self) -> Duration {
        (self.lease_ttl / 20).clamp(Duration::from_millis(20), Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show() {
        let options = Options { password: Some(Password("secret".to_owned())), ..Options::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
