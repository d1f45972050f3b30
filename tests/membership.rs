//! Nodes that find each other through a real etcd, lose it, lose each other, and agree again.

mod access;
mod admission;
mod node;
mod outages;

use std::time::{Duration, Instant};

use filbert::cluster::MemberStatus;
use filbert::cluster::etcd::Options;

use crate::membership::node::{Network, Node, TTL, agree, await_agreement, block_on, options, start, stored};
use crate::support::etcd::Etcd;
use crate::support::server::{always, always_since, eventually};

/// A lease for tests in which none may have to run out.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn nodes_join_and_agree() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let start = |id| Node::start(Options { lease_ttl: LONG, ..options(&etcd.endpoint(), id) }, &network);
    let mut nodes: Vec<_> = ["a", "b", "c"].into_iter().map(start).collect();
    await_agreement(&nodes, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;

    let changed = Instant::now();
    nodes.push(start("d"));
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert!(changed.elapsed() < LONG, "took {:?}", changed.elapsed());
    let state = nodes[0].state();
    assert_eq!(state.epoch, epoch + 1);
    assert_eq!(state.view.previous, ["a", "b", "c"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 1), "only at its start");
}

#[test]
fn a_vanished_node_is_removed() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    nodes.pop().unwrap().vanish();
    await_agreement(&nodes, &["a", "b"]);

    nodes.pop().unwrap().vanish();
    await_agreement(&nodes, &["a"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 1), "a node that stays forgets nothing");
}

#[test]
fn a_lease_does_not_save_a_node_that_most_cannot_reach() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    network.cut("c");
    await_agreement(&nodes[..2], &["a", "b"]);
    eventually("it knows", || nodes[2].state().standing == MemberStatus::Fenced);
    let epoch = nodes[0].state().epoch;
    always("it does not come back for nothing", TTL * 4, || nodes[0].state().epoch == epoch);
    network.heal("c");
    await_agreement(&nodes, &["a", "b", "c"]);
}

#[test]
fn the_last_node_goes_on_when_most_are_lost_for_long() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let start = |id| Node::start(Options { gone_after: TTL * 4, ..options(&etcd.endpoint(), id) }, &network);
    let mut nodes: Vec<_> = ["a", "b", "c"].into_iter().map(start).collect();
    await_agreement(&nodes, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let vanished = Instant::now();
    nodes.drain(1..).for_each(Node::vanish);
    always_since(vanished, "one of three decides nothing yet", TTL * 3, || nodes[0].state().epoch == epoch);
    await_agreement(&nodes, &["a"]);
    assert_eq!(nodes[0].state().epoch, epoch + 2, "never more than half at once");
}

#[test]
fn a_killed_node_replaces_itself_when_its_lease_is_over() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let before = nodes[2].state();
    let vanished = Instant::now();
    nodes.pop().unwrap().vanish();
    let next = Node::start(options(&etcd.endpoint(), "c"), &network);
    always_since(vanished, "another one may live", TTL / 2, || {
        !next.serves() && nodes[0].state().epoch == before.epoch
    });
    nodes.push(next);
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes[2].state().incarnation > before.incarnation);
}

#[test]
fn a_node_that_was_stopped_comes_back_at_once() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let start = |id| Node::start(Options { lease_ttl: LONG, ..options(&etcd.endpoint(), id) }, &network);
    let mut nodes: Vec<_> = ["a", "b", "c"].into_iter().map(start).collect();
    await_agreement(&nodes, &["a", "b", "c"]);
    let stopped = Instant::now();
    let leaving = nodes.pop().unwrap();
    block_on(leaving.membership.leave(Duration::from_secs(5))).unwrap();
    leaving.vanish();
    nodes.push(start("c"));
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(stopped.elapsed() < LONG, "took {:?}", stopped.elapsed());
}

