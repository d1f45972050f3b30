//! What a node writes to stderr: for people or as JSON, never too much of it, and nothing of what clients store.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::child::program;
use crate::support::cluster::{Cluster, LEASE};
use crate::support::run;
use crate::support::server::{Server, always, eventually};
use crate::support::shown::Cut;

/// `logs/limits.rs`: lines of one kind that are written at once.
const BURST: usize = 20;

#[test]
fn json_is_json_from_the_first_line_to_the_last() {
    // -vv: what clients say is shown, too.
    let mut server = Server::filbert(&["--log-format", "json", "-vv", "-o", "modern"]);
    server.connect().ask("get \"shown\"\r\n", "END\r\n");
    server.signal(Signal::SIGHUP);
    eventually("it says that it has reloaded", || server.stderr().contains("reloaded"));
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    let lines = json(&server.stderr());
    let has = |level: &str, message: &str| {
        let said = |line: &Value| line["message"].as_str().is_some_and(|said| said.contains(message));
        assert!(
            lines.iter().any(|line| line["level"] == level && said(line)),
            "{message}: {:?}",
            Cut(&lines)
        );
    };
    has("WARN", "without effect here: -o modern");
    has("INFO", "starts");
    has("INFO", "listening on tcp:127.0.0.1:");
    has("TRACE", "get \\\"shown\\\"");
    has("INFO", "stopping");
}

#[test]
fn why_a_node_does_not_start_is_json_too() {
    let taken = Server::filbert(&[]);
    let port = taken.addr().port().to_string();
    for (args, code, said) in [
        (&["-m", "lots"][..], 64, "-m lots: needs a number of megabytes"),
        (&["--sparkle"], 64, "--sparkle is no flag"),
        (&["-p", &port, "-u", "root"], 71, "cannot listen on 127.0.0.1:"),
    ] {
        let ended = run::filbert(&[args, &["--log-format=json"]].concat());
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        let lines = json(&ended.stderr);
        let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), 1, "{}", ended.stderr);
        assert!(errors[0]["message"].as_str().is_some_and(|why| why.starts_with(said)), "{}", ended.stderr);
    }
    let ended = run::filbert(&["-m", "lots"]);
    assert!(ended.stderr.starts_with("filbert: -m lots: needs"), "{}", ended.stderr);
}

/// A node without a descriptor for the next client tries again every 50 ms.
#[test]
fn a_flood_of_one_warning_is_cut_off_and_then_told_of() {
    let server = Server::filbert(&["--log-format", "json", "-o", "idle_timeout=0"]);
    let limit = Command::new(program("prlimit", "util-linux"))
        .args([&format!("--pid={}", server.pid()), "--nofile=40:40"])
        .status();
    assert!(limit.is_ok_and(|status| status.success()), "prlimit ends well");
    let _clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let floods = || -> Vec<Value> {
        let is_whole = |line: &&str| line.ends_with('}');
        let stderr = server.stderr();
        let lines =
            stderr.lines().filter(is_whole).map(|line| serde_json::from_str(line).expect("it is JSON"));
        lines.filter(|line: &Value| line.to_string().contains("cannot accept on")).collect()
    };
    eventually("the lines that may be written at once are", || floods().len() >= BURST);
    eventually("one more is written", || floods().len() > BURST);
    let lines = floods();
    let left_out = |line: &Value| line["left_out"].as_u64().unwrap_or(0);
    assert!(lines[..BURST].iter().all(|line| left_out(line) == 0), "{:?}", Cut(&lines));
    assert!(left_out(&lines[BURST]) > 5, "{:?}", lines[BURST]);
}

#[test]
fn passwords_are_not_in_the_log() {
    let users = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(users.path(), "ann:hush\n").expect("the file is writable");
    let users = users.path().to_str().expect("temporary paths are text");
    let mut server = Server::filbert(&["-Y", users, "-vv"]);
    let mut wire = server.connect();
    wire.ask("set a 0 0 8\r\nann hush\r\n", "STORED\r\n");
    wire.ask("get shown\r\n", "END\r\n");
    server.connect().ask("set a 0 0 8\r\nbob hush\r\n", "CLIENT_ERROR authentication failure\r\n");
    // Each of these lines is refused, and what follows is a line, too.
    let mut lost = server.connect();
    for line in [
        "ms a 8",
        "add a 0 0 8",
        "cas a 0 0 8 1",
        "append a 0 0 8",
        "set a 0 0",
        "set hush 0 0 x",
        "auth ann hush",
        "mg hush v",
    ] {
        let refusal = "CLIENT_ERROR unauthenticated\r\n";
        lost.ask(&format!("{line}\r\nann hush\r\n"), &refusal.repeat(2));
    }
    std::fs::write(users, "hush\n").expect("the file is writable");
    server.signal(Signal::SIGHUP);
    eventually("the file is found wrong", || server.stderr().contains("not reloaded"));
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    let said = server.stderr();
    assert!(said.contains("(a line before login)") && said.contains("get shown"), "{}", Cut(&said));
    assert!(!said.contains("hush"), "{}", Cut(&said));
}

