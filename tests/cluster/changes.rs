//! Nodes come, go and die, and no old value comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{get, get_anew, set, shown};
use crate::support::cluster::{Cluster, LEASE, why};
use crate::support::node::Node;
use crate::support::server::{eventually, quickly};
use crate::support::shown::Cut;
use crate::support::wire::Wire;

/// How soon all nodes must have a view that one of them has.
const CONVERGENCE: Duration = Duration::from_secs(1);

/// How soon a dead node's keys must have another owner.
const TAKEOVER: Duration = LEASE.saturating_add(Duration::from_secs(2));

/// However long the cluster has been there: what has become of it is all that a new process needs.
#[test]
fn a_node_that_starts_does_not_read_how_the_cluster_came_to_be() {
    let mut cluster = Cluster::steady(1);
    let mut wire = cluster.nodes[0].connect();
    for _ in 0..20 {
        wire.ask("flush_all\r\n", "OK\r\n");
    }
    let epoch = cluster.nodes[0].ring().epoch;
    assert!(epoch > 20, "each is a view: {epoch}");
    let new = cluster.add_with(&["-vv"]);
    cluster.whole();
    let said = cluster.nodes[new].stderr();
    assert!(said.contains("joined the cluster"), "{said}");
    assert!(!said.contains("a view of the past"), "{said}");
}

#[test]
fn all_agree_within_a_second_of_a_change() {
    let mut cluster = Cluster::start(3);
    let (two, three) = (["node-1", "node-2"], ["node-1", "node-2", "node-3"]);
    let leave = |node: &mut Node| {
        node.term();
        assert_eq!(node.wait_exit().code(), Some(0));
    };
    quickly("a death", CONVERGENCE, || {
        if !cluster.nodes[2].runs() {
            cluster.nodes[2].start();
            cluster.whole();
        }
        cluster.nodes[2].kill9();
        cluster.convergence(&two)
    });
    quickly("a join", CONVERGENCE, || {
        if cluster.nodes[2].runs() {
            leave(&mut cluster.nodes[2]);
        }
        cluster.whole();
        cluster.nodes[2].start();
        cluster.convergence(&three)
    });
    quickly("a leave", CONVERGENCE, || {
        if !cluster.nodes[2].runs() {
            cluster.nodes[2].start();
        }
        cluster.whole();
        leave(&mut cluster.nodes[2]);
        cluster.convergence(&two)
    });
    cluster.whole();
}

#[test]
fn a_node_that_joins_takes_its_share() {
    let mut cluster = Cluster::steady(2);
    let mut wires = cluster.connect_all();
    let joined = cluster.add();
    cluster.whole();
    let rings = cluster.rings();
    let member = &rings[0].members["node-3"];
    let share: f64 = member["share"].parse().expect("a share is a number");
    assert!((0.25..0.42).contains(&share), "{rings:?}");
    wires.push(cluster.nodes[joined].connect());
    let key = cluster.key_owned_by(joined);
    for wire in &mut wires {
        wire.ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
        wire.ask(&format!("get {key}\r\n"), &format!("VALUE {key} 0 1\r\nx\r\nEND\r\n"));
    }
}

#[test]
fn weights_and_zones_are_shown() {
    let mut cluster = Cluster::empty(&[]);
    cluster.add_with(&["--weight", "100", "--zone", "east"]);
    cluster.add_with(&["--weight", "300", "--zone", "west"]);
    cluster.whole();
    let rings = cluster.rings();
    for ring in &rings {
        let (light, heavy) = (&ring.members["node-1"], &ring.members["node-2"]);
        assert_eq!((&light["weight"][..], &heavy["weight"][..]), ("100", "300"));
        assert_eq!((&light["zone"][..], &heavy["zone"][..]), ("east", "west"));
        let share: f64 = heavy["share"].parse().expect("a share is a number");
        assert!((0.74..0.76).contains(&share), "three of four parts: {rings:?}");
        let slots = |member: &str| ring.members[member]["slots"].parse::<u32>().expect("a count");
        assert_eq!(slots("node-1") + slots("node-2"), 65_536);
        assert_eq!(light["addr"], cluster.nodes[0].addr().to_string());
    }
}

