//! What nodes do while etcd is gone, hangs, forgets, or is out of one node's reach.

use std::time::Duration;

use filbert::cluster::MemberStatus;
use filbert::cluster::etcd::Options;
use nix::sys::signal::Signal;

use crate::membership::node::{
    Network, Node, TTL, VIEW, agree, await_agreement, block_on, options, registered, start, stored,
};
use crate::support::etcd::Etcd;
use crate::support::proxy::Proxy;
use crate::support::server::{always, eventually};
use crate::support::site::Site;

/// Three nodes that agree, the last of which reaches etcd through the proxy alone.
fn start_with_one_behind_a_proxy() -> (Etcd, Network, Vec<Node>, Proxy) {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let proxy = Proxy::start(etcd.endpoint());
    nodes.push(Node::start(options(&proxy.endpoint(), "c"), &network));
    await_agreement(&nodes, &["a", "b", "c"]);
    (etcd, network, nodes, proxy)
}

#[test]
fn a_stopped_etcd_changes_nothing() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let same = || nodes.iter().all(|node| node.serves() && node.state().epoch == epoch);

    etcd.signal(Signal::SIGSTOP);
    always("the last view stays, and everybody serves", TTL * 4, same);
    etcd.signal(Signal::SIGCONT);
    always("nothing flaps afterwards", TTL * 4, same);
    eventually("all are registered again", || registered(&etcd) == 3);
    assert!(same() && agree(&nodes, &["a", "b", "c"]));
}

#[test]
fn a_killed_etcd_changes_nothing() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let same = |nodes: &[Node]| nodes.iter().all(|node| node.serves() && node.state().epoch == epoch);

    etcd.kill();
    always("the last view stays, and everybody serves", TTL * 4, || same(&nodes));
    etcd.restart();
    always("nothing flaps afterwards", TTL * 4, || same(&nodes));
    eventually("all are registered again", || registered(&etcd) == 3);

    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    await_agreement(&nodes, &["a", "b", "c", "d"]);
}

#[test]
fn an_etcd_that_has_lost_everything_is_told_the_view_again() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    block_on(nodes[0].membership.raise_flush_generation()).unwrap();
    block_on(nodes[0].membership.flushed(1, TTL * 5)).unwrap();
    let epoch = nodes[0].state().epoch;

    etcd.kill();
    etcd.restart_empty();
    always("everybody serves", TTL * 3, || nodes.iter().all(Node::serves));
    eventually("the view is there again", || nodes.iter().all(|node| node.state().epoch > epoch));
    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert_eq!(nodes[0].state().view.flush_generation, 1);
    assert!(nodes[..3].iter().all(|node| node.forgotten() == 2), "later views may be lost, too");
}

#[test]
fn a_removed_node_does_not_serve_because_etcd_has_lost_everything() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let (first, second) = (Proxy::start(etcd.endpoint()), Proxy::start(etcd.endpoint()));
    let start = |proxy: &Proxy, id| Node::start(options(&proxy.endpoint(), id), &network);
    let mut nodes = vec![start(&first, "a"), start(&first, "b"), start(&second, "c")];
    await_agreement(&nodes, &["a", "b", "c"]);
    second.cut();
    network.cut("c");
    await_agreement(&nodes[..2], &["a", "b"]);
    eventually("it is fenced", || !nodes[2].serves());

    first.cut();
    etcd.kill();
    etcd.restart_empty();
    second.heal();
    eventually("it reaches etcd before the others", || registered(&etcd) == 1);
    always("it does not know what they know", TTL * 2, || {
        !nodes[2].serves() && nodes[..2].iter().all(Node::serves)
    });
    first.heal();
    network.heal("c");
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes.remove(2).forgotten() > 1);
}