#[test]
fn keys_and_values_are_not_in_the_log() {
    let mut cluster = Cluster::start_with(3, &["-m", "2", "-I", "1k"]);
    let keys: Vec<_> = (0..3).flat_map(|node| cluster.keys_owned_by(node, "hush", 2)).collect();
    let long = "hush".repeat(500);
    for dies in [false, true] {
        if dies {
            cluster.nodes[1].kill9();
        }
        for mut wire in cluster.connect_all() {
            for key in &keys {
                wire.send(format!("set {key} 0 0 4\r\nhush\r\nget {key}\r\nincr {key} 1\r\n").as_bytes());
                wire.send(format!("set {key} 0 0 {}\r\n{long}\r\nhush {key}\r\n", long.len()).as_bytes());
            }
            wire.send(b"mn\r\n");
            while wire.line().expect("the reply comes in time") != b"MN\r\n" {}
        }
    }
    eventually("its death is seen", || cluster.running().all(|node| node.ring().ids().len() == 2));
    for node in &cluster.nodes {
        let said = node.stderr();
        assert!(said.contains("joined the cluster") && !said.contains("hush"), "{}", Cut(&said));
    }
    let said = cluster.nodes[0].stderr();
    assert!(said.contains("does not answer pings peer=\"node-2\""), "{}", Cut(&said));
    assert!(said.contains("the cluster changed") && said.contains("went=[\"node-2\"]"), "{}", Cut(&said));
}

#[test]
fn a_node_that_starts_tells_of_the_present_view_alone() {
    let mut cluster = Cluster::start(2);
    let mut wire = cluster.nodes[0].connect();
    for _ in 0..3 {
        wire.ask("flush_all\r\n", "OK\r\n");
    }
    eventually("each flush is said", || {
        cluster.nodes[1].stderr().matches("flush_all: everything held is forgotten").count() == 3
    });
    let said = cluster.nodes[1].stderr();
    let changes = said.matches("the cluster changed").count();
    let joined = cluster.add();
    cluster.whole();
    eventually("it says so", || cluster.nodes[joined].stderr().contains("joined the cluster"));
    eventually("so does a member", || {
        cluster.nodes[1].stderr().matches("the cluster changed").count() > changes
    });
    let said = cluster.nodes[joined].stderr();
    assert!(!said.contains("the cluster changed") && !said.contains("flush_all"), "{said}");
    let said = cluster.nodes[1].stderr();
    assert_eq!(said.matches("the cluster changed").count(), changes + 1, "{said}");
}

/// As after a move to another host, or with a port that was free.
#[test]
fn a_node_restarted_elsewhere_within_its_lease_is_no_error() {
    let mut cluster = Cluster::start(2);
    cluster.nodes[1].kill9();
    let mut moved = cluster.node("node-2", &[]);
    moved.start();
    cluster.nodes[1] = moved;
    cluster.whole();
    let said = cluster.nodes[1].stderr();
    assert!(said.contains("waiting for the end of the lease of an earlier process"), "{}", Cut(&said));
    assert!(!said.contains("ERROR"), "{}", Cut(&said));
}

#[test]
fn a_second_node_of_the_same_id_is_an_error_once_the_first_stays() {
    let cluster = Cluster::start(2);
    let mut double = cluster.node("node-2", &[]);
    double.start();
    let wrong = "another process uses this node's id";
    eventually("it waits", || double.stderr().contains("waiting for the end of the lease"));
    always("it may still be an earlier one", LEASE, || !double.stderr().contains(wrong));
    eventually("it says what is wrong", || double.stderr().contains(wrong));
    assert_eq!(double.stderr().matches(wrong).count(), 1, "{}", Cut(double.stderr()));
    cluster.whole();
}

/// Every line as an object that has what every line has.
fn json(text: &str) -> Vec<Value> {
    let parse = |line: &str| -> Value {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}", Cut(line)));
        for name in ["timestamp", "level", "message", "target"] {
            assert!(object[name].is_string(), "{name}: {}", Cut(line));
        }
        let moment = object["timestamp"].as_str().unwrap_or_default();
        assert!(
            moment.len() == 27 && moment.as_bytes()[10] == b'T' && moment.ends_with('Z'),
            "{}",
            Cut(line)
        );
        object
    };
    text.lines().map(parse).collect()
}