/// The slot goes to a node that joins, the value is replaced there, and the slot comes back.
#[test]
fn a_value_does_not_come_back_when_its_slot_does() {
    let mut cluster = Cluster::start(2);
    let mut wires = cluster.connect_all();
    let keys: Vec<String> = (0..300).map(|n| format!("moving-{n}")).collect();
    for key in &keys {
        wires[0].ask(&format!("set {key} 0 0 3\r\nold\r\n"), "STORED\r\n");
    }
    let joined = cluster.add();
    cluster.whole();
    let moved: Vec<&String> = keys.iter().filter(|key| cluster.owner_of(key) == joined).collect();
    assert!(!moved.is_empty());
    for (n, key) in moved.iter().enumerate() {
        match n % 3 {
            0 => wires[1].ask(&format!("set {key} 0 0 3\r\nnew\r\n"), "STORED\r\n"),
            1 => {
                wires[1].send(format!("delete {key}\r\n").as_bytes());
                let line = wires[1].line().expect("the reply comes in time");
                assert!(line == b"DELETED\r\n" || line == b"NOT_FOUND\r\n", "{}", shown(&line));
            }
            _ => {}
        }
    }
    match moved.len() % 2 {
        0 => cluster.nodes[joined].kill9(),
        _ => {
            cluster.nodes[joined].term();
            cluster.nodes[joined].wait_exit();
        }
    }
    cluster.whole();
    for (n, key) in moved.iter().enumerate() {
        for wire in &mut wires {
            let reply = get(wire, key);
            let wanted: &[&str] = match n % 3 {
                // A leaving node may hand its items over.
                0 => &["", "new"],
                1 => &[""],
                _ => &["", "old"],
            };
            assert!(wanted.contains(&reply.as_str()), "{key} is {reply:?}, not of {wanted:?}");
        }
    }
}

/// What a newcomer tries first: kill the owner, see a miss, set again, and never see the old value.
#[test]
fn a_dead_owners_keys_are_a_miss_and_soon_another_nodes() {
    let mut cluster = Cluster::start(3);
    let key = cluster.key_owned_by(1);
    let mut wires = [cluster.nodes[0].connect(), cluster.nodes[2].connect()];
    quickly("a takeover", TAKEOVER, || {
        if !cluster.nodes[1].runs() {
            cluster.nodes[1].start();
            cluster.whole();
        }
        wires[0].ask(&format!("set {key} 0 0 3\r\nold\r\n"), "STORED\r\n");
        wires[1].ask(&format!("get {key}\r\n"), &format!("VALUE {key} 0 3\r\nold\r\nEND\r\n"));
        cluster.nodes[1].kill9();
        let died = Instant::now();
        for wire in &mut wires {
            eventually("the key has another owner", || set(wire, &key, "new"));
        }
        died.elapsed()
    });

    cluster.nodes[1].start();
    eventually("it has joined again", || {
        for wire in &mut wires {
            let value = get(wire, &key);
            assert!(value.is_empty() || value == "new", "{value:?} came back");
        }
        cluster.nodes[1].ring().ids() == ["node-1", "node-2", "node-3"]
    });
    cluster.whole();
    for mut wire in cluster.connect_all() {
        let value = get(&mut wire, &key);
        assert!(["", "new", "newer"].contains(&value.as_str()), "{value:?} came back");
        assert!(set(&mut wire, &key, "newer"));
    }
}

