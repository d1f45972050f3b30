//! What the cluster says of itself, and what all of its nodes forget together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::cluster::get;
use crate::support::cluster::{Cluster, why};
use crate::support::node::stats;
use crate::support::server::eventually;
use crate::support::shown::Cut;
use crate::support::wire::Wire;

#[test]
fn stats_ring_shows_every_members_share() {
    let cluster = Cluster::steady(3);
    let rings = cluster.rings();
    for ring in &rings {
        assert_eq!(ring, &rings[0]);
        assert!(ring.digest.len() == 16 && ring.digest.chars().all(|c| c.is_ascii_hexdigit()), "{ring:?}");
        let sum = |field: &str| -> f64 {
            ring.members.values().map(|member| member[field].parse::<f64>().expect("a number")).sum()
        };
        assert_eq!(sum("slots"), 65_536.0);
        assert!((sum("share") - 1.0).abs() < 0.001, "{ring:?}");
        for (node, member) in cluster.nodes.iter().zip(ring.members.values()) {
            assert_eq!(member["addr"], node.addr().to_string());
            let share: f64 = member["share"].parse().expect("a number");
            assert!((0.30..0.37).contains(&share), "{ring:?}");
        }
    }
}

/// What a newcomer counts is what it took over, and the others have handed out.
#[test]
fn a_node_that_joins_counts_what_it_takes_over() {
    const KEYS: usize = 500;
    let mut cluster = Cluster::steady(2);
    let mut wire = cluster.nodes[0].connect();
    for n in 0..KEYS {
        wire.ask(&format!("set moving-{n} 0 0 5\r\nvalue\r\n"), "STORED\r\n");
    }
    let joined = cluster.add();
    cluster.whole();
    let over = ["move_slots_in", "move_slots_out", "move_items_left", "move_seconds_left"];
    eventually("everything was taken over", || {
        let rings = cluster.nodes.iter().map(|node| stats(&mut node.connect(), "stats ring"));
        rings.into_iter().all(|ring| ring["settled"] == "yes" && over.iter().all(|name| ring[*name] == "0"))
    });
    let keys: Vec<_> = (0..KEYS).map(|n| format!("moving-{n}")).collect();
    let moved: Vec<_> = keys.iter().filter(|key| cluster.owner_of(key) == joined).collect();
    assert!(!moved.is_empty());
    let counted = |node: usize, series: &str| cluster.nodes[node].http().metrics().value(series);
    let bytes: usize = moved.iter().map(|key| key.len() + "value".len()).sum();
    assert_eq!(counted(joined, "filbert_move_items_total{direction=\"in\"}"), moved.len() as f64);
    assert_eq!(counted(joined, "filbert_move_bytes_total{direction=\"in\"}"), bytes as f64);
    let out = [0, 1].map(|node| counted(node, "filbert_move_items_total{direction=\"out\"}"));
    assert_eq!(out[0] + out[1], moved.len() as f64, "{out:?}");
    assert_eq!(counted(joined, "filbert_move_slots{direction=\"in\"}"), 0.0);
    let moves = cluster.nodes[joined].http().get("/api/v1/cluster").json()["moves"].take();
    assert_eq!((&moves["items_in"], &moves["bytes_in"]), (&moved.len().into(), &bytes.into()));
    assert_eq!((&moves["slots_in"], &moves["items_left"]), (&0.into(), &0.into()));
    for key in keys {
        assert_eq!(get(&mut wire, &key), "value", "{key}");
    }
}

