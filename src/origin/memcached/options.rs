//! Which memcached servers are an origin.

use std::time::Duration;

/// Which servers are asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The servers in the order in which their clients have them: `host`, `host:port` or `[v6]:port`, the port being
    /// 11211 where none stands. Names count as written, for ketama hashes them. A weight follows as in
    /// libmemcached's configuration (`host:port/?2`) or as in pylibmc's (`host:port:2`).
    ///
    /// Without any weight a key is looked for where `MEMCACHED_BEHAVIOR_KETAMA` puts it, and with one, even if it
    /// is 1, where `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED` does. A client that has weights but only the first behaviour
    /// does something third, which is not offered.
    pub servers: Vec<String>,
    /// The prefix of the group, which the servers have in front of the key.
    pub prefix: Vec<u8>,
    /// Connections to each server, at most; whoever finds all of them in use waits.
    pub connections: usize,
    /// Bytes of a value, at most.
    pub value_max: usize,
    /// How long a connection may take, the look-up of the name included.
    pub connect_timeout: Duration,
}