/// Every node says so at once, and does not wait until others have decided.
#[test]
fn a_dead_owners_keys_are_a_miss_and_an_error() {
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "10", "--peer-timeout", "1000"]);
    let key = cluster.key_owned_by(1);
    let mut wires = [cluster.nodes[0].connect(), cluster.nodes[2].connect()];
    assert!(set(&mut wires[0], &key, "old"));
    let epoch = cluster.rings()[0].epoch;
    cluster.nodes[1].kill9();
    for wire in &mut wires {
        wire.ask(&format!("get {key}\r\nmg {key} v\r\n"), "END\r\nEN\r\n");
        for command in ["delete KEY", "incr KEY 1", "touch KEY 0", "md KEY", "set KEY 0 0 1\r\nx"] {
            wire.send(format!("{}\r\n", command.replace("KEY", &key)).as_bytes());
            let line = wire.line().expect("the reply comes in time");
            assert!(line.starts_with(b"SERVER_ERROR "), "{command} is answered {}", shown(&line));
        }
        // Nothing is said here, and so nothing may go wrong with what follows.
        wire.ask(&format!("set {key} 0 0 1 noreply\r\nx\r\nmn\r\n"), "MN\r\n");
    }
    assert!(cluster.rings().iter().all(|ring| ring.epoch == epoch), "the dead one was still the owner");
}

/// An owner that stands still is overtaken; when it goes on, it holds a value that was overwritten.
#[test]
fn an_owner_that_stood_still_does_not_answer_with_what_was_overwritten() {
    let mut cluster = Cluster::start(3);
    let key = cluster.key_owned_by(1);
    let mut wires = [cluster.nodes[0].connect(), cluster.nodes[2].connect()];
    assert!(set(&mut wires[0], &key, "old"));
    cluster.nodes[1].stop();
    for wire in &mut wires {
        eventually("the key has another owner", || set(wire, &key, "new"));
    }
    cluster.nodes[1].cont();
    eventually("it has joined again", || {
        let told = [get(&mut wires[0], &key), get(&mut wires[1], &key), get_anew(&cluster.nodes[1], &key)];
        assert!(
            told.iter().all(|value| value.is_empty() || value == "new"),
            "{told:?}: the old value came back"
        );
        cluster.nodes[1].ring().ids() == ["node-1", "node-2", "node-3"]
    });
    cluster.whole();
    let mut inside = cluster.nodes[1].connect();
    assert!(["", "new"].contains(&get(&mut inside, &key).as_str()));
    assert!(set(&mut inside, &key, "newer"));
    assert_eq!(get(&mut wires[0], &key), "newer");
}

/// etcd is far away, and a node stands still for longer than its lease. When it goes on it takes a new one, which must
/// not let it serve by the view that it still has: clients that come at once would read what was overwritten.
#[test]
fn a_node_that_wakes_up_after_its_lease_reads_the_view_before_it_serves() {
    // After each removal it rests longer before it joins.
    const ROUNDS: usize = 2;
    // With a short lease, its pings tell it of the view before clients get through.
    let mut cluster = Cluster::start_behind_a_proxy(3, &["--lease-ttl", "5"]);
    let keys: Vec<String> = (0..300).map(|n| format!("frozen-{n}")).collect();
    let get_all = format!("get {}\r\nquit\r\n", keys.join(" "));
    cluster.proxy.as_ref().expect("there is one").slow(Duration::from_millis(30));
    for round in 0..ROUNDS {
        let (old, new) = (format!("old-{round}"), format!("new-{round}"));
        let mut wire = cluster.nodes[1].connect();
        for key in &keys {
            eventually("it is stored", || set(&mut wire, key, &old));
        }
        cluster.nodes[0].stop();
        eventually("the others go on without it", || cluster.nodes[1].ring().ids() == ["node-2", "node-3"]);
        for key in &keys {
            eventually("it is overwritten", || set(&mut wire, key, &new));
        }
        cluster.nodes[0].cont();
        eventually("it has joined again", || {
            for _ in 0..20 {
                let mut anew = cluster.nodes[0].connect();
                // It closes connections unheard for a moment.
                let _ = anew.try_send(get_all.as_bytes());
                let reply = anew.rest().unwrap_or_default();
                let lines: Vec<_> = reply.split(|&byte| byte == b'\n').take(4).map(shown).collect();
                let is_old = reply.windows(old.len()).any(|bytes| bytes == old.as_bytes());
                assert!(!is_old, "{old} came back: {lines:?}");
            }
            cluster.nodes[1].ring().ids() == ["node-1", "node-2", "node-3"]
        });
        cluster.whole();
    }
}

