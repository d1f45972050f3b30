//! A node's options, and why it cannot run.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::moves;
use crate::cluster::etcd;
use crate::server::{self, admin, listen};
use crate::{auth, groups, logs, peer, snapshot, store, tls};

/// Everything a node is told at start; the command line, the environment and the file fill it
/// in (`config`), and tests fill it in directly.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// This node's memory.
    pub store: store::Options,
    /// The memcached listener.
    pub server: server::Options,
    /// The HTTP server; none without.
    pub http: Option<admin::Options>,
    /// The cluster it belongs to; alone without.
    pub cluster: Option<ClusterOptions>,
    /// Where it keeps its items while it is down; nowhere without. For a node that is alone.
    pub snapshot: Option<snapshot::Options>,
    /// Groups of keys, and how they are read again at HUP.
    pub groups: GroupsOptions,
    /// Where to write `TCP INET: port` lines once listening (`MEMCACHED_PORT_FILENAME`).
    pub port_file: Option<PathBuf>,
    /// Counts of the process's log lines, for its metrics.
    pub log_lines: logs::Lines,
    /// Where it logs, which is opened again at HUP.
    pub log_writer: logs::Writer,
    /// See [`Watchdog::held_by`](crate::watchdog::Watchdog::held_by).
    pub held_by: Option<PathBuf>,
}

/// The groups of keys.
#[derive(Debug, Clone, Default)]
pub struct GroupsOptions {
    /// Those of the start.
    pub at_start: Vec<groups::options::Options>,
    /// Reads them again; `None` where there is no file.
    pub read_again: Option<ReadGroups>,
}

/// Reads the groups from where they are configured.
#[derive(Clone)]
pub struct ReadGroups(Arc<dyn Fn() -> Result<Vec<groups::options::Options>, String> + Send + Sync>);

impl ReadGroups {
    /// Reads them like this; an error says what is wrong and where.
    pub fn new(
        read: impl Fn() -> Result<Vec<groups::options::Options>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(read))
    }

    /// The groups as they are configured now.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(&self) -> Result<Vec<groups::options::Options>, String> {
        self.0()
    }
}

impl fmt::Debug for ReadGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadGroups")
    }
}

/// How a node finds its cluster, and how its peers reach it.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The node's identity and etcd's address. Values that only binding can tell are empty, and filled in then:
    /// `node_id` is [`etcd::default_node_id`] of the peers' port; `peer_addr` is `peer.listen` with that port;
    /// `memcached_addr` is the first address for clients, with the host of `peer_addr` where that is every address.
    pub membership: etcd::Options,
    /// Calls between nodes.
    pub peer: peer::options::Options,
    /// How items are moved between them.
    pub moves: moves::options::Options,
}

/// Why a node cannot run. Names errors that the operator can mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// The peers' listener cannot be opened.
    #[error("cannot listen for peers on {0}: {1}")]
    Peers(String, io::Error),
    /// The node cannot take part in the cluster.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// The HTTP listener cannot be opened.
    #[error(transparent)]
    Http(#[from] admin::Error),
    /// The token for HTTP cannot be read.
    #[error(transparent)]
    Token(#[from] admin::TokenError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// No snapshot can be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// An origin cannot be used.
    #[error("group {0:?}: {1}")]
    Group(String, crate::origin::Invalid),
    /// The users cannot be read.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// The system refused a thread, a descriptor or a signal.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}
