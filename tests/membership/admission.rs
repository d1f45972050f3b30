//! Which nodes are let in: those that most members reach, and that reach them.

use std::time::Duration;

use filbert::cluster::etcd::Options;

use crate::membership::LONG as LONG_LEASE;
use crate::membership::node::{NOWHERE, Network, Node, TTL, agree, await_agreement, options, start};
use crate::support::etcd::Etcd;
use crate::support::server::{always, eventually};

/// Long enough for a node to be let in, and to be put out again.
const LONG: Duration = TTL.saturating_mul(3);

/// The options of a node at an address that nobody listens at.
fn nowhere(etcd: &Etcd, id: &str) -> Options {
    Options { peer_addr: NOWHERE.to_owned(), ..options(&etcd.endpoint(), id) }
}

fn misplaced(etcd: &Etcd, network: &Network, id: &str) -> Node {
    Node::start(nowhere(etcd, id), network)
}

#[track_caller]
fn stays_out(nodes: &[Node], ids: &[&str], node: &Node) {
    eventually("it is seen", || nodes.iter().all(|it| !it.state().candidates.is_empty()));
    always("it is not let in", LONG, || agree(nodes, ids) && !node.serves());
}

#[test]
fn who_is_not_reached_is_not_let_in() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let bad = misplaced(&etcd, &network, "d");
    stays_out(&nodes, &["a", "b", "c"], &bad);
    let troubles = |node: &Node| node.state().candidates.iter().map(|it| it.troubles.len()).sum::<usize>();
    // To both, that neither reaches the other: an address is both ends of a call here.
    assert_eq!((troubles(&nodes[0]), troubles(&bad)), (6, 6));
    bad.vanish();
    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert!(nodes.iter().all(|node| node.state().candidates.is_empty()));
}

#[test]
fn one_member_does_not_let_in_whom_it_does_not_reach() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["b"]);
    // The first in the order of proposing.
    let bad = misplaced(&etcd, &network, "a");
    stays_out(&nodes, &["b"], &bad);
}

#[test]
fn who_does_not_reach_most_members_is_not_let_in() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    ["a", "b"].into_iter().for_each(|member| network.reach("d", member, false));
    let node = Node::start(options(&etcd.endpoint(), "d"), &network);
    stays_out(&nodes, &["a", "b", "c"], &node);
    assert_eq!(nodes[0].state().candidates[0].troubles.len(), 2);
    network.reach("d", "b", true);
    nodes.push(node);
    await_agreement(&nodes, &["a", "b", "c", "d"]);
}

#[test]
fn whom_one_of_two_members_does_not_reach_is_not_let_in() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    network.reach("b", "c", false);
    let node = Node::start(options(&etcd.endpoint(), "c"), &network);
    stays_out(&nodes, &["a", "b"], &node);
    network.reach("b", "c", true);
    nodes.push(node);
    await_agreement(&nodes, &["a", "b", "c"]);
}

#[test]
fn a_member_that_comes_back_out_of_reach_loses_its_place() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    nodes.pop().expect("there are three").vanish();
    let bad = misplaced(&etcd, &network, "c");
    await_agreement(&nodes, &["a", "b"]);
    stays_out(&nodes, &["a", "b"], &bad);
}

#[test]
fn all_restart_at_once_and_one_is_out_of_reach() {
    let (etcd, network) = (Etcd::start(), Network::default());
    start(&etcd, &network, &["a", "b", "c"]).into_iter().for_each(Node::vanish);
    let bad = misplaced(&etcd, &network, "a");
    let start = |id| Node::start(options(&etcd.endpoint(), id), &network);
    let nodes = [start("b"), start("c")];
    await_agreement(&nodes, &["b", "c"]);
    stays_out(&nodes, &["b", "c"], &bad);
}

#[test]
fn of_the_first_ones_those_found_who_are_reached() {
    let (etcd, network) = (Etcd::start(), Network::default());
    // It waits as long for others.
    let long = |options| Node::start(Options { lease_ttl: LONG_LEASE, ..options }, &network);
    let bad = long(nowhere(&etcd, "a"));
    let nodes = ["b", "c"].map(|id| long(options(&etcd.endpoint(), id)));
    await_agreement(&nodes, &["b", "c"]);
    stays_out(&nodes, &["b", "c"], &bad);
}