/// A client gives up on a node that stands still, and writes something newer through another one. What the first node
/// had not read by then must not be executed.
#[test]
fn what_lay_before_a_node_that_stood_still_is_not_executed() {
    let mut cluster = Cluster::start(3);
    let keys: Vec<_> = (0..3).map(|owner| cluster.key_owned_by(owner)).collect();
    let mut wire = cluster.nodes[0].connect();
    let mut late = cluster.nodes[1].connect();
    late.ask("mn\r\n", "MN\r\n");
    cluster.nodes[1].stop();
    for key in &keys {
        late.send(format!("set {key} 0 0 3\r\nold\r\n").as_bytes());
    }
    // One more, which the kernel alone accepts.
    let mut later = cluster.nodes[1].connect();
    for key in &keys {
        later.send(format!("set {key} 0 0 3\r\nold\r\n").as_bytes());
    }
    for key in &keys {
        eventually("it is written through another node", || set(&mut wire, key, "new"));
    }
    cluster.nodes[1].cont();
    for wire in [&mut late, &mut later] {
        let rest = wire.rest().expect("the server closes in time");
        assert!(!rest.windows(6).any(|bytes| bytes == b"STORED"), "{}", shown(&rest));
    }
    let holds = |key: &String| cluster.nodes.iter().all(|node| get_anew(node, key) != "old");
    assert!(keys.iter().all(holds), "an old value came back");
    cluster.whole();
    assert!(keys.iter().all(holds), "an old value came back");
}

/// A pause shorter than the lease changes nothing.
#[test]
fn a_short_pause_loses_nothing() {
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "10", "--peer-timeout", "1000"]);
    let key = cluster.key_owned_by(1);
    let mut wire = cluster.nodes[0].connect();
    assert!(set(&mut wire, &key, "kept"));
    let epoch = cluster.rings()[0].epoch;
    cluster.nodes[1].stop();
    // Answered by the deadline of an operation while the owner says nothing.
    assert_eq!(get(&mut wire, &key), "");
    cluster.nodes[1].cont();
    eventually("it answers again", || get(&mut wire, &key) == "kept");
    assert_eq!(cluster.rings()[0].epoch, epoch);
}

/// Keys of the living are not held up by a dead owner's: they are there in the same multiget, and other connections
/// do not wait.
#[test]
fn other_owners_keys_do_not_feel_a_dead_one() {
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "10", "--peer-timeout", "1500"]);
    let keys: Vec<_> = (0..3).map(|owner| cluster.key_owned_by(owner)).collect();
    let [a, dead, b] = &keys[..] else { panic!("three keys") };
    let mut wire = cluster.nodes[0].connect();
    for key in &keys {
        assert!(set(&mut wire, key, "v"));
    }
    cluster.nodes[1].stop();
    wire.ask(
        &format!("get {a} {dead} {b}\r\n"),
        &format!("VALUE {a} 0 1\r\nv\r\nVALUE {b} 0 1\r\nv\r\nEND\r\n"),
    );
    let mut other = cluster.nodes[0].connect();
    let mut ask_others = |wire: &mut Wire| {
        let mut turns = 0;
        wire.send(format!("get {dead}\r\n").as_bytes());
        while !wire.has_input() {
            for key in [a, b] {
                other.ask(&format!("get {key}\r\n"), &format!("VALUE {key} 0 1\r\nv\r\nEND\r\n"));
            }
            turns += 1;
        }
        wire.expect("END\r\n");
        turns
    };
    // Later ones are refused at once.
    let turns = ask_others(&mut wire);
    assert!(turns > 10, "others were asked {turns} times while the dead one was waited for");
    (0..50).for_each(|_| _ = ask_others(&mut wire));
}

