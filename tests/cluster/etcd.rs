//! Nodes without their etcd, and nodes that must not find each other.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::server::{always, eventually};
use crate::support::wire::Wire;

/// A lease that does not run out on a busy machine; and a time that is longer than it.
const LONG_LEASE: [&str; 2] = ["--lease-ttl", "4"];
const LONG: Duration = Duration::from_secs(6);

#[test]
fn a_dead_etcd_is_not_felt_and_joins_work_when_it_is_back() {
    let mut cluster = Cluster::start_with(3, &LONG_LEASE);
    let epoch = cluster.rings()[0].epoch;
    let mut wires = cluster.connect_all();
    cluster.etcd.kill();
    everything_works(&mut wires, "every command works without etcd");
    assert!(cluster.rings().iter().all(|ring| ring.epoch == epoch), "{:?}", cluster.rings());
    cluster.etcd.restart();
    everything_works(&mut wires, "every command works as etcd comes back");
    assert!(cluster.rings().iter().all(|ring| ring.epoch == epoch), "{:?}", cluster.rings());
    cluster.add();
    cluster.whole();
}

#[test]
fn an_etcd_that_hangs_is_not_felt() {
    let cluster = Cluster::start_with(3, &LONG_LEASE);
    let epoch = cluster.rings()[0].epoch;
    let mut wires = cluster.connect_all();
    cluster.etcd.signal(Signal::SIGSTOP);
    everything_works(&mut wires, "every command works while etcd hangs");
    cluster.etcd.signal(Signal::SIGCONT);
    everything_works(&mut wires, "every command works as etcd goes on");
    assert!(cluster.rings().iter().all(|ring| ring.epoch == epoch), "{:?}", cluster.rings());
}

/// A death that happens while nobody can agree on it: the dead node's keys stay where they are, the others' go on.
#[test]
fn a_node_that_dies_while_etcd_is_dead_is_replaced_when_it_is_back() {
    let mut cluster = Cluster::start_with(3, &LONG_LEASE);
    let dead = cluster.key_owned_by(1);
    let alive = cluster.key_owned_by(2);
    let mut wire = cluster.nodes[0].connect();
    cluster.etcd.kill();
    cluster.nodes[1].kill9();
    always("the other owners' keys work", LONG, || {
        wire.ask(&format!("set {alive} 0 0 1\r\nx\r\n"), "STORED\r\n");
        wire.ask(&format!("get {dead}\r\n"), "END\r\n");
        wire.send(format!("delete {dead}\r\n").as_bytes());
        wire.line().expect("the reply comes in time").starts_with(b"SERVER_ERROR ")
    });
    cluster.etcd.restart();
    cluster.whole();
    wire.ask(&format!("set {dead} 0 0 1\r\nx\r\n"), "STORED\r\n");
}

/// It cannot know what became of the others, and must not answer for anything.
#[test]
fn a_node_without_etcd_says_so_and_joins_when_it_comes() {
    let mut cluster = Cluster::empty(&[]);
    cluster.etcd.kill();
    cluster.add();
    let node = &cluster.nodes[0];
    let endpoint = cluster.etcd.endpoint();
    eventually("it says that etcd is not there", || {
        let said = node.stderr();
        said.contains("etcd") && said.contains(&endpoint)
    });
    let ring = node.ring();
    assert_eq!((ring.settled, ring.standing.as_str(), ring.ids().len()), (false, "joining", 0));
    let mut wire = node.connect();
    wire.ask("get k\r\nmg k v\r\n", "END\r\nEN\r\n");
    for command in ["set k 0 0 1\r\nx", "delete k", "incr k 1", "ms k 1\r\nx"] {
        wire.send(format!("{command}\r\n").as_bytes());
        let line = wire.line().expect("the reply comes in time");
        assert!(line.starts_with(b"SERVER_ERROR "), "{command}: {}", line.escape_ascii());
    }
    wire.ask("set k 0 0 1 noreply\r\nx\r\nget k\r\n", "END\r\n");
    cluster.etcd.restart();
    cluster.whole();
    wire.ask("get k\r\nset k 0 0 1\r\ny\r\nget k\r\n", "END\r\nSTORED\r\nVALUE k 0 1\r\ny\r\nEND\r\n");
}