#[test]
fn stats_cluster_sums_what_each_member_counts() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for n in 0..60 {
        wires[n % 3].ask(&format!("set sum-{n} 0 0 1\r\nx\r\n"), "STORED\r\n");
        wires[(n + 1) % 3]
            .ask(&format!("get sum-{n} absent-{n}\r\n"), &format!("VALUE sum-{n} 0 1\r\nx\r\nEND\r\n"));
    }
    let local: Vec<u64> = wires.iter_mut().map(|wire| wire.stat("curr_items")).collect();
    assert_eq!(local.iter().sum::<u64>(), 60);
    assert!(local.iter().all(|&items| items > 0), "{local:?}");
    for wire in &mut wires {
        let all = stats(wire, "stats cluster");
        let sum =
            |name: &str| all.get(name).unwrap_or_else(|| panic!("{name}: {:?}", Cut(&all))).parse::<u64>();
        assert_eq!(sum("curr_items"), Ok(60));
        assert_eq!(sum("total_items"), Ok(60));
        assert_eq!(sum("get_hits"), Ok(60));
        assert_eq!(sum("get_misses"), Ok(60));
        assert_eq!(sum("cmd_set"), Ok(60));
        for (node, items) in cluster.nodes.iter().zip(&local) {
            assert_eq!(sum(&format!("member:{}:curr_items", node.id)), Ok(*items));
        }
    }
}

#[test]
fn stats_cluster_is_answered_without_a_member_that_stands_still() {
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "10", "--peer-timeout", "500"]);
    let mut wire = cluster.nodes[0].connect();
    let key = cluster.key_owned_by(0);
    wire.ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    cluster.nodes[1].stop();
    let all = stats(&mut wire, "stats cluster");
    assert_eq!(all["curr_items"], "1");
    assert_eq!(all["member:node-1:curr_items"], "1");
    assert!(!all.contains_key("member:node-2:curr_items"), "{:?}", Cut(&all));
    assert!(cluster.rings()[0].ids().contains(&"node-2"), "it is a member that is not waited for");
}

#[test]
fn why_tells_where_a_key_is_and_whether() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    let rings = cluster.rings();
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        let tell = |wires: &mut [Wire]| -> BTreeMap<String, String> {
            let told: Vec<_> = wires.iter_mut().map(|wire| why(wire, &key)).collect();
            assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
            told[0].clone()
        };
        let absent = tell(&mut wires);
        assert_eq!(absent["key"], key);
        assert_eq!(absent["owner"], cluster.nodes[owner].id);
        assert_eq!(absent["owner_addr"], cluster.nodes[owner].addr().to_string());
        assert_eq!(absent["epoch"], rings[0].epoch.to_string());
        assert!(absent["slot"].parse::<u16>().is_ok(), "{absent:?}");
        assert_eq!(absent["present"], "no");

        wires[(owner + 1) % 3].ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
        let present = tell(&mut wires);
        assert_eq!((&present["present"][..], &present["ttl"][..]), ("yes", "-1"));
        // It only looks: an item that was asked about is not one that was read.
        wires[0].ask(&format!("mg {key} h\r\n"), "HD h0\r\n");
        wires[(owner + 2) % 3].ask(&format!("touch {key} 1000\r\n"), "TOUCHED\r\n");
        let ttl: u64 = why(&mut wires[0], &key)["ttl"].parse().expect("seconds");
        assert!((990..=1000).contains(&ttl), "{ttl}");
    }
}

#[test]
fn why_does_not_know_what_a_silent_owner_has() {
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "10", "--peer-timeout", "500"]);
    let key = cluster.key_owned_by(1);
    cluster.nodes[1].stop();
    let told = why(&mut cluster.nodes[0].connect(), &key);
    assert_eq!((&told["owner"][..], &told["present"][..]), ("node-2", "unknown"));
}

/// As the clients of ElastiCache read it: <https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.html>.
#[test]
fn config_get_cluster_lists_every_node() {
    let mut cluster = Cluster::steady(2);
    let read = |cluster: &Cluster| {
        let configs: Vec<_> = cluster.connect_all().iter_mut().map(config).collect();
        assert!(configs.iter().all(|config| *config == configs[0]), "{configs:?}");
        configs[0].clone()
    };
    let (version, nodes) = read(&cluster);
    assert_eq!(version, cluster.rings()[0].epoch);
    assert_eq!(nodes, addresses(&cluster));
    cluster.add();
    cluster.whole();
    let (later, nodes) = read(&cluster);
    assert!(later > version);
    assert_eq!(nodes, addresses(&cluster));
}