/// Clients of the others see no error while a node leaves, and every write happens.
#[test]
fn clients_see_no_error_while_a_node_leaves() {
    const CLIENTS: usize = 4;
    let mut cluster = Cluster::steady(3);
    let stop = AtomicBool::new(false);
    let counts: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let mut wire = cluster.nodes[client % 2].connect();
                let stop = &stop;
                scope.spawn(move || {
                    let mut turns = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let key = format!("load-{client}-{}", turns % 200);
                        let value = turns.to_string();
                        let len = value.len();
                        wire.ask(&format!("set {key} 0 0 {len}\r\n{value}\r\n"), "STORED\r\n");
                        let got = get(&mut wire, &key);
                        assert!(got.is_empty() || got == value, "{key} is {got:?}, not {value}");
                        wire.send(format!("delete {key}\r\n").as_bytes());
                        let line = wire.line().expect("the reply comes in time");
                        assert!(line == b"DELETED\r\n" || line == b"NOT_FOUND\r\n", "{}", shown(&line));
                        turns += 1;
                    }
                    turns
                })
            })
            .collect();
        let stopping = Stop(&stop);
        let mut observer = cluster.nodes[0].connect();
        eventually("there is load", || observer.stat("cmd_set") > 100);
        cluster.nodes[2].term();
        assert_eq!(cluster.nodes[2].wait_exit().code(), Some(0));
        cluster.whole();
        drop(stopping);
        let counts = clients.into_iter().map(|client| client.join());
        let counts: Result<_, _> = counts.collect();
        counts.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!(counts.iter().all(|&turns| turns > 10), "{counts:?}");
}

/// Tells clients to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The clients of the leaving node itself get their answers, and are told by the end of the connection.
#[test]
fn a_leaving_node_answers_what_is_in_flight() {
    const GETS: usize = 1_000;
    let mut cluster = Cluster::steady(3);
    let key = cluster.key_owned_by(1);
    let mut wire = cluster.nodes[2].connect();
    assert!(set(&mut wire, &key, "v"));
    let reply = format!("VALUE {key} 0 1\r\nv\r\nEND\r\n");
    wire.send(format!("get {key}\r\n").repeat(GETS).as_bytes());
    wire.expect(&reply);
    cluster.nodes[2].term();
    let rest = wire.rest().expect("the server closes in time");
    assert_eq!(rest.len() % reply.len(), 0, "the last reply is cut off");
    assert_eq!(cluster.nodes[2].wait_exit().code(), Some(0));
}

#[test]
fn all_nodes_restart_at_once() {
    let mut cluster = Cluster::start(3);
    let key = cluster.key_owned_by(1);
    assert!(set(&mut cluster.nodes[0].connect(), &key, "old"));
    let epoch = cluster.rings()[0].epoch;
    cluster.nodes.iter_mut().for_each(Node::kill9);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.whole();
    assert!(cluster.rings()[0].epoch > epoch);
    for mut wire in cluster.connect_all() {
        assert_ne!(get(&mut wire, &key), "old");
        assert!(set(&mut wire, &key, "new"));
        assert_eq!(get(&mut wire, &key), "new");
    }
}

#[test]
fn all_nodes_leave_and_come_back() {
    let mut cluster = Cluster::steady(3);
    cluster.nodes.iter().for_each(Node::term);
    for node in &mut cluster.nodes {
        assert_eq!(node.wait_exit().code(), Some(0), "{}", Cut(node.stderr()));
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.whole();
}

/// After a join the newcomer answers for its keys, and says why.
#[test]
fn why_follows_the_owner() {
    let mut cluster = Cluster::steady(1);
    let mut wire = cluster.nodes[0].connect();
    let before = why(&mut wire, "k");
    assert_eq!(before["owner"], "node-1");
    cluster.add();
    cluster.whole();
    let key = cluster.key_owned_by(1);
    let after = why(&mut wire, &key);
    assert_eq!(after["owner"], "node-2");
    assert_eq!(after["owner_addr"], cluster.nodes[1].addr().to_string());
    assert!(after["epoch"].parse::<u64>().ok() > before["epoch"].parse().ok());
}
