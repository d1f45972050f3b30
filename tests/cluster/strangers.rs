//! A flood of connections to the peers' port keeps out neither peers nor clients.

use std::collections::VecDeque;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cluster::peers::{add, secured};
use crate::support::certificates::Authority;
use crate::support::child::program;
use crate::support::cluster::{Cluster, LEASE};
use crate::support::node::Node;
use crate::support::server::{always, eventually};

/// Connections that a flood makes in a second, and that it keeps open.
const FLOOD_PER_SECOND: u32 = 300;
const FLOOD_KEPT: usize = 700;

/// Silent connections, one after another, until it ends.
struct Flood {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Flood {
    fn start(addrs: Vec<SocketAddr>) -> Flood {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        let thread = thread::spawn(move || {
            let (began, mut made, mut open) = (Instant::now(), 0, VecDeque::new());
            while !ended.load(Ordering::Relaxed) {
                let due = began.elapsed().as_millis() as u32 * FLOOD_PER_SECOND / 1_000;
                while made < due {
                    let addr = addrs[made as usize % addrs.len()];
                    // A listener that is full may not take it.
                    open.extend(TcpStream::connect_timeout(&addr, Duration::from_millis(100)));
                    made += 1;
                    if open.len() > FLOOD_KEPT {
                        open.pop_front();
                    }
                }
                thread::sleep(Duration::from_millis(5));
            }
            made
        });
        Flood { ends, thread }
    }

    /// How many it has made.
    fn end(self) -> u32 {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood does not panic")
    }
}

/// Where a node's peers reach it.
fn peer_addr(cluster: &Cluster, id: &str) -> SocketAddr {
    cluster.rings()[0].members[id]["peer"].parse().expect("the address for peers")
}

/// The wait for an owner is longer than usual: what is looked for is whether peers reach each other, on
/// a machine that has other work, too.
fn patient(mut args: Vec<String>) -> Vec<String> {
    args.extend(["--peer-timeout", "2000", "--peer-connect-timeout", "1000"].map(str::to_owned));
    args
}

#[test]
fn silent_connections_keep_no_peers_apart() {
    let authority = Authority::new();
    let mut cluster = Cluster::empty(&[]);
    for _ in 0..2 {
        add(&mut cluster, &patient(secured(&authority)));
    }
    cluster.whole();
    let addrs = vec![peer_addr(&cluster, "node-1"), peer_addr(&cluster, "node-2")];
    let (flood, began) = (Flood::start(addrs), Instant::now());
    // Its connections are all new, and so are theirs to it.
    add(&mut cluster, &patient(secured(&authority)));
    cluster.whole();
    cluster.nodes[1].kill9();
    cluster.nodes[1].start();
    cluster.whole();
    let keys: Vec<_> = (0..3).map(|owner| cluster.key_owned_by(owner)).collect();
    let mut wires = cluster.connect_all();
    let epoch = cluster.rings()[0].epoch;
    always("every owner is reached, and nobody is removed", LEASE * 2, || {
        for wire in &mut wires {
            for key in &keys {
                wire.ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
            }
        }
        cluster.rings().iter().all(|ring| ring.epoch == epoch)
    });
    let (seconds, made) = (began.elapsed().as_secs() as u32, flood.end());
    assert!(made >= seconds * FLOOD_PER_SECOND / 2, "{made} in {seconds} s");
    let is_told = || cluster.nodes[0].stderr().contains("too many connections to the peers' port");
    eventually("the flood is told of", is_told);
}

fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("it runs").count()
}

#[test]
fn idle_connections_to_the_peers_port_shut_no_client_out() {
    const FILES: usize = 1_000;
    let cluster = Cluster::start_with(2, &["-c", "100"]);
    let node = &cluster.nodes[0];
    let before = open_files(node);
    let limit = Command::new(program("prlimit", "util-linux"))
        .args([format!("--pid={}", node.pid()), format!("--nofile={FILES}:{FILES}")])
        .status();
    assert!(limit.is_ok_and(|status| status.success()), "prlimit ends well");
    let peers = peer_addr(&cluster, "node-1");
    let idle: Vec<_> =
        (0..1_500).filter_map(|_| TcpStream::connect_timeout(&peers, Duration::from_secs(1)).ok()).collect();
    assert!(idle.len() > FILES, "{}", idle.len());
    let mut clients: Vec<_> = (0..90).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.ask("mn\r\n", "MN\r\n");
    }
    assert!(open_files(node) < 600, "{}", open_files(node));
    let key = cluster.key_owned_by(1);
    clients[0].ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    drop(clients);
    // Those that still are open have their time, and no more.
    eventually("none of them is left", || open_files(&cluster.nodes[0]) <= before + 20);
    drop(idle);
    cluster.whole();
    assert!(!cluster.nodes[0].stderr().contains("cannot accept"), "{}", cluster.nodes[0].stderr());
}
