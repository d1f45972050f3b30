//! Groups with origins: what is loaded, how often, for whom, and what wins over it.

mod budgets;
mod crowd;
mod failures;
mod promise;
mod sql;
mod unchanged;

use std::fs;
use std::path::PathBuf;
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::cluster::{Cluster, STEADY, why};
use crate::support::node::stats;
use crate::support::origin::{Origin, Said};
use crate::support::server::{Product, Server, eventually};
use crate::support::wire::Wire;

/// A wait that no test reaches.
const PATIENT: &str = "wait = \"60s\"";

/// A configuration file, in a directory of its own.
struct Config {
    path: PathBuf,
    _dir: TempDir,
}

impl Config {
    fn new(text: &str) -> Config {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let path = dir.path().join("filbert.toml");
        fs::write(&path, text).expect("it can be written");
        Config { path, _dir: dir }
    }

    fn args(&self) -> [&str; 2] {
        ["--config", self.path.to_str().expect("UTF-8")]
    }

    fn start(&self) -> Server {
        Server::filbert(&self.args())
    }
}

fn start(origin: &Origin, fields: &str) -> (Server, Wire) {
    let server = Config::new(&origin.config(fields)).start();
    let wire = server.connect();
    (server, wire)
}

/// The next line, without its end.
fn line(wire: &mut Wire) -> String {
    String::from_utf8(wire.line().expect("a reply")).expect("text").trim_end().to_owned()
}

fn value(key: &str, value: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
}

