//! Faults that the alerts are for, brought about in real nodes.

use std::io;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::observability::{Watched, rules};
use crate::support::child::program;
use crate::support::http::Http;
use crate::support::prometheus::Prometheus;
use crate::support::server::{Server, eventually};
use crate::support::wire::Wire;

/// As if each had lasted long enough.
const AT_ONCE: &str = "0s";

/// A lease in which Prometheus scrapes a few times, also on a busy machine, before a silent node is put out; and clients
/// that do not wait for that one long.
const IMPATIENT: [&str; 4] = ["--lease-ttl", "6", "--peer-timeout", "250"];

#[test]
fn a_node_that_is_killed_and_comes_back() {
    let mut watched = Watched::start(&rules(AT_ONCE), &IMPATIENT);
    let _load = watched.load();
    let working =
        "sum(filbert_peer_operations_total) > 100 and on () min(time() - process_start_time_seconds) > 3";
    eventually("commands are forwarded, for some time", || !watched.prometheus.numbers(working).is_empty());
    watched.cluster.nodes[2].kill9();
    watched.fires(&[
        "FilbertNodeDown",
        "FilbertBreakerOpen",
        "FilbertForwardErrors",
        "FilbertPeerUnreachable",
        "FilbertMembersLost",
    ]);
    watched.cluster.nodes[2].start();
    watched.cluster.whole();
    watched.fires(&["FilbertNodeRestarted"]);
}

/// One that is frozen keeps a change from being confirmed; one that stutters is slow.
#[test]
fn a_node_that_stutters_and_freezes() {
    let mut watched = Watched::start(&rules(AT_ONCE), &IMPATIENT);
    let _load = watched.load();
    let slow = "FilbertForwardSlow";
    eventually("commands take long", || {
        watched.cluster.nodes[2].stop();
        thread::sleep(Duration::from_millis(100));
        watched.cluster.nodes[2].cont();
        watched.prometheus.fired().contains(slow)
    });
    watched.cluster.whole();
    watched.cluster.nodes[2].stop();
    watched.cluster.nodes[1].term();
    watched.fires(&["FilbertViewNotSettled"]);
    watched.cluster.nodes[1].wait_exit();
    watched.cluster.nodes[2].cont();
}

#[test]
fn a_node_that_is_not_let_in_and_an_etcd_that_dies() {
    let mut watched = Watched::begin(&rules(AT_ONCE), &[]);
    // Where Prometheus expects the second node, one comes that says it is the first.
    let mut double = watched.cluster.node("node-1", &["--http-listen", &watched.http[1].to_string()]);
    double.start();
    let health = Http::at(watched.http[1]);
    assert_eq!(health.get("/readyz").status, 503);
    watched.fires(&["FilbertNodeNotServing", "FilbertLogErrors"]);
    eventually("somebody asks for its health", || {
        health.get("/readyz");
        watched.prometheus.fired().contains("FilbertHttpErrors")
    });
    watched.cluster.etcd.kill();
    watched.fires(&["FilbertEtcdDisconnected", "FilbertLeaseNearItsEnd"]);
}

#[test]
fn a_node_at_its_limits() {
    let server = Server::filbert(&["-M", "-m", "2", "-I", "4k", "-c", "10"]);
    let prometheus = Prometheus::start(&[server.http_addr()], &rules(AT_ONCE));
    let fires = |alert: &str| eventually(&format!("{alert} fires"), || prometheus.fired().contains(alert));
    eventually("it is scraped", || prometheus.numbers("filbert_items") == [0.0]);

    let mut wire = server.connect();
    let mut number = 0;
    eventually("FilbertMemoryFull fires", || {
        for _ in 0..500 {
            number += 1;
            wire.send(format!("set key-{number} 0 0 2000 noreply\r\n{}\r\n", "v".repeat(2_000)).as_bytes());
        }
        wire.ask("mn\r\n", "MN\r\n");
        prometheus.fired().contains("FilbertMemoryFull")
    });

    let mut clients: Vec<Wire> = (1..10).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.ask("mn\r\n", "MN\r\n"));
    fires("FilbertConnectionsNearLimit");
    let refused = server.connect().line().expect("it is told so");
    assert!(refused.starts_with(b"ERROR"), "{}", refused.escape_ascii());
    fires("FilbertConnectionsRefused");

    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count() + 2;
    limit_files(server.pid(), files).expect("prlimit ends well");
    fires("FilbertFilesNearLimit");
    server.signal(Signal::SIGTERM);
    fires("FilbertNodeDown");
}

fn limit_files(pid: u32, files: usize) -> io::Result<()> {
    let args = [format!("--pid={pid}"), format!("--nofile={files}:{files}")];
    let status = Command::new(program("prlimit", "util-linux")).args(args).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}