#[test]
fn a_node_that_restarts_alone_goes_on_without_the_others() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    nodes.remove(0).vanish();
    await_agreement(&nodes, &["b", "c"]);
    // Too few members of the view before are left to say whether they have acknowledged this one.
    eventually("it is written that they have", || stored(&etcd)["confirmed"] == true);
    nodes.into_iter().for_each(Node::vanish);
    let nodes = [Node::start(options(&etcd.endpoint(), "b"), &network)];
    await_agreement(&nodes, &["b"]);
}

#[test]
fn a_view_waits_for_half_of_those_in_the_one_before() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let held = [nodes[1].hold(), nodes[2].hold()];
    let joining = Node::start(options(&etcd.endpoint(), "d"), &network);
    eventually("there is a view with d", || nodes[0].state().epoch == epoch + 1);
    assert!(block_on(nodes[0].membership.raise_flush_generation()).is_err());
    assert_eq!(stored(&etcd)["epoch"], epoch + 1);
    assert_eq!(
        block_on(nodes[0].membership.flushed(0, Duration::ZERO)),
        Err(vec!["b".to_owned(), "c".to_owned()])
    );
    drop(held);
    nodes.push(joining);
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert_eq!(block_on(nodes[0].membership.raise_flush_generation()).unwrap(), 1);
}

#[test]
fn all_nodes_restart_at_once() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    nodes.into_iter().for_each(Node::vanish);
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    assert!(nodes[0].state().epoch > epoch);
}

#[test]
fn a_second_process_with_the_same_id_stays_out() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let elsewhere = Options { peer_addr: "elsewhere:11212".to_owned(), ..options(&etcd.endpoint(), "b") };
    let second = Node::start(elsewhere, &network);
    eventually("it sees the view", || second.state().epoch > 0);
    always("the first one stays", TTL * 2, || {
        second.state().standing == MemberStatus::Joining && agree(&nodes, &["a", "b"])
    });
    nodes.pop().unwrap().end();
    nodes.push(second);
    await_agreement(&nodes, &["a", "b"]);
}

#[test]
fn a_successor_at_the_same_address_waits_for_the_process() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let second = Node::start(options(&etcd.endpoint(), "b"), &network);
    always("they do not take turns", TTL * 2, || !second.serves() && agree(&nodes, &["a", "b"]));
    nodes.pop().unwrap().vanish();
    nodes.push(second);
    await_agreement(&nodes, &["a", "b"]);
}

#[test]
fn a_leaving_node_is_out_at_once() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let leaving = nodes.pop().unwrap();
    block_on(leaving.membership.leave(Duration::from_secs(5))).unwrap();
    assert_eq!(leaving.state().standing, MemberStatus::Leaving);
    await_agreement(&nodes, &["a", "b"]);
    eventually("it hears of the view without it", || !leaving.state().is_member());
    assert_eq!(leaving.forgotten(), 1, "it still has what it may hand over");
    nodes.pop().unwrap().vanish();
    await_agreement(&nodes, &["a"]);
    eventually("it hears of later views", || leaving.state().view.members.len() == 1);
    block_on(leaving.membership.leave(Duration::from_secs(5))).unwrap();
}

#[test]
fn the_last_one_to_leave_empties_the_view() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a"]);
    block_on(nodes[0].membership.leave(Duration::from_secs(5))).unwrap();
    eventually("the view is empty", || nodes[0].state().view.members.is_empty());
    drop(nodes);
    start(&etcd, &network, &["b"]);
}

#[test]
fn a_flush_generation_is_confirmed_by_all() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let raise = |node: &Node| block_on(node.membership.raise_flush_generation());
    assert_eq!(raise(&nodes[0]).unwrap(), 1);
    assert_eq!(raise(&nodes[2]).unwrap(), 2);
    for node in &nodes {
        assert_eq!(block_on(node.membership.flushed(2, TTL * 5)), Ok(()));
        assert_eq!(node.state().view.flush_generation, 2);
    }
    etcd.kill();
    assert!(raise(&nodes[0]).is_err());
    assert_eq!(nodes[1].state().view.flush_generation, 2);
}
