//! Nodes that show each other certificates, and those that do not.

use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::cluster::{Cluster, LEASE};
use crate::support::node::Node;
use crate::support::run;
use crate::support::server::{always, eventually};
use crate::support::shown::Cut;
use crate::support::site::Site;
use crate::support::wire::Wire;

/// How long two sorts of nodes are watched that must not talk.
const LONG: Duration = LEASE.saturating_mul(2);

/// The arguments of a node whose peers need this authority's certificates.
pub fn secured(authority: &Authority) -> Vec<String> {
    authority.sign_for("peer", &["localhost", "127.0.0.1"]);
    let path = |name: &str| authority.path(name).to_str().expect("temporary paths are text").to_owned();
    let mut args = plain();
    args.extend(["--peer-cert".to_owned(), path("peer.pem")]);
    args.extend(["--peer-key".to_owned(), path("peer.key")]);
    args.extend(["--peer-ca".to_owned(), path("ca.pem")]);
    args
}

/// A listener for peers at the address that certificates name.
fn plain() -> Vec<String> {
    vec!["--peer-listen".to_owned(), format!("127.0.0.1:{}", Site::localhost().free_port())]
}

pub fn add(cluster: &mut Cluster, args: &[String]) -> usize {
    cluster.add_with(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn start(cluster: &Cluster, id: &str, args: &[String]) -> Node {
    let mut node = cluster.node(id, &args.iter().map(String::as_str).collect::<Vec<_>>());
    node.start();
    node
}

#[test]
fn peers_with_certificates_are_one_cluster() {
    let authority = Authority::new();
    let mut cluster = Cluster::empty(&[]);
    for _ in 0..3 {
        add(&mut cluster, &secured(&authority));
    }
    cluster.whole();
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        for (n, mut wire) in cluster.connect_all().into_iter().enumerate() {
            wire.ask(&format!("set {key} 0 0 1\r\n{n}\r\n"), "STORED\r\n");
            cluster.nodes[(n + 1) % 3]
                .connect()
                .ask(&format!("get {key}\r\n"), &format!("VALUE {key} 0 1\r\n{n}\r\nEND\r\n"));
        }
    }
    let peer = cluster.rings()[0].members["node-1"]["peer"].parse().expect("the address for peers");
    // With TLS 1.3 the refusal comes after the client's side of the handshake.
    let refused = Wire::connect_tls(peer, &authority.client()).and_then(|mut wire| wire.rest());
    assert!(refused.is_err(), "a client without a certificate is let in");
}

#[test]
fn a_plain_node_gets_nothing_from_nodes_with_certificates() {
    let authority = Authority::new();
    gets_nothing(&secured(&authority), &plain());
}

#[test]
fn a_node_with_certificates_gets_nothing_from_plain_nodes() {
    let authority = Authority::new();
    gets_nothing(&plain(), &secured(&authority));
}

#[test]
fn a_node_with_another_authoritys_certificates_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    gets_nothing(&secured(&authority), &secured(&other));
}

#[test]
fn a_node_with_a_certificate_for_another_host_gets_nothing() {
    let authority = Authority::new();
    let ours = secured(&authority);
    authority.sign_for("foreign", &["elsewhere.example", "127.0.0.2"]);
    let theirs: Vec<_> = ours.iter().map(|arg| arg.replace("/peer.", "/foreign.")).collect();
    let theirs: Vec<_> = plain().into_iter().chain(theirs[2..].iter().cloned()).collect();
    gets_nothing(&ours, &theirs);
}

/// A stranger finds the others through etcd, and nothing passes between them.
fn gets_nothing(ours: &[String], theirs: &[String]) {
    const KEYS: usize = 20;
    let mut cluster = Cluster::empty(&[]);
    // Another listener for each: only the certificates may be the same.
    for _ in 0..2 {
        let peer = plain();
        let ours: Vec<_> = peer.into_iter().chain(ours[2..].iter().cloned()).collect();
        add(&mut cluster, &ours);
    }
    cluster.whole();
    let keys = cluster.keys_owned_by(0, "secret", KEYS);
    let mut wire = cluster.nodes[1].connect();
    for key in &keys {
        wire.ask(&format!("set {key} 0 0 6\r\nsecret\r\n"), "STORED\r\n");
    }
    let stranger = start(&cluster, "stranger", theirs);
    let mut outside = stranger.connect();
    always("nothing passes", LONG, || {
        keys.iter().all(|key| {
            outside.send(format!("get {key}\r\n").as_bytes());
            outside.until_end() == "END\r\n"
        })
    });
    for key in &keys {
        outside.send(format!("set {key} 0 0 6\r\nforged\r\n").as_bytes());
        outside.line().expect("the reply comes in time");
    }
    for mut wire in cluster.connect_all() {
        for key in &keys {
            wire.send(format!("get {key}\r\n").as_bytes());
            assert!(!wire.until_end().contains("forged"), "{key} was written by a stranger");
        }
    }
    drop(stranger);
    cluster.whole();
}

#[test]
fn half_a_configuration_is_refused() {
    let authority = Authority::new();
    let secured = secured(&authority);
    let all = &secured[2..];
    for missing in 0..3 {
        let mut args = vec!["-p", "-1", "--etcd-endpoints", "127.0.0.1:1", "--cluster", "test"];
        let option = &all[missing * 2];
        args.extend(all.chunks(2).filter(|pair| pair[0] != *option).flatten().map(String::as_str));
        let ended = run::filbert(&args);
        assert_ne!(ended.code, Some(0), "without {option}");
        assert!(ended.stderr.contains(option.as_str()), "without {option}: {}", ended.stderr);
    }
}

#[test]
fn options_of_a_cluster_without_etcd_are_refused() {
    for option in [["--peer-listen", "127.0.0.1:0"], ["--cluster", "test"], ["--node-id", "a"]] {
        let ended = run::filbert(&["-p", "-1", option[0], option[1]]);
        assert_ne!(ended.code, Some(0), "{option:?}");
        assert!(ended.stderr.contains("--etcd-endpoints"), "{option:?}: {}", ended.stderr);
    }
}

#[test]
fn an_open_peer_door_without_certificates_is_warned_about() {
    let warnings = |node: &Node| node.stderr().lines().filter(|line| line.contains("--peer-cert")).count();
    let cluster = Cluster::start(1);
    assert_eq!(warnings(&cluster.nodes[0]), 0, "{}", Cut(cluster.nodes[0].stderr()));
    let port = Site::localhost().free_port();
    let (listen, advertise) = (format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}"));
    let open = ["--peer-listen", &listen, "--peer-advertise", &advertise].map(str::to_owned);
    let node = start(&cluster, "open", &open);
    eventually("it has joined", || node.ring().ids() == ["node-1", "open"]);
    eventually("it is warned of", || warnings(&node) == 1);
}

/// Each node advertises the port that it was given by the system.
#[test]
fn peer_doors_may_be_anywhere() {
    let mut cluster = Cluster::empty(&[]);
    for _ in 0..3 {
        cluster.add_with(&["--peer-listen", "127.0.0.1:0"]);
    }
    cluster.whole();
    let key = cluster.key_owned_by(2);
    cluster.nodes[0].connect().ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    cluster.nodes[1].connect().ask(&format!("get {key}\r\n"), &format!("VALUE {key} 0 1\r\nx\r\nEND\r\n"));
    // Another process at another address: it waits until the first one's lease is gone.
    cluster.nodes[2].kill9();
    cluster.nodes[2].start();
    cluster.whole();
}