/// The version, and each node's host name, address and port.
fn config(wire: &mut Wire) -> (u64, Vec<[String; 3]>) {
    wire.send(b"config get cluster\r\n");
    let line = wire.line().expect("the reply comes in time");
    let line = String::from_utf8(line).expect("the reply is text");
    let len = line.strip_prefix("CONFIG cluster 0 ").and_then(|rest| rest.trim_end().parse().ok());
    let len = len.unwrap_or_else(|| panic!("{line:?} tells the length"));
    let payload = wire.bytes(len).expect("the reply comes in time");
    let payload = String::from_utf8(payload).expect("the reply is text");
    wire.expect("\r\nEND\r\n");
    // AWS's own clients count the line end after the nodes; it must be there either way.
    let (version, nodes) = payload.split_once('\n').unwrap_or_else(|| panic!("{payload:?} has two lines"));
    let nodes = nodes.strip_suffix('\n').unwrap_or_else(|| panic!("{payload:?} ends its last line"));
    let nodes = nodes.split(' ').map(|node| {
        let fields: Vec<String> = node.split('|').map(str::to_owned).collect();
        fields.try_into().unwrap_or_else(|fields| panic!("{fields:?} are host, address and port"))
    });
    (version.parse().expect("the version is a number"), nodes.collect())
}

fn addresses(cluster: &Cluster) -> Vec<[String; 3]> {
    let three = |addr: SocketAddr| [addr.ip().to_string(), addr.ip().to_string(), addr.port().to_string()];
    cluster.nodes.iter().map(|node| three(node.addr())).collect()
}

#[test]
fn flush_all_empties_every_node() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for (flusher, command) in ["flush_all", "flush_all 0", "flush_all noreply"].into_iter().enumerate() {
        for n in 0..60 {
            wires[n % 3].ask(&format!("set flush-{n} 0 0 1\r\nx\r\n"), "STORED\r\n");
        }
        wires[flusher]
            .ask(&format!("{command}\r\nmn\r\n"), if flusher == 2 { "MN\r\n" } else { "OK\r\nMN\r\n" });
        for wire in &mut wires {
            for n in 0..60 {
                wire.ask(&format!("get flush-{n}\r\n"), "END\r\n");
            }
        }
        for wire in &mut wires {
            wire.ask("set after 0 0 1\r\nx\r\nget after\r\n", "STORED\r\nVALUE after 0 1\r\nx\r\nEND\r\n");
        }
    }
}

#[test]
fn a_delayed_flush_happens_on_every_node() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    let keys: Vec<_> = (0..3).map(|owner| cluster.key_owned_by(owner)).collect();
    for key in &keys {
        wires[0].ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
    let flushed = Instant::now();
    wires[1].ask("flush_all 4\r\n", "OK\r\n");
    for key in &keys {
        let still_there = get(&mut wires[2], key) == "x";
        // Clocks count whole seconds.
        assert!(still_there || flushed.elapsed() > Duration::from_secs(3), "{key} went too soon");
    }
    for key in &keys {
        eventually("it is flushed", || {
            wires[0].send(format!("mg {key}\r\n").as_bytes());
            wires[0].line().expect("the reply comes in time") == b"EN\r\n"
        });
    }
}

/// A flush that somebody may not have heard of is not a flush.
#[test]
fn flush_all_names_who_did_not_confirm() {
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "10", "--peer-timeout", "500"]);
    let mut wire = cluster.nodes[0].connect();
    cluster.nodes[1].stop();
    wire.send(b"flush_all\r\n");
    let line = wire.line().expect("the reply comes in time");
    let line = String::from_utf8(line).expect("the reply is text");
    assert!(line.starts_with("SERVER_ERROR ") && line.contains("node-2"), "{line:?}");
    assert!(!line.contains("node-3") && !line.contains("node-1"), "{line:?}");
}

#[test]
fn flush_all_without_etcd_is_refused() {
    let mut cluster = Cluster::steady(3);
    let mut wire = cluster.nodes[0].connect();
    cluster.etcd.kill();
    wire.send(b"flush_all\r\n");
    let line = wire.line().expect("the reply comes in time");
    assert!(line.starts_with(b"SERVER_ERROR "), "{}", line.escape_ascii());
}
