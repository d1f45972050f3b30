//! Nodes on hosts of their own, whose network is cut: from the others, from etcd, from both, in one direction or in
//! both.

use std::time::Duration;

use crate::cluster::{get, set};
use crate::support::cluster::{Cluster, LEASE, agree, why};
use crate::support::server::{always, eventually};
use crate::support::wire::Wire;

/// A lease that does not run out on a busy machine; and a time that is longer than it.
const LONG_LEASE: [&str; 2] = ["--lease-ttl", "4"];
const LONG: Duration = Duration::from_secs(6);

/// Three nodes; the last one is cut. etcd's host comes after them.
const CUT: usize = 2;
const ETCD: usize = 3;

/// What is cut of the last node's network.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
    Both,
}

struct Split {
    cluster: Cluster,
    /// A key of the node that is cut, and one of another.
    lost: String,
    kept: String,
    /// A client of each node.
    wires: Vec<Wire>,
}

impl Split {
    fn start(args: &[&str]) -> Split {
        let cluster = Cluster::start_apart_with(3, args);
        let (lost, kept) = (cluster.key_owned_by(CUT), cluster.key_owned_by(0));
        let mut wires = cluster.connect_all();
        for key in [&lost, &kept] {
            wires[1].ask(&format!("set {key} 0 0 3\r\nold\r\n"), "STORED\r\n");
        }
        Split { cluster, lost, kept, wires }
    }

    fn cut(&mut self, hosts: &[usize], way: Way) {
        let network = self.cluster.network.as_mut().expect("it was started apart");
        for &host in hosts {
            if way != Way::In {
                network.cut(CUT, host);
            }
            if way != Way::Out {
                network.cut(host, CUT);
            }
        }
    }

    fn heal(&mut self) {
        self.cluster.network.as_mut().expect("it was started apart").heal();
    }

    /// Whether the nodes that were not cut are a cluster of two.
    fn is_without_it(&self) -> bool {
        let rings: Vec<_> = self.cluster.nodes[..CUT].iter().map(|node| node.ring()).collect();
        agree(&rings) && rings[0].ids() == ["node-1", "node-2"]
    }

    /// The others take the node's keys over, and neither during the cut nor afterwards does it show what was
    /// overwritten. Without a lease it answers for nothing meanwhile; with one it joins again, and is put out again.
    fn must_be_overtaken_and_come_back(mut self, has_lease: bool) {
        let (lost, kept) = (self.lost.clone(), self.kept.clone());
        let [near, _, inside] = &mut self.wires[..] else { panic!("three nodes") };
        eventually("the keys have another owner", || {
            assert_eq!(get(near, &kept), "old", "{:?}", why(near, &kept));
            set(near, &lost, "new")
        });
        always("it is a miss there", LEASE, || {
            get(inside, &lost) != "old" && (has_lease || !set(inside, &lost, "wrong"))
        });
        if !has_lease {
            eventually("they agree without it", || self.is_without_it());
        }
        self.heal();
        let inside = &mut self.wires[CUT];
        eventually("it is back", || {
            assert!(["", "new"].contains(&get(inside, &lost).as_str()), "an old value came back");
            let ring = self.cluster.nodes[CUT].ring();
            ring.ids() == ["node-1", "node-2", "node-3"]
        });
        self.cluster.whole();
        for wire in &mut self.wires {
            assert!(["", "new"].contains(&get(wire, &lost).as_str()), "an old value came back");
        }
        for wire in &mut self.wires {
            assert!(set(wire, &lost, "newer"));
        }
    }

    /// Everything goes on through every node, as if nothing had happened.
    fn must_not_be_felt(mut self) {
        let (lost, kept) = (self.lost.clone(), self.kept.clone());
        let epoch = self.cluster.rings()[0].epoch;
        let wires = &mut self.wires;
        always("every node answers for every key", LONG, || {
            wires.iter_mut().all(|wire| [&lost, &kept].into_iter().all(|key| get(wire, key) == "old"))
        });
        self.heal();
        self.cluster.whole();
        assert!(self.cluster.rings().iter().all(|ring| ring.epoch == epoch), "{:?}", self.cluster.rings());
        for wire in &mut self.wires {
            assert_eq!(get(wire, &lost), "old");
        }
    }
}

#[test]
fn a_node_cut_off_from_everybody_is_overtaken() {
    let mut split = Split::start(&[]);
    split.cut(&[0, 1, ETCD], Way::Both);
    split.must_be_overtaken_and_come_back(false);
}

#[test]
fn a_node_that_hears_nobody_is_overtaken() {
    let mut split = Split::start(&[]);
    split.cut(&[0, 1, ETCD], Way::In);
    split.must_be_overtaken_and_come_back(false);
}

#[test]
fn a_node_that_nobody_hears_is_overtaken() {
    let mut split = Split::start(&[]);
    split.cut(&[0, 1, ETCD], Way::Out);
    split.must_be_overtaken_and_come_back(false);
}

#[test]
fn a_node_cut_off_from_the_others_is_overtaken_though_it_has_a_lease() {
    let mut split = Split::start(&[]);
    split.cut(&[0, 1], Way::Both);
    split.must_be_overtaken_and_come_back(true);
}

#[test]
fn a_node_that_does_not_hear_the_others_is_overtaken() {
    let mut split = Split::start(&[]);
    split.cut(&[0, 1], Way::In);
    split.must_be_overtaken_and_come_back(true);
}

#[test]
fn a_node_that_the_others_do_not_hear_is_overtaken() {
    let mut split = Split::start(&[]);
    split.cut(&[0, 1], Way::Out);
    split.must_be_overtaken_and_come_back(true);
}

#[test]
fn a_node_cut_off_from_etcd_goes_on() {
    for way in [Way::Both, Way::In, Way::Out] {
        let mut split = Split::start(&LONG_LEASE);
        split.cut(&[ETCD], way);
        split.must_not_be_felt();
    }
}

/// Two nodes that do not reach each other, each of which reaches everybody else: no key changes its owner.
#[test]
fn a_cut_between_two_of_three_is_a_miss_for_them_alone() {
    let mut split = Split::start(&LONG_LEASE);
    let (lost, kept) = (split.lost.clone(), split.kept.clone());
    let epoch = split.cluster.rings()[0].epoch;
    split.cut(&[0], Way::Both);
    let wires = &mut split.wires;
    always("the others are not felt", LONG, || {
        assert_eq!((get(&mut wires[0], &lost), get(&mut wires[CUT], &kept)), Default::default());
        assert!(!set(&mut wires[0], &lost, "wrong") && !set(&mut wires[CUT], &kept, "wrong"));
        get(&mut wires[0], &kept) == "old"
            && get(&mut wires[CUT], &lost) == "old"
            && get(&mut wires[1], &kept) == "old"
            && get(&mut wires[1], &lost) == "old"
    });
    split.heal();
    split.cluster.whole();
    assert_eq!(split.cluster.rings()[0].epoch, epoch);
    let wires = &mut split.wires;
    eventually("they reach each other again", || {
        get(&mut wires[0], &lost) == "old" && get(&mut wires[CUT], &kept) == "old"
    });
}
