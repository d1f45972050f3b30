//! Nodes that the others cannot reach, or that cannot reach them: none of them gets a key.

use std::time::Duration;

use crate::cluster::set;
use crate::support::certificates::Authority;
use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::server::{always, eventually};
use crate::support::site::Site;

/// Long enough for a node to be let in several times.
const LONG: Duration = Duration::from_secs(6);

/// On a busy machine, too, no write takes too long and no lease runs out. Longer than anybody waits in vain for others
/// to found the cluster.
const PATIENT: [&str; 4] = ["--lease-ttl", "15", "--peer-timeout", "5000"];

/// What both sides say when a node stays out.
const STAYS_OUT: &str = "not let into the cluster";

/// A cluster of this number of nodes with these arguments.
fn start(nodes: usize, args: &[&str]) -> Cluster {
    let mut cluster = Cluster::empty(&[]);
    for _ in 0..nodes {
        cluster.add_with(&[&PATIENT[..], args].concat());
    }
    cluster.whole();
    cluster
}

/// A node `stranger` that is started with these arguments.
fn stranger(cluster: &Cluster, args: &[&str]) -> Node {
    let mut node = cluster.node("stranger", &[&PATIENT[..], args].concat());
    node.start();
    node
}

/// The lines of a node's log that say why one stays out.
fn reasons(node: &Node) -> Vec<String> {
    node.stderr().lines().filter(|line| line.contains(STAYS_OUT)).map(str::to_owned).collect()
}

/// No client of the cluster notices the stranger, and the logs of both sides say each of these words about it.
fn stays_out(cluster: &Cluster, stranger: &Node, words: &[&str]) {
    let ids: Vec<_> = cluster.nodes.iter().map(|node| node.id.clone()).collect();
    let mut wires = cluster.connect_all();
    let mut number = 0;
    always("it is in no view, and no write fails", LONG, || {
        let stored = wires.iter_mut().all(|wire| {
            number += 1;
            set(wire, &format!("key-{number}"), "x")
        });
        stored && (number % 50 > 0 || cluster.rings().iter().all(|ring| ring.ids() == ids))
    });
    let says = |node: &Node| {
        let reasons = reasons(node);
        let all = |line: &String| words.iter().all(|word| line.contains(word));
        reasons.iter().any(all)
    };
    eventually("it says why", || says(stranger));
    for node in &cluster.nodes {
        eventually("they say why", || says(node));
        assert!(reasons(node).len() < 4, "{:?}", reasons(node));
    }
}

/// An address of this machine that nobody listens at.
fn nowhere() -> String {
    format!("127.0.0.1:{}", Site::localhost().free_port())
}

#[test]
fn a_node_with_a_wrong_address_gets_no_key() {
    let cluster = start(3, &[]);
    let wrong = nowhere();
    let mut bad = stranger(&cluster, &["--peer-advertise", &wrong]);
    let why = format!("node-1 does not reach it at {wrong}: ");
    stays_out(&cluster, &bad, &[&why, "refused"]);

    let seen = cluster.nodes[0].http().get("/api/v1/cluster").json();
    let [candidate] = &seen["candidates"].as_array().expect("a list")[..] else { panic!("one: {seen}") };
    assert_eq!((&candidate["id"], &candidate["peer_addr"]), (&"stranger".into(), &wrong.into()));
    assert!(candidate["troubles"].to_string().contains("node-1 does not reach it"), "{candidate}");

    bad.term();
    bad.wait_exit();
    let good = stranger(&cluster, &[]);
    eventually("it is let in", || cluster.nodes[0].ring().ids().contains(&"stranger"));
    eventually("it knows", || good.ring().ids().len() == 4);
    assert!(reasons(&good).is_empty(), "{:?}", reasons(&good));
    let seen = cluster.nodes[0].http().get("/api/v1/cluster").json();
    assert_eq!(seen["candidates"], serde_json::json!([]));
}

#[test]
fn a_good_node_goes_on_beside_a_bad_one() {
    let cluster = start(1, &[]);
    let wrong = nowhere();
    let bad = stranger(&cluster, &["--peer-advertise", &wrong]);
    stays_out(&cluster, &bad, &[&format!("node-1 does not reach it at {wrong}: ")]);
}

#[test]
fn the_address_of_another_node_is_a_wrong_one() {
    let cluster = start(3, &[]);
    let taken = cluster.rings()[0].members["node-1"]["peer"].clone();
    let bad = stranger(&cluster, &["--peer-advertise", &taken]);
    // It answers, and is another one.
    stays_out(&cluster, &bad, &[&format!("node-2 does not reach it at {taken}: "), "this is "]);
}

/// The good one would never be let in by one that it cannot reach.
#[test]
fn who_does_not_reach_itself_leaves_it_to_others_to_found() {
    let mut cluster = Cluster::empty(&[]);
    let bad = stranger(&cluster, &["--peer-advertise", &nowhere()]);
    cluster.add_with(&PATIENT);
    cluster.whole();
    stays_out(&cluster, &bad, &["node-1 does not reach it at "]);
}

#[test]
fn a_node_that_is_alone_serves_with_any_address() {
    let cluster = Cluster::empty(&[]);
    let mut bad = cluster.node("stranger", &["--peer-advertise", &nowhere()]);
    bad.start();
    eventually("it serves", || bad.ring().standing == "serving");
}

/// The arguments of a node whose peers need certificates of this authority, and which shows that one.
fn secured(authority: &Authority, shown: &Authority, host: &str) -> Vec<String> {
    shown.sign_for("peer", &[host]);
    let path = |of: &Authority, name: &str| of.path(name).to_str().expect("a path is text").to_owned();
    let peer = format!("127.0.0.1:{}", Site::localhost().free_port());
    let options = [
        ("--peer-listen", peer),
        ("--peer-cert", path(shown, "peer.pem")),
        ("--peer-key", path(shown, "peer.key")),
        ("--peer-ca", path(authority, "ca.pem")),
    ];
    options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Two nodes with TLS, and a stranger with these arguments, which never gets in.
fn tls_keeps_out(authority: &Authority, theirs: &[String]) {
    let mut cluster = Cluster::empty(&[]);
    for _ in 0..2 {
        cluster.add_with(&[&PATIENT[..], &words(&secured(authority, authority, "127.0.0.1"))[..]].concat());
    }
    cluster.whole();
    let bad = stranger(&cluster, &words(theirs));
    stays_out(&cluster, &bad, &["node-1 does not reach it at "]);
}

#[test]
fn a_node_that_speaks_plain_text_stays_out_of_a_cluster_with_tls() {
    let peer = format!("127.0.0.1:{}", Site::localhost().free_port());
    tls_keeps_out(&Authority::new(), &["--peer-listen".to_owned(), peer]);
}

#[test]
fn a_node_with_a_certificate_of_another_authority_stays_out() {
    let (authority, other) = (Authority::new(), Authority::new());
    tls_keeps_out(&authority, &secured(&authority, &other, "127.0.0.1"));
}

#[test]
fn a_node_with_a_certificate_for_another_host_stays_out() {
    let authority = Authority::new();
    let path = |name: &str| authority.path(name).to_str().expect("a path is text").to_owned();
    authority.sign_for("elsewhere", &["elsewhere.example"]);
    let mut theirs = secured(&authority, &authority, "127.0.0.1");
    theirs[3] = path("elsewhere.pem");
    theirs[5] = path("elsewhere.key");
    tls_keeps_out(&authority, &theirs);
}
