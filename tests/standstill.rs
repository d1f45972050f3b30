//! A log that nobody reads, and threads that stand still. Such a log holds up nothing. Of such a thread the other nodes
//! hear.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::child::is_root;
use crate::support::cluster::{Cluster, LEASE};
use crate::support::daemon::Daemon;
use crate::support::node::Node;
use crate::support::pipe::Pipe;
use crate::support::run;
use crate::support::server::{Product, Server, command, eventually};
use crate::support::site::Site;
use crate::support::wire::DEADLINE;

/// How soon others have the keys of a node of which a thread stands still: it has to be late by a lease, then it lets
/// go of its own, and a busy machine may take its time.
const TAKEOVER: Duration = LEASE.saturating_mul(4);

#[test]
fn a_stalled_stderr_holds_up_nobody() {
    let mut node = Node::new("node-1", Site::loopback(), vec!["-vv".to_owned()]);
    node.pipe = Some(Pipe::new());
    node.start();
    let pipe = node.pipe.as_ref().expect("it has one");
    eventually("it logs", || pipe.text().contains("listening on"));
    pipe.stall();
    // More lines of -vv than wait.
    let mut wire = node.connect();
    for round in 0..40 {
        let commands: String =
            (0..500).map(|n| format!("set key-{round}-{n} 0 0 1 noreply\r\nx\r\n")).collect();
        wire.send(commands.as_bytes());
    }
    wire.ask("mn\r\n", "MN\r\n");
    let http = node.http();
    eventually("lines are lost", || number(&http.get("/metrics").body, "filbert_log_lines_lost_total") > 0.0);
    node.signal(Signal::SIGHUP);
    node.connect().ask("get key-39-499\r\n", "VALUE key-39-499 0 1\r\nx\r\nEND\r\n");
    assert_eq!(http.get("/healthz").status, 200, "nobody waits for a log");

    pipe.flow();
    eventually("it says what was lost", || pipe.text().contains("lines were lost lost="));
    eventually("and goes on", || pipe.text().contains("reloaded"));
    pipe.stall();
    node.signal(Signal::SIGHUP);
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
}

#[test]
fn what_was_said_last_is_written() {
    let mut node = Node::new("node-1", Site::loopback(), vec!["-vv".to_owned()]);
    node.pipe = Some(Pipe::new());
    node.start();
    let mut wire = node.connect();
    let commands: String = (0..2_000).map(|n| format!("get key-{n}\r\n")).collect();
    wire.send(commands.as_bytes());
    wire.ask("", &"END\r\n".repeat(2_000));
    node.term();
    node.wait_exit();
    let pipe = node.pipe.as_ref().expect("it has one");
    eventually("the last line comes", || {
        pipe.text().contains("get key-1999") && pipe.text().contains("stopping")
    });
}

#[test]
fn a_change_of_view_does_not_wait_for_a_stalled_log() {
    let mut cluster = Cluster::empty(&[]);
    cluster.is_piped = true;
    (0..3).for_each(|_| _ = cluster.add());
    cluster.whole();
    cluster.nodes[1].pipe.as_ref().expect("it has one").stall();
    cluster.add();
    cluster.whole();
    for node in &cluster.nodes {
        node.connect().ask("flush_all\r\n", "OK\r\n");
    }
    cluster.nodes[3].kill9();
    cluster.whole();
    let key = cluster.key_owned_by(1);
    cluster.nodes[0].connect().ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    assert_eq!(cluster.nodes[1].http().get("/healthz").status, 200);
    cluster.nodes[1].pipe.as_ref().expect("it has one").flow();
    let text = || cluster.nodes[1].stderr();
    eventually("it says what happened", || text().contains("went=[\"node-4\"]"));
}

#[test]
fn a_thread_with_clients_that_stands_still_takes_its_node_out() {
    stand_still_in_turn(&["worker-1", "sweeper", "http"]);
}

#[test]
fn a_thread_of_the_cluster_that_stands_still_takes_its_node_out() {
    stand_still_in_turn(&["main", "etcd", "worker-0.batch"]);
}