/// Restarted while etcd is away, a node has lost everything and knows nobody.
#[test]
fn a_node_that_restarts_while_etcd_is_dead_waits_for_it() {
    let mut cluster = Cluster::start(3);
    let keys: Vec<_> = (0..3).map(|owner| cluster.key_owned_by(owner)).collect();
    let mut wire = cluster.nodes[0].connect();
    for key in &keys {
        wire.ask(&format!("set {key} 0 0 3\r\nold\r\n"), "STORED\r\n");
    }
    cluster.etcd.kill();
    cluster.nodes[1].kill9();
    cluster.nodes[1].start();
    let mut inside = cluster.nodes[1].connect();
    for key in &keys {
        inside.ask(&format!("get {key}\r\n"), "END\r\n");
        inside.send(format!("set {key} 0 0 1\r\nx\r\n").as_bytes());
        let line = inside.line().expect("the reply comes in time");
        assert!(line.starts_with(b"SERVER_ERROR "), "{}", line.escape_ascii());
    }
    cluster.etcd.restart();
    cluster.whole();
    inside.ask(&format!("get {}\r\n", keys[1]), "END\r\n");
    for key in &keys {
        inside.ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
}

#[test]
fn two_clusters_on_one_etcd_stay_apart() {
    let mut cluster = Cluster::steady(2);
    // The last one counts.
    let mut stranger = cluster.node("node-9", &["--cluster", "another"]);
    stranger.start();
    eventually("it is a cluster of its own", || {
        stranger.ring().ids() == ["node-9"] && stranger.ring().settled
    });
    cluster.add();
    cluster.whole();
    assert_eq!(stranger.ring().ids(), ["node-9"]);
    stranger.connect().ask("set k 0 0 6\r\ntheirs\r\n", "STORED\r\n");
    for mut wire in cluster.connect_all() {
        wire.ask("get k\r\nset k 0 0 4\r\nours\r\n", "END\r\nSTORED\r\n");
        wire.ask("delete k\r\n", "DELETED\r\n");
    }
    stranger.connect().ask("get k\r\n", "VALUE k 0 6\r\ntheirs\r\nEND\r\n");
}

/// Two processes that were given one id: the second stays outside while the first one lives.
#[test]
fn a_second_process_with_the_same_id_stays_outside() {
    let mut cluster = Cluster::start_with(2, &LONG_LEASE);
    let mut second = cluster.node("node-2", &[]);
    second.start();
    let addr = cluster.nodes[1].addr().to_string();
    always("the first one stays", LONG, || {
        cluster
            .rings()
            .iter()
            .all(|ring| ring.ids() == ["node-1", "node-2"] && ring.members["node-2"]["addr"] == addr)
    });
    cluster.nodes[1].kill9();
    let addr = second.addr().to_string();
    eventually("the second one takes over", || {
        [&cluster.nodes[0], &second].into_iter().map(Node::ring).all(|ring| {
            ring.ids() == ["node-1", "node-2"] && ring.members["node-2"]["addr"] == addr && ring.settled
        })
    });
    second.connect().ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    cluster.nodes[0].connect().ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
}

/// Through every node, for as long as leases could run out.
fn everything_works(wires: &mut [Wire], what: &str) {
    let mut turn = 0;
    always(what, LONG, || {
        for wire in wires.iter_mut() {
            turn += 1;
            let key = format!("etcd-{turn}");
            wire.ask(&format!("set {key} 0 0 1\r\n1\r\nincr {key} 1\r\n"), "STORED\r\n2\r\n");
            wire.ask(
                &format!("get {key}\r\ndelete {key}\r\n"),
                &format!("VALUE {key} 0 1\r\n2\r\nEND\r\nDELETED\r\n"),
            );
        }
        true
    });
}
