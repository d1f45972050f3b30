//! Every node answers for every key, in the order that it was asked.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;

use crate::support::cluster::Cluster;
use crate::support::server::Server;
use crate::support::shown::Cut;
use crate::support::wire::Wire;

#[test]
fn what_is_set_on_one_node_is_read_on_all() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for owner in 0..3 {
        for key in cluster.keys_owned_by(owner, "k", 3) {
            for setter in 0..3 {
                let value = format!("{key} by {setter}");
                wires[setter].ask(&format!("set {key} 5 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
                for wire in &mut wires {
                    let len = value.len();
                    wire.ask(
                        &format!("get {key}\r\n"),
                        &format!("VALUE {key} 5 {len}\r\n{value}\r\nEND\r\n"),
                    );
                    wire.ask(&format!("mg {key} v f\r\n"), &format!("VA {len} f5\r\n{value}\r\n"));
                }
            }
            wires[(owner + 1) % 3].ask(&format!("delete {key}\r\n"), "DELETED\r\n");
            for wire in &mut wires {
                wire.ask(&format!("get {key}\r\n"), "END\r\n");
            }
        }
    }
}

/// A watcher of the owner is told which command removed an item, even when the client asked another node.
#[test]
fn an_owner_tells_of_deletions_as_they_were_asked_for() {
    let cluster = Cluster::steady(3);
    let (mut watcher, mut asked) = (cluster.nodes[0].connect(), cluster.nodes[1].connect());
    watcher.ask("watch deletions\r\n", "OK\r\n");
    for key in cluster.keys_owned_by(0, "k", 2) {
        for (command, reply) in [("delete", "DELETED\r\n"), ("md", "HD\r\n")] {
            asked.ask(&format!("set {key} 0 0 5\r\nvalue\r\n"), "STORED\r\n");
            asked.ask(&format!("{command} {key}\r\n"), reply);
            let line = String::from_utf8(watcher.line().expect("it is told of")).expect("text");
            let told = format!(" type=deleted key={key} cmd={command} clsid=1 size=5\n");
            assert!(line.ends_with(&told), "{line}");
        }
    }
}

#[test]
fn a_multiget_over_all_owners_is_answered_in_order() {
    const KEYS: usize = 500;
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    let (mut request, mut reply) = (String::from("get"), String::new());
    for n in 0..KEYS {
        let _ = write!(request, " key{n}");
        if n % 3 != 0 {
            wires[n % 3].ask(&format!("set key{n} {n} 0 4\r\n{n:04}\r\n"), "STORED\r\n");
            let _ = write!(reply, "VALUE key{n} {n} 4\r\n{n:04}\r\n");
        }
    }
    for wire in &mut wires {
        wire.ask(&format!("{request}\r\n"), &format!("{reply}END\r\n"));
        // The same key more than once, between others.
        wire.ask(
            "get key1 key2 key1 key3 key4 key1\r\n",
            "VALUE key1 1 4\r\n0001\r\nVALUE key2 2 4\r\n0002\r\nVALUE key1 1 4\r\n0001\r\n\
             VALUE key4 4 4\r\n0004\r\nVALUE key1 1 4\r\n0001\r\nEND\r\n",
        );
    }
}

#[test]
fn a_multiget_of_20_000_keys_is_answered_as_it_arrives() {
    const KEYS: usize = 20_000;
    let cluster = Cluster::steady(3);
    let mut wire = cluster.nodes[0].connect();
    let (mut request, mut reply) = (String::from("get"), String::new());
    for n in 0..KEYS {
        let _ = write!(request, " key{n}");
        if n % 100 == 0 {
            wire.ask(&format!("set key{n} 0 0 1\r\nx\r\n"), "STORED\r\n");
            let _ = write!(reply, "VALUE key{n} 0 1\r\nx\r\n");
        }
    }
    let mut writer = wire.writer();
    let sender = thread::spawn(move || {
        use std::io::Write;
        writer.write_all(format!("{request}\r\n").as_bytes())
    });
    wire.expect(&format!("{reply}END\r\n"));
    sender.join().expect("the sender does not panic").expect("the server takes everything");
}

/// Commands about many keys in one piece: each key's own happen in order, and the replies are a single node's.
#[test]
fn a_pipeline_of_mixed_keys_is_answered_in_order() {
    const KEYS: usize = 200;
    const STEPS: [&str; 11] = [
        "get K",
        "set K 1 0 1\r\n5",
        "incr K 5",
        "append K 0 0 1\r\n0",
        "get K",
        "mn",
        "ma K MD",
        "mg K v k f",
        "touch K 0",
        "delete K",
        "get K",
    ];
    let request: String = STEPS
        .iter()
        .flat_map(|step| (0..KEYS).map(|n| format!("{}\r\n", step.replace('K', &format!("pipe-{n}")))))
        .collect();
    let ask = |mut wire: Wire| {
        wire.send(request.as_bytes());
        wire.finish_sending();
        String::from_utf8(wire.rest().expect("the replies come in time")).expect("the replies are text")
    };
    let reply = ask(Server::filbert(&[]).connect());
    assert!(reply.contains("VALUE pipe-199 1 3\r\n100\r\n"), "{}", Cut(&reply));
    let cluster = Cluster::steady(3);
    for node in &cluster.nodes {
        let lines = ask(node.connect());
        for (number, (got, wanted)) in lines.lines().zip(reply.lines()).enumerate() {
            assert_eq!(got, wanted, "line {number} through {}", node.id);
        }
        assert_eq!(lines.len(), reply.len());
    }
}

#[test]
fn noreply_and_quiet_commands_say_nothing_and_happen_in_order() {
    let cluster = Cluster::steady(3);
    for owner in 0..3 {
        let keys = cluster.keys_owned_by(owner, "quiet", 4);
        let [a, b, c, d] = &keys[..] else { panic!("four keys") };
        for mut wire in cluster.connect_all() {
            wire.ask(
                &format!(
                    "set {a} 0 0 1 noreply\r\n1\r\nincr {a} 1 noreply\r\nappend {a} 0 0 1 noreply\r\n0\r\n\
                     touch {a} 0 noreply\r\nadd {a} 0 0 1 noreply\r\nx\r\nget {a}\r\n\
                     delete {a} noreply\r\nget {a}\r\n"
                ),
                &format!("VALUE {a} 0 2\r\n20\r\nEND\r\nEND\r\n"),
            );
            wire.ask(
                &format!(
                    "ms {b} 1 q\r\nb\r\nmg {b} v q k\r\nmg {c} v q k\r\nms {c} 1 q\r\nc\r\nmg {c} v q k Oc\r\n\
                     md {d} q\r\nma {d} q Od\r\nmn\r\nmd {b} q\r\nmd {c} q\r\nmg {b} v q\r\nmn\r\n"
                ),
                // An absence is ordinary for `mg` alone.
                &format!("VA 1 k{b}\r\nb\r\nVA 1 k{c} Oc\r\nc\r\nNF\r\nNF Od\r\nMN\r\nMN\r\n"),
            );
        }
    }
}

#[test]
fn cas_tokens_are_good_on_every_node() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        wires[0].ask(&format!("set {key} 0 0 1\r\n0\r\n"), "STORED\r\n");
        for turn in 0..9 {
            let token = gets(&mut wires[turn % 3], &key);
            assert_eq!(token, gets(&mut wires[(turn + 2) % 3], &key));
            let cas = format!("cas {key} 0 0 1 {token}\r\n{turn}\r\n");
            wires[(turn + 1) % 3].ask(&cas, "STORED\r\n");
            for wire in &mut wires {
                wire.ask(&cas, "EXISTS\r\n");
                wire.ask(&format!("ms {key} 1 C{token}\r\nx\r\n"), "EX\r\n");
            }
        }
        wires[1].ask(&format!("delete {key}\r\ncas {key} 0 0 1 1\r\nx\r\n"), "DELETED\r\nNOT_FOUND\r\n");
    }
}

