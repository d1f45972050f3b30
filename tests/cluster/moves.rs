//! Nodes come and go as somebody planned it, and the cache stays warm.

use std::collections::BTreeSet;

use crate::cluster::{get, set};
use crate::support::cluster::{Cluster, STEADY};
use crate::support::node::{Node, stats};
use crate::support::server::eventually;
use crate::support::wire::Wire;

const KEYS: usize = 1_000;

fn key(number: usize) -> String {
    format!("warm-{number}")
}

/// Stores a value of some size under each key.
fn fill(cluster: &Cluster) {
    let mut wire = cluster.nodes[0].connect();
    for number in 0..KEYS {
        assert!(set(&mut wire, &key(number), &value(number)), "{number}");
    }
}

fn value(number: usize) -> String {
    format!("{number}-").repeat(1 + number % 40)
}

/// The keys that are lost, as one node sees it.
fn lost(wire: &mut Wire) -> Vec<usize> {
    let found = |number: &usize| {
        let found = get(wire, &key(*number));
        assert!(found.is_empty() || found == value(*number), "{number}: {found:?}");
        found.is_empty()
    };
    (0..KEYS).filter(found).collect()
}

/// Waits until nothing is on its way.
fn settled(cluster: &Cluster) {
    cluster.whole();
    eventually("nothing moves", || cluster.running().all(|node| moving(node) == 0));
}

fn moving(node: &Node) -> u64 {
    let ring = node.ring_stats();
    let slots = |name: &str| ring[name].parse::<u64>().expect("a count");
    slots("move_slots_in") + slots("move_slots_out")
}

fn items(cluster: &Cluster) -> u64 {
    let items =
        |node: &Node| stats(&mut node.connect(), "stats")["curr_items"].parse::<u64>().expect("a count");
    cluster.running().map(items).sum()
}

/// The line that answers a command.
fn answer(wire: &mut Wire, command: &str) -> String {
    wire.send(format!("{command}\r\n").as_bytes());
    let line = String::from_utf8(wire.line().expect("the reply comes in time")).expect("text");
    line.trim_end().to_owned()
}

fn stop(node: &mut Node) {
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
}

#[test]
fn a_node_that_joins_has_what_the_others_had() {
    let mut cluster = Cluster::steady(2);
    fill(&cluster);
    let joined = cluster.add();
    cluster.convergence(&["node-1", "node-2", "node-3"]);
    // Whether it is moved yet or not.
    for mut wire in cluster.connect_all() {
        assert_eq!(lost(&mut wire), [0; 0]);
    }
    settled(&cluster);
    assert_eq!(items(&cluster), KEYS as u64);
    let owned = stats(&mut cluster.nodes[joined].connect(), "stats")["curr_items"].parse::<usize>();
    assert!((KEYS / 5..KEYS / 2).contains(&owned.expect("a count")), "it has its share");
    for mut wire in cluster.connect_all() {
        assert_eq!(lost(&mut wire), [0; 0]);
    }
}

#[test]
fn a_node_that_leaves_hands_over_what_it_has() {
    let mut cluster = Cluster::steady(3);
    fill(&cluster);
    stop(&mut cluster.nodes[1]);
    settled(&cluster);
    assert_eq!(items(&cluster), KEYS as u64);
    for mut wire in cluster.connect_all() {
        assert_eq!(lost(&mut wire), [0; 0]);
    }
    let log = cluster.nodes[1].stderr();
    assert!(log.contains("other nodes have taken over what it held"), "{log}");
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let mut cluster = Cluster::steady(3);
    fill(&cluster);
    for node in 0..3 {
        stop(&mut cluster.nodes[node]);
        cluster.nodes[node].start();
        // As a supervisor does: the next one when this one is ready.
        cluster.whole();
    }
    settled(&cluster);
    assert_eq!(items(&cluster), KEYS as u64);
    for mut wire in cluster.connect_all() {
        assert_eq!(lost(&mut wire), [0; 0]);
    }
}