#[test]
fn a_miss_fills_itself_once() {
    let origin = Origin::start();
    origin.has("Tom", "630");
    let (server, mut wire) = start(&origin, PATIENT);
    for _ in 0..3 {
        wire.ask("get g:Tom\r\n", &value("g:Tom", "630"));
    }
    assert_eq!(origin.asked("Tom"), 1);
    wire.ask("get other:Tom\r\n", "END\r\n");
    assert_eq!(origin.asked_in_all(), 1, "a key of no group is nobody's");
    // All that read a value, and nothing else.
    for (number, (request, reply)) in [
        ("gets g:a\r\n", "VALUE g:a 0 1 "),
        ("gat 100 g:b\r\n", "VALUE g:b 0 1\r\n"),
        ("mg g:c t v\r\n", "VA 1 t-1\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let key = char::from(b'a' + number as u8).to_string();
        origin.has(&key, "1");
        wire.send(request.as_bytes());
        let line = line(&mut wire) + "\r\n";
        assert!(line.starts_with(reply), "{request}: {line}");
        wire.expect("1\r\n");
        if request.starts_with('g') {
            wire.expect("END\r\n");
        }
        assert_eq!(origin.asked(&key), 1);
    }
    let asked = origin.asked_in_all();
    wire.ask("mg g:d\r\n", "EN\r\n");
    wire.ask("mg g:d t\r\n", "EN\r\n");
    wire.ask("mg g:d N30 v\r\n", "VA 0 W\r\n\r\n");
    wire.ask("touch g:e 10\r\n", "NOT_FOUND\r\n");
    wire.ask("incr g:e 1\r\n", "NOT_FOUND\r\n");
    wire.ask("append g:e 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    assert_eq!(origin.asked_in_all(), asked);
    let stats = stats(&mut wire, "stats groups");
    assert_eq!(stats["g:loads_stored"], "4", "{stats:?}");
    assert_eq!(stats["g:misses"], "8");
    assert_eq!(stats["g:origin"], "http");
    drop(server);
}

#[test]
fn many_who_ask_share_one_load_and_keep_their_order() {
    let origin = Origin::start();
    origin.has("cold", "value");
    origin.hold();
    let (server, mut wire) = start(&origin, PATIENT);
    let mut waiting: Vec<Wire> = (0..100).map(|_| server.connect()).collect();
    for wire in &mut waiting {
        wire.send(b"get g:cold\r\nset after 0 0 1\r\nx\r\nget after\r\n");
    }
    eventually("all wait", || stats(&mut wire, "stats groups")["g:waiting"] == "100");
    // Others go on, of the same group, too.
    wire.ask("set g:other 0 0 1\r\n1\r\nget g:other\r\n", &format!("STORED\r\n{}", value("g:other", "1")));
    wire.ask("get after\r\n", &value("after", "x"));
    origin.release();
    for wire in &mut waiting {
        wire.expect(&format!("{}STORED\r\n{}", value("g:cold", "value"), value("after", "x")));
    }
    assert_eq!(origin.asked("cold"), 1);
}

#[test]
fn keys_of_a_multiget_are_loaded_at_the_same_time() {
    let origin = Origin::start();
    origin.hold();
    let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    for key in &keys {
        origin.has(key, key);
    }
    let (_server, mut wire) = start(&origin, PATIENT);
    let line: Vec<String> = keys.iter().map(|key| format!("g:{key}")).collect();
    wire.send(format!("get {} g:none\r\n", line.join(" ")).as_bytes());
    eventually("all are asked for", || origin.asked_in_all() == 21);
    origin.release();
    let values: String =
        keys.iter().map(|key| format!("VALUE g:{key} 0 {}\r\n{key}\r\n", key.len())).collect();
    wire.expect(&format!("{values}END\r\n"));
    assert_eq!(origin.most_under_way(), 21);
}

#[test]
fn no_more_loads_run_than_may() {
    let origin = Origin::start();
    origin.hold();
    let (_server, mut wire) = start(&origin, &format!("{PATIENT}\nmax-inflight = 3"));
    let keys: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    keys.iter().for_each(|key| origin.has(key, "v"));
    let requests: String = keys.iter().map(|key| format!("get g:{key}\r\n")).collect();
    wire.send(requests.as_bytes());
    eventually("three run", || origin.asked_in_all() == 3);
    origin.release();
    keys.iter().for_each(|key| wire.expect(&value(&format!("g:{key}"), "v")));
    assert!(origin.most_under_way() <= 3, "{}", origin.most_under_way());
}

#[test]
fn a_write_during_a_load_wins() {
    for (write, reply, then) in [
        ("set g:k 0 0 3\r\nnew\r\n", "STORED\r\n", Some("new")),
        ("add g:k 0 0 3\r\nnew\r\n", "STORED\r\n", Some("new")),
        ("ms g:k 3\r\nnew\r\n", "HD\r\n", Some("new")),
        ("ma g:k N0 J5\r\n", "HD\r\n", Some("5")),
        ("delete g:k\r\n", "NOT_FOUND\r\n", None),
        ("md g:k\r\n", "NF\r\n", None),
        ("incr g:k 1\r\n", "NOT_FOUND\r\n", None),
        ("flush_all\r\n", "OK\r\n", None),
        ("set g:k 0 0 3\r\nnew\r\ndelete g:k\r\n", "STORED\r\nDELETED\r\n", None),
        ("set g:k 0 -1 3\r\nnew\r\n", "STORED\r\n", None),
    ] {
        let origin = Origin::start();
        origin.has("k", "old");
        origin.hold();
        let (server, mut early) = start(&origin, PATIENT);
        early.send(b"get g:k\r\n");
        origin.await_asked("k", 1);
        let mut writer = server.connect();
        writer.ask(write, reply);
        origin.has("k", "fresh");
        // Whoever comes after the write sees nothing older than it.
        let mut late = server.connect();
        match then {
            Some(then) => late.ask("get g:k\r\n", &value("g:k", then)),
            None => {
                late.send(b"get g:k\r\n");
                origin.await_asked("k", 2);
            }
        }
        origin.release();
        // Whoever came before it may see what was loaded, or what has come.
        let seen = early.until_end();
        let possible = [Some("old"), Some(then.unwrap_or("fresh"))];
        assert!(possible.iter().flatten().any(|one| seen == value("g:k", one)), "{write}: {seen}");
        if then.is_none() {
            late.expect(&value("g:k", "fresh"));
        }
        let now = then.unwrap_or("fresh");
        for _ in 0..2 {
            writer.ask("get g:k\r\n", &value("g:k", now));
        }
        assert_eq!(origin.asked("k"), if then.is_some() { 1 } else { 2 }, "{write}");
    }
}

#[test]
fn what_is_not_there_is_remembered_for_as_long_as_it_is_said() {
    let origin = Origin::start();
    let (_server, mut wire) = start(&origin, &format!("{PATIENT}\nnegative-ttl = \"1h\""));
    for _ in 0..5 {
        wire.ask("get g:none\r\n", "END\r\n");
    }
    assert_eq!(origin.asked("none"), 1);
    assert_eq!(stats(&mut wire, "stats groups")["g:negative_hits"], "4");
    let told = why(&mut wire, "g:none");
    assert_eq!((told["group"].as_str(), told["negative"].as_str()), ("g", "yes"));
    // A client's own value is there all the same.
    wire.ask("set g:none 0 0 1\r\nx\r\n", "STORED\r\n");
    wire.ask("get g:none\r\n", &value("g:none", "x"));
    // Without that, each one is asked for.
    let (_server, mut wire) = start(&origin, PATIENT);
    wire.ask("get g:none\r\nget g:none\r\n", "END\r\nEND\r\n");
    assert!(origin.asked("none") >= 2);
}

#[test]
fn nobody_waits_for_longer_than_the_group_says() {
    let origin = Origin::start();
    origin.has("slow", "value");
    origin.hold();
    let (_server, mut wire) = start(&origin, "wait = \"200ms\"");
    wire.ask("get g:slow\r\n", "END\r\n");
    assert_eq!(stats(&mut wire, "stats groups")["g:timeouts"], "1");
    origin.release();
    eventually("it is stored when it comes", || {
        wire.send(b"mg g:slow\r\n");
        line(&mut wire) == "HD"
    });
    assert_eq!(origin.asked("slow"), 1);
}

#[test]
fn a_write_ends_that_there_is_none() {
    let origin = Origin::start();
    let (server, mut wire) = start(&origin, &format!("{PATIENT}\nnegative-ttl = \"1h\""));
    wire.ask("get g:a\r\nget g:b\r\nget g:c\r\n", "END\r\nEND\r\nEND\r\n");
    for key in ["a", "b", "c"] {
        origin.has(key, "new");
    }
    wire.ask("get g:a\r\ndelete g:a\r\nget g:a\r\n", &format!("END\r\nNOT_FOUND\r\n{}", value("g:a", "new")));
    wire.ask("set g:b 0 0 1\r\nx\r\nmd g:b\r\n", "STORED\r\nHD\r\n");
    wire.ask("get g:b\r\n", &value("g:b", "new"));
    let deleted = server.http().delete("/api/v1/items/g:c");
    assert_eq!(deleted.status, 404);
    wire.ask("get g:c\r\n", &value("g:c", "new"));
}

#[test]
fn times_to_live_are_those_of_group_and_origin() {
    let origin = Origin::start();
    for (key, control) in [("short", "max-age=30"), ("long", "max-age=9000"), ("none", "no-store")] {
        origin.says(key, Said::ValueFor("v".into(), control.into()));
    }
    origin.has("usual", "v");
    let (_server, mut wire) = start(&origin, &format!("{PATIENT}\nttl = \"10m\"\nmax-ttl = \"1h\""));
    let ttl = |wire: &mut Wire, key: &str| {
        wire.send(format!("mg g:{key} t v\r\n").as_bytes());
        let line = line(wire);
        wire.expect("v\r\n");
        line.strip_prefix("VA 1 t").expect("a time").parse::<i64>().expect("a number")
    };
    for (key, most) in [("short", 30), ("long", 600), ("usual", 600)] {
        ttl(&mut wire, key);
        let left = ttl(&mut wire, key);
        assert!((most - 5..=most).contains(&left), "{key}: {left}");
        assert_eq!(origin.asked(key), 1);
    }
    for _ in 0..2 {
        wire.ask("get g:none\r\n", &value("g:none", "v"));
    }
    assert_eq!(origin.asked("none"), 2, "it is not to be kept");
    // What clients write lives no longer either.
    for (number, exptime) in [0, 100_000, 60].into_iter().enumerate() {
        wire.ask(&format!("set g:own{number} 0 {exptime} 1\r\nv\r\n"), "STORED\r\n");
        let left = ttl(&mut wire, &format!("own{number}"));
        let most = if exptime == 60 { 60 } else { 3600 };
        assert!((most - 5..=most).contains(&left), "{exptime}: {left}");
    }
    wire.ask("set other 0 0 1\r\nv\r\nmg other t v\r\n", "STORED\r\nVA 1 t-1\r\nv\r\n");
}

#[test]
fn what_is_stale_is_shown_and_loaded_anew() {
    let origin = Origin::start();
    origin.has("k", "one");
    let fields = format!("{PATIENT}\nttl = \"1s\"\nstale-while-revalidate = \"1h\"");
    let (_server, mut wire) = start(&origin, &fields);
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    origin.has("k", "two");
    let mut seen = Vec::new();
    eventually("it is loaded anew", || {
        wire.send(b"get g:k\r\n");
        let reply = wire.until_end();
        assert!(reply.contains("one") || reply.contains("two"), "{reply}");
        seen.push(reply.contains("two"));
        reply.contains("two")
    });
    assert!(seen.is_sorted(), "the old one came back");
    let stats = stats(&mut wire, "stats groups");
    assert_ne!(stats["g:stale"], "0");
    assert_eq!(stats["g:misses"], "1", "{stats:?}");
}

#[test]
fn groups_are_read_again_at_hup() {
    let origin = Origin::start();
    origin.has("k", "v");
    let config = Config::new("memory-limit = 64\n");
    let server = config.start();
    let mut wire = server.connect();
    wire.ask("get g:k\r\n", "END\r\n");
    fs::write(&config.path, origin.config(PATIENT)).expect("it can be written");
    server.signal(Signal::SIGHUP);
    eventually("the group is there", || {
        wire.send(b"get g:k\r\n");
        wire.until_end().contains('v')
    });
    fs::write(&config.path, "[[group]]\nname = 'g'\nprefix = 'g:'\nttl = 'soon'\n")
        .expect("it can be written");
    server.signal(Signal::SIGHUP);
    eventually("the fault is said", || server.stderr().contains("not reloaded: "));
    assert!(server.stderr().contains("line 4: group \"g\": ttl: needs a time"), "{}", server.stderr());
    wire.ask("delete g:k\r\nget g:k\r\n", &format!("DELETED\r\n{}", value("g:k", "v")));
}

#[test]
fn a_cluster_loads_once_at_the_owner() {
    let origin = Origin::start();
    let config = Config::new(&origin.config(PATIENT));
    let args = [&STEADY[..], &config.args()].concat();
    let cluster = Cluster::start_with(3, &args);
    let keys: Vec<String> = (0..12).map(|number| format!("k{number}")).collect();
    keys.iter().for_each(|key| origin.has(key, key));
    origin.hold();
    let mut waiting: Vec<Wire> = (0..10).flat_map(|_| cluster.connect_all()).collect();
    let requests: String = keys.iter().map(|key| format!("get g:{key}\r\n")).collect();
    waiting.iter_mut().for_each(|wire| wire.send(requests.as_bytes()));
    eventually("every key is asked for", || origin.asked_in_all() == keys.len());
    origin.release();
    for wire in &mut waiting {
        keys.iter().for_each(|key| wire.expect(&value(&format!("g:{key}"), key)));
    }
    keys.iter().for_each(|key| assert_eq!(origin.asked(key), 1, "{key}"));

    // A write through one node wins over the load of another.
    origin.has("late", "old");
    origin.hold();
    let mut wires = cluster.connect_all();
    wires[0].send(b"get g:late\r\n");
    origin.await_asked("late", 1);
    wires[1].ask("set g:late 0 0 3\r\nnew\r\n", "STORED\r\n");
    origin.release();
    wires[0].expect(&value("g:late", "new"));
    for wire in &mut wires {
        wire.ask("get g:late\r\n", &value("g:late", "new"));
    }
}

#[test]
fn an_old_memcached_is_taken_over_warm() {
    let old = Server::start(Product::Memcached, &[]);
    old.connect().ask("set g:k 7 100 5\r\nvalue\r\nset g:n 0 0 1\r\n1\r\n", "STORED\r\nSTORED\r\n");
    let config = format!(
        "[[group]]\nname = \"g\"\nprefix = \"g:\"\n{PATIENT}\n[group.origin]\nmemcached = [\"{}\"]\n",
        old.addr()
    );
    let server = Config::new(&config).start();
    let mut wire = server.connect();
    wire.ask("get g:k\r\n", "VALUE g:k 7 5\r\nvalue\r\nEND\r\n");
    drop(old);
    wire.send(b"mg g:k f t v\r\n");
    let line = line(&mut wire);
    let left: u32 = line.strip_prefix("VA 5 f7 t").expect("flags and a time").parse().expect("a number");
    assert!((90..=100).contains(&left), "{left}");
    wire.expect("value\r\n");
}

#[test]
fn an_owner_that_dies_leaves_a_miss_and_no_error() {
    let origin = Origin::start();
    origin.has("k", "v");
    let config = Config::new(&origin.config("wait = \"10s\""));
    let mut cluster = Cluster::start_with(3, &config.args());
    let owner = cluster.owner_of("g:k");
    let other = (owner + 1) % 3;
    origin.hold();
    let mut wire = cluster.nodes[other].connect();
    wire.send(b"get g:k\r\n");
    origin.await_asked("k", 1);
    cluster.nodes[owner].kill9();
    wire.expect("END\r\n");
    origin.release();
    eventually("another owner loads it", || {
        wire.send(b"get g:k\r\n");
        wire.until_end().contains('v')
    });
}

#[test]
fn a_stop_answers_those_who_wait() {
    let origin = Origin::start();
    origin.hold();
    let (mut server, mut wire) = start(&origin, PATIENT);
    wire.send(b"get g:k\r\n");
    origin.await_asked("k", 1);
    let stopping = thread::spawn(move || {
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_exit().code(), Some(0));
    });
    wire.expect("END\r\n");
    stopping.join().expect("it ends");
}

#[test]
fn a_load_that_nobody_waits_for_any_more_is_not_begun() {
    let origin = Origin::start();
    origin.hold();
    let (_server, mut wire) = start(&origin, "wait = \"300ms\"\nmax-inflight = 1");
    wire.ask("get g:a\r\nget g:b\r\n", "END\r\nEND\r\n");
    eventually("the second one is dropped", || stats(&mut wire, "stats groups")["g:loads_dropped"] == "1");
    origin.release();
    eventually("the first one is over", || stats(&mut wire, "stats groups")["g:inflight"] == "0");
    assert_eq!(origin.asked("b"), 0);
}

#[test]
fn a_value_past_its_time_gets_no_new_life() {
    let origin = Origin::start();
    origin.has("k", "one");
    let (_server, mut wire) = start(&origin, &format!("{PATIENT}\nttl = \"1s\"\nstale-if-error = \"1h\""));
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    origin.has("k", "two");
    let ttl = |wire: &mut Wire| {
        wire.send(b"mg g:k t\r\n");
        line(wire).strip_prefix("HD t").expect("it is there").parse::<u32>().expect("a number")
    };
    eventually("its time is over", || ttl(&mut wire) <= 3600);
    let told = why(&mut wire, "g:k");
    let of = |name: &str| told[name].parse::<u64>().expect("a number");
    assert_eq!((&told["stale"][..], of("fresh_seconds_left"), of("age") > 0), ("yes", 0, true), "{told:?}");
    wire.ask("gat 100 g:k\r\n", &value("g:k", "two"));
    assert!(ttl(&mut wire) <= 100);
}

#[test]
fn a_group_is_flushed_at_once_everywhere() {
    let origin = Origin::start();
    let config = Config::new(&origin.config(PATIENT));
    let cluster = Cluster::start_with(3, &[&STEADY[..], &config.args()].concat());
    let mut wires = cluster.connect_all();
    let fill = |wire: &mut Wire| {
        for number in 0..100 {
            wire.ask(
                &format!("set g:{number} 0 0 1\r\n1\r\nset h:{number} 0 0 1\r\n1\r\n"),
                "STORED\r\nSTORED\r\n",
            );
        }
    };
    let held = |wire: &mut Wire, prefix: &str| {
        let count = |number: &u32| {
            wire.send(format!("mg {prefix}:{number}\r\n").as_bytes());
            line(wire) == "HD"
        };
        (0..100).filter(count).count()
    };
    fill(&mut wires[0]);
    wires[1].ask("flush_group g\r\n", "OK\r\n");
    for wire in &mut wires {
        assert_eq!((held(wire, "g"), held(wire, "h")), (0, 100));
    }
    fill(&mut wires[2]);
    wires[0].ask("flush_prefix h:1 noreply\r\nflush_prefix h:2\r\n", "OK\r\n");
    // 1, 10 to 19, 2 and 20 to 29.
    assert_eq!((held(&mut wires[1], "g"), held(&mut wires[1], "h")), (100, 78));
    assert_eq!(cluster.nodes[2].http().ask("POST", "/api/v1/groups/g/flush", &[], b"").status, 204);
    assert_eq!(held(&mut wires[0], "g"), 0);
    cluster.nodes[0].http().ask("POST", "/api/v1/groups/x/flush", &[], b"").problem(404);
    wires[0].ask(
        "flush_group x\r\nflush_prefix\r\n",
        "CLIENT_ERROR no such group\r\nCLIENT_ERROR bad command line format\r\n",
    );
}

#[test]
fn flushes_can_be_forbidden() {
    let origin = Origin::start();
    let config = Config::new(&origin.config(PATIENT));
    let server = Server::filbert(&[&config.args()[..], &["-F"]].concat());
    let refused = "CLIENT_ERROR flush not allowed\r\n";
    server.connect().ask("flush_group g\r\nflush_prefix a\r\n", &format!("{refused}{refused}"));
    server.http().ask("POST", "/api/v1/groups/g/flush", &[], b"").problem(403);
}

#[test]
fn nodes_with_other_groups_are_told_of() {
    let origin = Origin::start();
    let (one, other) = (Config::new(&origin.config(PATIENT)), Config::new(&origin.config("")));
    let mut cluster = Cluster::empty(&STEADY);
    for config in [&one, &one, &other] {
        cluster.add_with(&config.args());
    }
    cluster.whole();
    let mut wire = cluster.nodes[0].connect();
    eventually("it is seen", || {
        stats(&mut wire, "stats ring").get("groups_differ").map(String::as_str) == Some("node-3")
    });
    assert_eq!(cluster.nodes[0].http().metrics().value("filbert_cluster_members_with_other_groups"), 1.0);
    let listing = cluster.nodes[0].http().get("/api/v1/groups").json();
    assert_eq!(listing["members_with_other_groups"], serde_json::json!(["node-3"]));
    let said = || cluster.nodes[0].stderr().matches("its groups are not those of this node").count();
    eventually("it is said", || said() == 1);
    fs::write(&other.path, origin.config(PATIENT)).expect("it can be written");
    cluster.nodes[2].signal(Signal::SIGHUP);
    eventually("it is over", || !stats(&mut wire, "stats ring").contains_key("groups_differ"));
    assert_eq!(said(), 1);
}