fn gets(wire: &mut Wire, key: &str) -> u64 {
    wire.send(format!("gets {key}\r\n").as_bytes());
    let reply = wire.until_end();
    let token = reply.lines().next().and_then(|line| line.rsplit(' ').next());
    token.and_then(|token| token.parse().ok()).unwrap_or_else(|| panic!("{reply:?} has a token"))
}

/// A stale item is refilled by one client of all nodes'.
#[test]
fn one_client_of_all_nodes_wins_a_stale_item() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        let [a, b, c] = &mut wires[..] else { panic!("three nodes") };
        a.ask(&format!("ms {key} 3\r\nold\r\n"), "HD\r\n");
        b.ask(&format!("md {key} I T30\r\n"), "HD\r\n");
        c.ask(&format!("mg {key} v\r\n"), "VA 3 X W\r\nold\r\n");
        a.ask(&format!("mg {key} v\r\n"), "VA 3 Z X\r\nold\r\n");
        b.ask(&format!("mg {key} v\r\n"), "VA 3 Z X\r\nold\r\n");
        c.ask(&format!("ms {key} 3\r\nnew\r\n"), "HD\r\n");
        a.ask(&format!("mg {key} v\r\n"), "VA 3\r\nnew\r\n");

        b.ask(&format!("md {key}\r\n"), "HD\r\n");
        let vivify = format!("mg {key} v N30\r\n");
        a.ask(&vivify, "VA 0 W\r\n\r\n");
        b.ask(&vivify, "VA 0 Z\r\n\r\n");
        c.ask(&vivify, "VA 0 Z\r\n\r\n");
        c.ask(&format!("md {key}\r\n"), "HD\r\n");
    }
}