#[test]
fn membership_that_stands_still_takes_its_node_out() {
    stand_still_in_turn(&["membership"]);
}

/// Each on another node of three, one after another.
fn stand_still_in_turn(threads: &[&str]) {
    let cluster = Cluster::start_with(3, &["-t", "2"]);
    for (node, thread) in threads.iter().enumerate() {
        stand_still(&cluster, node, thread);
    }
}

fn stand_still(cluster: &Cluster, held: usize, thread: &str) {
    let (node, other) = (&cluster.nodes[held], &cluster.nodes[(held + 1) % 3]);
    let third = &cluster.nodes[(held + 2) % 3];
    let keys = cluster.keys_owned_by(held, thread, 20);
    for key in &keys {
        other.connect().ask(&format!("set {key} 0 0 3\r\nold\r\n"), "STORED\r\n");
    }
    let http = node.http();
    assert_eq!(http.get("/healthz").status, 200);
    node.hold(thread);
    // Clients that give up on what they send.
    for key in &keys {
        let given_up = || -> io::Result<()> {
            let mut stream = TcpStream::connect(node.addr())?;
            stream.write_all(format!("set {key} 0 0 5\r\nstale\r\n").as_bytes())
        };
        given_up().expect("the system takes it");
    }
    let began = Instant::now();
    let is_out = |node: &Node| {
        let ring = node.ring();
        ring.members.len() == 2 && ring.settled
    };
    eventually(&format!("{thread}: the others go on without it"), || is_out(other) && is_out(third));
    let took = began.elapsed();
    assert!(took < TAKEOVER, "{thread}: {took:?}");
    // A batch that does not end keeps its whole thread.
    let name = thread.trim_end_matches(".batch");
    let said = format!("a thread does not go on: until it does, this node is not alive thread=\"{name}\"");
    eventually(&format!("{thread}: it says so"), || node.stderr().contains(&said));
    if name != "http" {
        let health = http.get("/healthz");
        assert_eq!(health.status, 503, "{thread}");
        assert!(String::from_utf8_lossy(&health.body).contains("has stood still for"), "{thread}");
    }
    for key in &keys {
        other.connect().ask(&format!("set {key} 0 0 3\r\nnew\r\n"), "STORED\r\n");
        never_old(node, key);
    }
    node.release(thread);
    let mut keys = keys.iter().cycle();
    eventually(&format!("{thread}: it comes back"), || {
        never_old(node, keys.next().expect("there are some"));
        cluster.rings().iter().all(|ring| ring.members.len() == 3 && ring.settled)
    });
    cluster.whole();
    assert_eq!(http.get("/healthz").status, 200, "{thread}");
}

/// Asks a node for what was replaced; it may be silent.
fn never_old(node: &Node, key: &str) {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(node.addr())?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.write_all(format!("get {key}\r\n").as_bytes())?;
        let (mut reader, mut line) = (BufReader::new(stream), String::new());
        reader.read_line(&mut line)?;
        line.clear();
        reader.read_line(&mut line)?;
        Ok(line)
    };
    let value = ask().unwrap_or_default();
    assert!(!matches!(&*value, "old\r\n" | "stale\r\n"), "{key}: {value}");
}