#[test]
fn nobody_takes_the_place_of_a_node_that_goes_on_without_etcd() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let proxy = Proxy::start(etcd.endpoint());
    let start = |endpoint: String, id| {
        Node::start(Options { gone_after: TTL * 4, ..options(&endpoint, id) }, &network)
    };
    let old = start(proxy.endpoint(), "a");
    eventually("it serves", || old.serves());
    proxy.cut();
    network.cut("a");
    eventually("its lease runs out", || registered(&etcd) == 0);
    let new = start(etcd.endpoint(), "b");
    always("it goes on alone", TTL * 8, || old.serves() && !new.serves());
    proxy.heal();
    network.heal("a");
    let nodes = [old, new];
    await_agreement(&nodes, &["a", "b"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 1));
}

#[test]
fn lost_members_are_replaced_when_one_of_them_is_there_again() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let start = |id| Node::start(Options { gone_after: TTL * 4, ..options(&etcd.endpoint(), id) }, &network);
    let nodes: Vec<_> = ["a", "b", "c"].into_iter().map(start).collect();
    await_agreement(&nodes, &["a", "b", "c"]);
    nodes.into_iter().for_each(Node::vanish);
    eventually("their leases run out", || registered(&etcd) == 0);
    let new = start("d");
    always("they might live", TTL * 6, || !new.serves());
    await_agreement(&[start("b"), new], &["b", "d"]);
}

#[test]
fn two_views_of_one_epoch_are_both_forgotten() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let mut other = stored(&etcd);
    other["members"]["c"]["weight"] = 7.into();
    etcd.ctl(&["put", VIEW, &other.to_string()]);
    eventually("there is one that all have", || nodes.iter().all(|node| node.state().epoch > epoch + 1));
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes.iter().all(|node| node.forgotten() > 1), "the two had other owners");
}

#[test]
fn an_endpoint_that_goes_away_or_hangs_is_left_for_the_next() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let (first, second) = (Proxy::start(etcd.endpoint()), Proxy::start(etcd.endpoint()));
    let endpoints = vec![first.endpoint(), second.endpoint()];
    nodes.push(Node::start(Options { endpoints, ..options("", "c") }, &network));
    await_agreement(&nodes, &["a", "b", "c"]);
    let (epoch, lease) = (nodes[0].state().epoch, lease_of(&etcd, "c"));
    let same = || nodes.iter().all(|node| node.serves() && node.state().epoch == epoch);

    first.cut();
    always("nobody takes notice", TTL * 2, same);
    assert_eq!(lease_of(&etcd, "c"), lease, "it was kept alive by the other way");
    first.heal();
    second.hang();
    always("nobody takes notice", TTL * 3, same);
    eventually("it has a lease", || registered(&etcd) == 3);
    assert!(same());
}

#[test]
fn a_node_whose_etcd_hangs_serves_on() {
    let (etcd, _network, nodes, proxy) = start_with_one_behind_a_proxy();
    let epoch = nodes[0].state().epoch;
    let same = || nodes.iter().all(|node| node.serves() && node.state().epoch == epoch);
    proxy.hang();
    eventually("its lease runs out", || registered(&etcd) == 2);
    always("it serves, and nobody removes it", TTL * 3, same);
    proxy.heal();
    eventually("it is registered again", || registered(&etcd) == 3);
    assert!(same());
    assert_eq!(nodes[2].forgotten(), 1);
}