#[test]
fn concurrent_incr_through_all_nodes_gives_each_number_once() {
    const EACH: u64 = 2_000;
    const CLIENTS: u64 = 6;
    let cluster = Cluster::steady(3);
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        cluster.nodes[0].connect().ask(&format!("set {key} 0 0 1\r\n0\r\n"), "STORED\r\n");
        let numbers: BTreeSet<u64> = thread::scope(|scope| {
            let incr = |client: u64| {
                let mut wire = cluster.nodes[client as usize % 3].connect();
                let key = &key;
                scope.spawn(move || {
                    wire.send(format!("incr {key} 1\r\n").repeat(EACH as usize).as_bytes());
                    let mut numbers = Vec::new();
                    for _ in 0..EACH {
                        let line = wire.line().expect("the reply comes in time");
                        let line = String::from_utf8(line).expect("a number is text");
                        let number = line.trim_end().parse::<u64>();
                        numbers.push(number.unwrap_or_else(|e| panic!("{line:?}: {e}")));
                    }
                    assert!(numbers.is_sorted(), "one client's own are in order");
                    numbers
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(incr).collect();
            clients.into_iter().flat_map(|client| client.join().expect("no client panics")).collect()
        });
        assert!(numbers.iter().copied().eq(1..=EACH * CLIENTS), "{} numbers", numbers.len());
    }
}

/// A key of the longest kind, and one that is not text.
#[test]
fn any_key_finds_its_owner() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for n in 0..20 {
        let long = format!("{n:03}{}", "k".repeat(247));
        wires[n % 3].ask(&format!("set {long} 0 0 1\r\n{}\r\n", n % 10), "STORED\r\n");
        // Base64 of three bytes, which are the key.
        let binary = format!("{n:02}+/");
        wires[n % 3].ask(&format!("ms {binary} 2 b\r\n{n:02}\r\n"), "HD\r\n");
        for wire in &mut wires {
            wire.ask(&format!("get {long}\r\n"), &format!("VALUE {long} 0 1\r\n{}\r\nEND\r\n", n % 10));
            wire.ask(&format!("mg {binary} b v k\r\n"), &format!("VA 2 k{binary} b\r\n{n:02}\r\n"));
            wire.ask(&format!("get {long}k\r\n"), "CLIENT_ERROR bad command line format\r\n");
        }
    }
}
