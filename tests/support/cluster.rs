//! Clusters: a real etcd and Filberts that find each other through it, all gone when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::etcd::Etcd;
use crate::support::netns::Network;
use crate::support::node::{Node, Ring, stats};
use crate::support::pipe::Pipe;
use crate::support::proxy::Proxy;
use crate::support::server::eventually;
use crate::support::site::Site;
use crate::support::wire::Wire;

/// How long the others wait for a node that is gone; about the shortest that etcd keeps.
pub const LEASE: Duration = Duration::from_secs(2);

/// What nodes are told: commands wait longer than on their own, for nodes share two cores with other tests, and perhaps
/// with much else; and not so long that a test could not take many such waits for a node that is silent.
const USUAL: [(&str, &str); 3] =
    [("--lease-ttl", "2"), ("--peer-timeout", "1000"), ("--peer-connect-timeout", "1000")];

/// For tests in which no node dies or falls silent: a node that is slow because the machine is busy is not given up.
pub const STEADY: [&str; 6] =
    ["--lease-ttl", "10", "--peer-timeout", "30000", "--peer-connect-timeout", "10000"];

/// What nodes do that are not told, but for the lease: for tests in which every command may fail.
pub const HASTY: [&str; 6] = ["--lease-ttl", "2", "--peer-timeout", "250", "--peer-connect-timeout", "100"];

/// An etcd and nodes of one cluster, `node-1` first. It belongs to the thread that started it: with the thread, its
/// processes end.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub etcd: Etcd,
    /// What is between the nodes and etcd, of a cluster that has it.
    pub proxy: Option<Proxy>,
    /// Of a cluster whose hosts are apart: the nodes' in their order, and etcd's last.
    pub network: Option<Network>,
    name: String,
    args: Vec<String>,
    /// Whether nodes write to pipes, which can be stalled.
    pub is_piped: bool,
}