#[test]
fn items_keep_what_belongs_to_them() {
    let mut cluster = Cluster::steady(1);
    let mut wire = cluster.nodes[0].connect();
    for number in 0..200 {
        wire.ask(&format!("set plain-{number} 7 0 2\r\nhi\r\n"), "STORED\r\n");
        wire.ask(&format!("set timed-{number} 0 1000 2\r\nhi\r\n"), "STORED\r\n");
        wire.ask(
            &format!("set stale-{number} 0 0 2\r\nhi\r\nmd stale-{number} I T500\r\n"),
            "STORED\r\nHD\r\n",
        );
    }
    let tokens = |wire: &mut Wire| -> BTreeSet<String> {
        (0..200).map(|number| answer(wire, &format!("mg plain-{number} c f"))).collect()
    };
    let before = tokens(&mut wire);
    let joined = cluster.add();
    settled(&cluster);
    let mut wire = cluster.nodes[joined].connect();
    assert_eq!(tokens(&mut wire), before, "tokens and client flags");
    for number in 0..200 {
        let left = answer(&mut wire, &format!("mg timed-{number} t"));
        let left: u32 = left.strip_prefix("HD t").and_then(|left| left.parse().ok()).expect("seconds");
        assert!((900..=1000).contains(&left), "{left}");
        assert_eq!(answer(&mut wire, &format!("mg stale-{number} s")), "HD s2 X W");
    }
}

/// The source dies in the middle: what was not taken over by then is a miss, and no more than that.
#[test]
fn a_source_that_dies_is_a_miss() {
    let mut cluster = Cluster::start_with(2, &["--move-rate", "2k"]);
    fill(&cluster);
    cluster.add();
    cluster.convergence(&["node-1", "node-2", "node-3"]);
    cluster.nodes[0].kill9();
    let mut wire = cluster.nodes[2].connect();
    eventually("everything can be written", || {
        (0..KEYS).all(|number| set(&mut wire, &key(number), &value(number)))
    });
    settled(&cluster);
    for mut wire in cluster.connect_all() {
        assert_eq!(lost(&mut wire), [0; 0]);
    }
}

/// What is written or deleted while items move stays so.
#[test]
fn what_is_changed_meanwhile_stays_changed() {
    let mut cluster = Cluster::start_with(2, &[&STEADY[..], &["--move-rate", "4k"]].concat());
    fill(&cluster);
    cluster.add();
    cluster.convergence(&["node-1", "node-2", "node-3"]);
    let mut wires = cluster.connect_all();
    for number in 0..KEYS {
        let wire = &mut wires[number % 3];
        match number % 4 {
            0 => wire.ask(&format!("delete {}\r\n", key(number)), "DELETED\r\n"),
            1 => wire.ask(&format!("append {} 0 0 3\r\nnew\r\n", key(number)), "STORED\r\n"),
            2 => assert!(set(wire, &key(number), "new")),
            _ => {}
        }
    }
    assert!(cluster.running().any(|node| moving(node) > 0), "it was slow enough");
    let check = |wires: &mut [Wire]| {
        for number in 0..KEYS {
            let found = get(&mut wires[(number + 1) % 3], &key(number));
            let wanted = match number % 4 {
                0 => String::new(),
                1 => value(number) + "new",
                2 => "new".to_owned(),
                _ => value(number),
            };
            assert_eq!(found, wanted, "{number}");
        }
    };
    check(&mut wires);
    settled(&cluster);
    check(&mut wires);
}

/// A stop that must be quick, and a second signal.
#[test]
fn nobody_need_wait_for_a_drain() {
    let mut cluster = Cluster::start_with(2, &[&STEADY[..], &["--move-rate", "1k"]].concat());
    fill(&cluster);
    cluster.nodes[0].term();
    let says = |what: &str| cluster.nodes[0].stderr().contains(what);
    eventually("it has left", || says("waits until other nodes have taken over what it holds"));
    eventually("it goes at once", || {
        // One that comes within a second is the same signal.
        cluster.nodes[0].term();
        says("stops before everything was taken over")
    });
    assert_eq!(cluster.nodes[0].wait_exit().code(), Some(0));
}