fn lease_of(etcd: &Etcd, id: &str) -> String {
    let json = etcd.ctl(&["get", &format!("/filbert/test/members/{id}"), "--write-out", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    json["kvs"][0]["lease"].to_string()
}

#[test]
fn losing_all_leases_at_once_removes_nobody() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let leases = etcd.ctl(&["lease", "list"]);
    for lease in leases.lines().filter(|line| line.chars().all(|c| c.is_ascii_hexdigit()) && !line.is_empty())
    {
        etcd.ctl(&["lease", "revoke", lease]);
    }
    always("everybody serves in the same view", TTL * 3, || {
        nodes.iter().all(|node| node.serves() && node.state().epoch == epoch)
    });
    eventually("all are registered again", || registered(&etcd) == 3);
    await_agreement(&nodes, &["a", "b", "c"]);
}

#[test]
fn a_node_without_etcd_serves_while_it_reaches_most() {
    let (etcd, network, nodes, proxy) = start_with_one_behind_a_proxy();
    let before = nodes[2].state();

    proxy.cut();
    eventually("its lease runs out", || registered(&etcd) == 2);
    always("it serves, and nobody removes it", TTL * 3, || {
        nodes.iter().all(|node| node.serves() && node.state().epoch == before.epoch)
    });

    network.cut("c");
    eventually("it is fenced", || nodes[2].state().standing == MemberStatus::Fenced);
    assert!(!nodes[2].serves());
    assert_eq!(nodes[0].state().epoch, before.epoch, "it is fenced before it is removed");
    await_agreement(&nodes[..2], &["a", "b"]);
    assert_eq!(nodes[2].state().standing, MemberStatus::Fenced);
    assert_eq!(nodes[2].forgotten(), 1);

    proxy.heal();
    network.heal("c");
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes[2].state().incarnation > before.incarnation);
    assert_eq!(nodes[2].forgotten(), 3, "when it was removed, and when it joined again");
    assert!(nodes[..2].iter().all(|node| node.forgotten() == 1));
}

#[test]
fn leaving_without_etcd_says_so() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b"]);
    etcd.kill();
    let left = block_on(nodes[1].membership.leave(Duration::from_millis(300)));
    assert!(left.is_err());
    eventually("it does not serve any more", || nodes[1].state().standing == MemberStatus::Leaving);
    etcd.restart();
    await_agreement(&nodes[..1], &["a"]);
}

#[test]
fn epochs_go_on_when_the_view_is_deleted() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    etcd.ctl(&["del", VIEW]);
    eventually("the view is there again", || nodes.iter().all(|node| node.state().epoch > epoch));
    await_agreement(&nodes, &["a", "b", "c"]);
    etcd.ctl(&["put", VIEW, "nonsense"]);
    eventually("the view is there again", || nodes.iter().all(|node| node.state().epoch > epoch + 1));
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 3), "once more for each view that was lost");
}

#[test]
fn a_node_waits_for_its_etcd_and_tries_every_endpoint() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let proxy = Proxy::start(etcd.endpoint());
    proxy.cut();
    let dead = format!("127.0.0.1:{}", Site::localhost().free_port());
    let endpoints = vec![dead, proxy.endpoint()];
    let node = Node::start(Options { endpoints, ..options("", "a") }, &network);
    always("it stays outside", TTL, || node.state().standing == MemberStatus::Joining && !node.serves());
    proxy.heal();
    await_agreement(&[node], &["a"]);
}

#[test]
fn a_compacted_history_is_read_anew() {
    let (etcd, _network, nodes, proxy) = start_with_one_behind_a_proxy();

    proxy.cut();
    for _ in 0..3 {
        block_on(nodes[0].membership.raise_flush_generation()).unwrap();
    }
    proxy.heal();
    await_agreement(&nodes, &["a", "b", "c"]);
    assert_eq!(nodes[2].forgotten(), 1, "what it missed was in etcd's history");

    proxy.cut();
    for _ in 0..3 {
        block_on(nodes[0].membership.raise_flush_generation()).unwrap();
    }
    let json = etcd.ctl(&["get", VIEW, "--write-out", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    etcd.ctl(&["compact", &json["header"]["revision"].to_string()]);
    proxy.heal();
    await_agreement(&nodes, &["a", "b", "c"]);
    assert_eq!(nodes[2].forgotten(), 2, "what it missed is not known");
}

#[test]
fn a_node_without_etcd_learns_from_its_peers() {
    let (etcd, network, mut nodes, proxy) = start_with_one_behind_a_proxy();
    proxy.cut();
    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    eventually("d has joined", || nodes[3].serves());
    let news = nodes[3].state();
    assert!(!news.is_converged(), "c may act on the view before");
    nodes[2].membership.learn(news.epoch, news.view.as_ref().clone());
    eventually("it is told", || nodes[2].state().epoch == news.epoch);
    assert!(nodes[2].serves() && nodes[2].forgotten() == 1);
    proxy.heal();
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert_eq!(nodes[2].forgotten(), 1);
}