#[test]
fn a_log_file_on_a_full_disk_holds_up_nobody() {
    let mut server = Server::filbert(&["--log-file", "/dev/full", "-vv"]);
    server.connect().ask("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    let http = server.http();
    eventually("lines are lost", || number(&http.get("/metrics").body, "filbert_log_lines_lost_total") > 2.0);
    server.signal(Signal::SIGHUP);
    server.connect().ask("mn\r\n", "MN\r\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(server.stderr(), "");
}

#[test]
fn a_log_file_is_opened_again_at_hup() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
    let path_text = path.to_str().expect("temporary paths are text");
    let mut server = Server::filbert(&["--log-file", path_text, "--log-format", "json"]);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    eventually("it logs", || read(&path).contains("listening on"));
    fs::rename(&path, &moved).expect("the directory is writable");
    server.signal(Signal::SIGHUP);
    eventually("it logs anew", || read(&path).contains("reloaded"));
    // A folder that is gone: it goes on where it was.
    let old = dir.path().join("old");
    fs::create_dir(&old).expect("the directory is writable");
    fs::rename(&path, old.join("log")).expect("the directory is writable");
    fs::create_dir(&path).expect("the directory is writable");
    server.signal(Signal::SIGHUP);
    eventually("it says so", || {
        read(&old.join("log")).contains("the log goes on where it was: cannot open ")
    });
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    assert!(read(&old.join("log")).contains("stopping"));
    assert!(!read(&moved).contains("reloaded") && server.stderr().is_empty());
}

#[test]
fn a_log_file_that_cannot_be_had_stops_the_start() {
    for format in ["text", "json"] {
        let args = ["--log-file", "/nowhere/log", "--log-format", format];
        let ended = run::filbert(&args);
        assert_eq!(ended.code, Some(71), "{}", ended.stderr);
        assert!(ended.stderr.contains("--log-file /nowhere/log: No such file"), "{}", ended.stderr);
        assert_eq!(ended.stderr.starts_with('{'), format == "json", "{}", ended.stderr);
    }
}

#[test]
fn a_daemon_logs_into_its_file() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = dir.path().join("log");
    let path_text = path.to_str().expect("temporary paths are text");
    let daemon = Daemon::start(&["-l", "127.0.0.1", "--log-file", path_text]);
    daemon.connect().ask("mn\r\n", "MN\r\n");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit();
    let said = fs::read_to_string(&path).expect("it is there");
    for line in ["running as root", "starts", "listening on", "stopping"] {
        let wanted = usize::from(line != "running as root" || is_root());
        assert_eq!(said.matches(line).count(), wanted, "{line}: {said}");
    }
}

/// The value of a metric without labels.
fn number(metrics: &[u8], name: &str) -> f64 {
    let text = String::from_utf8_lossy(metrics);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is there: {text}"))
}

/// `/dev/log` is the test's own, in a namespace of mounts.
#[test]
fn the_systems_log_takes_lines_by_their_severity() {
    assert!(is_root(), "mounting needs root");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = UnixDatagram::bind(dir.path().join("socket")).expect("a socket can be made");
    socket.set_read_timeout(Some(DEADLINE)).expect("a deadline that is not zero");
    let script = "set -e; cd \"$0\"; mkdir dev; for node in null zero full random urandom; do \
                  touch dev/$node; mount --bind /dev/$node dev/$node; done; \
                  ln -s \"$0/socket\" dev/log; mount --rbind dev /dev; cd /; exec \"$@\"";
    let folder = dir.path().to_str().expect("temporary paths are text");
    let command = command(Product::Filbert, &["unshare", "--mount", "sh", "-c", script, folder]);
    let mut server =
        Server::spawn_as(Product::Filbert, command, &["-l", "127.0.0.1", "--log-syslog", "-o", "modern"]);
    server.await_ports();
    let pid = server.pid();
    let next = || {
        let mut buffer = [0; 2_048];
        let read = socket.recv(&mut buffer).expect("a message comes in time");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    // syslog(3): daemon (3) times 8, and warning (4) or informational (6).
    for (priority, text) in [
        ("<28>", "WARN accepted as memcached does, without effect here: -o modern"),
        ("<30>", "INFO filbert "),
        ("<30>", "INFO listening on tcp:127.0.0.1:"),
    ] {
        let message = loop {
            let message = next();
            if message.contains(text) {
                break message;
            }
        };
        assert!(message.starts_with(priority) && message.contains(&format!("filbert[{pid}]: ")), "{message}");
    }
    assert_eq!(server.stderr(), "");
    if !Path::new("/dev/log").exists() {
        let ended = run::filbert(&["--log-syslog"]);
        assert!(ended.code == Some(71) && ended.stderr.contains("no system log at /dev/log"), "{ended:?}");
    }
}
