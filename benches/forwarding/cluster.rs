//! Nodes that form a cluster, and keys chosen by their owner.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use filbert::cluster::view::{Member, Owners, View, slot};
use tempfile::TempDir;

use crate::options::Options;
use crate::support::Result;
use crate::support::load::Keys;
use crate::support::measure::Side;
use crate::support::process::Placement;
use crate::support::server::{Program, Server, says};
use crate::support::started::etcd::Etcd;

/// How long the nodes may take to agree.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);

/// As long as nutcracker waits for memcached: a slow reply is measured, and not taken for a miss.
const PEER_TIMEOUT_MS: &str = "2000";

/// What a node gets unless told otherwise.
const WEIGHT: u32 = 100;

/// Each cluster has a name of its own: a new one need not wait for the leases of an earlier one.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Running nodes that agree on their owners; killed on drop.
pub struct Cluster {
    pub nodes: Vec<Server>,
    _dir: TempDir,
}

impl Cluster {
    /// Starts a node for each id and waits until they agree.
    pub fn start(ids: &[&str], etcd: &Etcd, options: &Options, placement: &Placement) -> Result<Self> {
        let dir = TempDir::new()?;
        let cluster = format!("bench-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let endpoint = etcd.endpoint();
        let log = |id: &str| dir.path().join(id);
        let program = |id: &str| {
            let found = ["--etcd-endpoints", &endpoint, "--cluster", &cluster];
            let this = ["--node-id", id, "--peer-listen", "127.0.0.1:0", "--peer-timeout", PEER_TIMEOUT_MS];
            Program {
                flags: found.into_iter().chain(this).map(str::to_owned).collect(),
                log: Some(log(id)),
                ..Program::new(id, &options.filbert)
            }
        };
        let started = ids.iter().map(|id| program(id).start(placement)).collect::<io::Result<Vec<_>>>();
        let agreed = started.and_then(|nodes| {
            nodes.iter().try_for_each(|node| wait_until_settled(node, ids.len()))?;
            Ok(nodes)
        });
        let nodes = agreed.map_err(|error| {
            let said: String = ids.iter().flat_map(|id| fs::read_to_string(log(id))).collect();
            format!("{error}; the nodes said:\n{said}")
        })?;
        Ok(Self { nodes, _dir: dir })
    }

    /// All nodes, with the load on the first.
    pub fn side(&self, name: &str) -> Side {
        Side {
            name: name.to_owned(),
            address: self.nodes[0].address,
            pids: self.nodes.iter().map(Server::pid).collect(),
        }
    }

    /// Fails unless each node holds as many items as it should.
    pub fn expect_items(&self, expected: &[u64]) -> Result<()> {
        for (node, &expected) in self.nodes.iter().zip(expected) {
            let items = node.items()?;
            if items != expected {
                return Err(
                    format!("{} holds {items} items, not {expected}: who owns what?", node.name).into()
                );
            }
        }
        Ok(())
    }
}

/// Keys that `owner` owns in a cluster of `ids`.
pub fn keys_of(owner: &str, ids: &[&str], options: &Options) -> Result<Arc<Keys>> {
    let member = |&id: &&str| {
        let nowhere = String::new;
        let member = Member {
            id: id.to_owned(),
            incarnation: 0,
            peer_addr: nowhere(),
            memcached_addr: nowhere(),
            weight: WEIGHT,
            zone: nowhere(),
        };
        (id.to_owned(), member)
    };
    let owners = Owners::of(&View { members: ids.iter().map(member).collect(), ..View::default() });
    let owner = owners.position(owner);
    let keys =
        Keys::choose(options.load.keyspace, options.load.key_bytes, |key| owners.index(slot(key)) == owner);
    Ok(Arc::new(keys?))
}

fn wait_until_settled(node: &Server, members: usize) -> io::Result<()> {
    let deadline = Instant::now() + JOIN_DEADLINE;
    let has_joined = format!("STAT members {members}");
    loop {
        if says(node.address, "stats ring", &[&has_joined, "STAT settled yes"])? {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("{} did not join {members} members", node.name)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