impl Cluster {
    /// Starts this number of nodes and waits until they are one cluster.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, &[])
    }

    /// As [`Cluster::start`], with nodes that have patience with each other: for a test in which nobody dies or falls
    /// silent.
    pub fn steady(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, &STEADY)
    }

    /// As [`Cluster::start`], each node with these arguments besides.
    pub fn start_with(nodes: usize, args: &[&str]) -> Cluster {
        let mut cluster = Cluster::empty(args);
        for _ in 0..nodes {
            cluster.add();
        }
        cluster.whole();
        cluster
    }

    /// An etcd, and no node yet.
    pub fn empty(args: &[&str]) -> Cluster {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let etcd = Etcd::start_on(Site::loopback(), None);
        Cluster {
            nodes: Vec::new(),
            etcd,
            proxy: None,
            network: None,
            name: unique_name(),
            args,
            is_piped: false,
        }
    }

    /// As [`Cluster::start`], with a proxy in front of etcd, and what `more` says instead of what is usual.
    pub fn start_behind_a_proxy(nodes: usize, more: &[&str]) -> Cluster {
        let mut cluster = Cluster::empty(&[]);
        cluster.proxy = Some(Proxy::start(cluster.etcd.endpoint()));
        for _ in 0..nodes {
            cluster.add_with(more);
        }
        cluster.whole();
        cluster
    }

    /// Starts this number of nodes and an etcd behind a proxy, each on a host of its own in a network that can be cut.
    /// Nodes wait for each other as long as they do without being told, and have a lease of [`LEASE`].
    ///
    /// # Panics
    ///
    /// When not root.
    pub fn start_apart(nodes: usize) -> Cluster {
        Cluster::apart(nodes, &HASTY, true)
    }

    /// As [`Cluster::start_apart`], without a proxy, and with these arguments instead.
    pub fn start_apart_with(nodes: usize, args: &[&str]) -> Cluster {
        Cluster::apart(nodes, args, false)
    }

    fn apart(nodes: usize, args: &[&str], has_proxy: bool) -> Cluster {
        let network = Network::new(nodes + 1);
        let etcd = Etcd::start_on(network.site(nodes), None);
        let proxy = has_proxy.then(|| Proxy::start_on(network.site(nodes), etcd.endpoint()));
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let (name, network) = (unique_name(), Some(network));
        let mut cluster = Cluster { nodes: Vec::new(), etcd, proxy, network, name, args, is_piped: true };
        for _ in 0..nodes {
            cluster.add();
        }
        cluster.whole();
        cluster
    }

    /// Starts one more node, and does not wait until it has joined. Returns its number, from 0.
    pub fn add(&mut self) -> usize {
        self.add_with(&[])
    }

    /// As [`Cluster::add`], with arguments besides those of the others.
    pub fn add_with(&mut self, more: &[&str]) -> usize {
        let number = self.nodes.len();
        let node = self.node(&format!("node-{}", number + 1), more);
        self.nodes.push(node);
        self.nodes[number].start();
        number
    }

    /// A node of this cluster that is not started and not counted among [`Cluster::nodes`]. What `more` says counts
    /// instead of what all say, and that instead of what is usual.
    pub fn node(&self, id: &str, more: &[&str]) -> Node {
        let site = match &self.network {
            Some(network) => network.site(self.nodes.len()),
            None => Site::loopback(),
        };
        // The same again after a restart, as it should be: another address would be another process.
        let peer = format!("{}:{}", site.ip, site.free_port());
        let etcd = self.proxy.as_ref().map_or_else(|| self.etcd.endpoint(), Proxy::endpoint);
        let own = [
            ("--etcd-endpoints", &*etcd),
            ("--cluster", &self.name),
            ("--node-id", id),
            ("--peer-listen", &peer),
        ];
        let mut args: Vec<String> = own
            .into_iter()
            .chain(USUAL)
            .filter(|(option, _)| !more.contains(option))
            .flat_map(|(option, value)| [option.to_owned(), value.to_owned()])
            .collect();
        args.extend(self.args.iter().cloned());
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let mut node = Node::new(id, site, args);
        node.pipe = self.is_piped.then(Pipe::new);
        node
    }

    /// Waits until all nodes that run agree, own all keys among them, and nobody acts on an older view.
    pub fn whole(&self) {
        let wanted: BTreeSet<&str> = self.running().map(|node| node.id.as_str()).collect();
        let mut seen = Vec::new();
        let what = || format!("{wanted:?} are one cluster");
        eventually(&what(), || {
            seen = self.rings();
            agree(&seen) && seen.iter().all(|ring| ring.ids().iter().copied().eq(wanted.iter().copied()))
        });
    }

    /// What each running node believes.
    pub fn rings(&self) -> Vec<Ring> {
        self.running().map(Node::ring).collect()
    }

    /// Waits until some running node has a view with exactly these members, and then how long it takes until all have.
    pub fn convergence(&self, ids: &[&str]) -> Duration {
        let has_it = |ring: &Ring| ring.ids() == ids;
        eventually(&format!("a view has {ids:?}"), || self.rings().iter().any(has_it));
        let first = Instant::now();
        eventually(&format!("all have {ids:?}"), || {
            let rings = self.rings();
            rings.iter().all(has_it) && rings.windows(2).all(|pair| pair[0].digest == pair[1].digest)
        });
        first.elapsed()
    }

    /// The nodes whose process is there and does not stand still.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.runs())
    }

    /// A client connection to each node that runs.
    pub fn connect_all(&self) -> Vec<Wire> {
        self.running().map(Node::connect).collect()
    }

    /// The number of the node that owns a key, as the first running node sees it.
    pub fn owner_of(&self, key: &str) -> usize {
        let mut wire = self.running().next().expect("a node runs").connect();
        self.owner_by(&mut wire, key)
    }

    /// The first `count` of `KEY-0`, `KEY-1` and so on that a node owns.
    pub fn keys_owned_by(&self, node: usize, prefix: &str, count: usize) -> Vec<String> {
        let mut wire = self.running().next().expect("a node runs").connect();
        let keys = (0..10_000).map(|number| format!("{prefix}-{number}"));
        let keys: Vec<_> = keys.filter(|key| self.owner_by(&mut wire, key) == node).take(count).collect();
        assert_eq!(keys.len(), count, "keys of {}", self.nodes[node].id);
        keys
    }

    /// A key that a node owns.
    pub fn key_owned_by(&self, node: usize) -> String {
        self.keys_owned_by(node, "key", 1).remove(0)
    }

    fn owner_by(&self, wire: &mut Wire, key: &str) -> usize {
        let why = why(wire, key);
        let id = &why["owner"];
        let found = self.nodes.iter().position(|node| node.id == *id);
        found.unwrap_or_else(|| panic!("the owner of {key} is nobody of ours: {why:?}"))
    }
}

/// What `why KEY` says.
#[track_caller]
pub fn why(wire: &mut Wire, key: &str) -> BTreeMap<String, String> {
    stats(wire, &format!("why {key}"))
}

/// Whether all have the same view and serve, and nobody acts on an older one.
pub fn agree(rings: &[Ring]) -> bool {
    let stands = |ring: &Ring| ring.settled && ring.standing == "serving";
    rings.iter().all(|ring| stands(ring) && ring.digest == rings[0].digest && ring.epoch == rings[0].epoch)
}

fn unique_name() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", process::id(), GIVEN.fetch_add(1, Ordering::Relaxed))
}
