//! Values of any size go from node to node, and clients of any pace get them.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, STEADY};

/// What key and header may take of an item's limit.
const OVERHEAD: usize = 1024;

#[test]
fn values_up_to_the_limit_pass() {
    let cluster = Cluster::start_with(3, &[&STEADY[..], &["-m", "256"]].concat());
    pass_values(&cluster, 1024 * 1024);
}

#[test]
fn values_up_to_a_raised_limit_pass() {
    let cluster = Cluster::start_with(3, &[&STEADY[..], &["-m", "256", "-I", "8m"]].concat());
    pass_values(&cluster, 8 * 1024 * 1024);
}

fn pass_values(cluster: &Cluster, limit: usize) {
    let mut wires = cluster.connect_all();
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        // About where a message of gRPC ends (4 MiB), and where buffers do.
        for len in [0, 1, 16 * 1024, 65_535, 65_536, limit / 2, limit - OVERHEAD] {
            let fill = char::from(b'a' + u8::try_from(len % 26).expect("below 26"));
            let value = String::from(fill).repeat(len);
            let next = &mut wires[(owner + 1) % 3];
            next.ask(&format!("set {key} 0 0 {len}\r\n{value}\r\n"), "STORED\r\n");
            for wire in &mut wires {
                wire.ask(
                    &format!("get {key}\r\nmg {key} s v\r\n"),
                    &format!("VALUE {key} 0 {len}\r\n{value}\r\nEND\r\nVA {len} s{len}\r\n{value}\r\n"),
                );
            }
        }
        let refused = format!("set {key} 0 0 {limit}\r\n{}\r\nget {key}\r\n", "x".repeat(limit));
        for wire in &mut wires {
            wire.ask(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
            // As on one node, what the client meant to replace is gone.
            wire.ask(&refused, "SERVER_ERROR object too large for cache\r\nEND\r\n");
        }
    }
}

#[test]
fn many_large_values_in_one_pipeline_pass() {
    const KEYS: usize = 60;
    const LEN: usize = 1_000_000;
    let cluster = Cluster::start_with(3, &[&STEADY[..], &["-m", "512"]].concat());
    let mut wires = cluster.connect_all();
    let value = "v".repeat(LEN);
    let request: String = (0..KEYS).map(|n| format!("set big{n} 0 0 {LEN}\r\n{value}\r\n")).collect();
    send_meanwhile(wires[0].writer(), request.into_bytes(), || {});
    wires[0].expect(&"STORED\r\n".repeat(KEYS));
    let request: String = (0..KEYS).map(|n| format!(" big{n}")).collect();
    let reply: String = (0..KEYS).map(|n| format!("VALUE big{n} 0 {LEN}\r\n{value}\r\n")).collect();
    for wire in &mut wires {
        wire.ask(&format!("get{request}\r\n"), &format!("{reply}END\r\n"));
    }
}

/// More replies than all buffers on the way hold, to a client that begins to read late.
#[test]
fn a_slow_reader_of_a_long_pipeline_gets_everything() {
    const COMMANDS: usize = 10_000;
    const LEN: usize = 10_000;
    let cluster = Cluster::steady(3);
    let mut other = cluster.nodes[1].connect();
    let value = "v".repeat(LEN);
    for n in 0..100 {
        other.ask(&format!("set slow{n} 0 0 {LEN}\r\n{value}\r\n"), "STORED\r\n");
    }
    let mut slow = cluster.nodes[0].connect();
    let request: String = (0..COMMANDS).map(|n| format!("get slow{}\r\n", n % 100)).collect();
    send_meanwhile(slow.writer(), request.into_bytes(), || {
        // Others are answered while it does not read.
        let began = Instant::now();
        let mut turns = 0;
        while turns < 100 || began.elapsed() < Duration::from_secs(1) {
            other.ask(
                &format!("get slow{}\r\n", turns % 100),
                &format!("VALUE slow{} 0 {LEN}\r\n{value}\r\nEND\r\n", turns % 100),
            );
            turns += 1;
        }
        for n in 0..COMMANDS {
            slow.expect(&format!("VALUE slow{} 0 {LEN}\r\n{value}\r\nEND\r\n", n % 100));
        }
    });
}

/// Sends from a thread while `f` runs, and waits until all is sent.
fn send_meanwhile(mut writer: TcpStream, bytes: Vec<u8>, f: impl FnOnce()) {
    let sender = thread::spawn(move || writer.write_all(&bytes));
    f();
    sender.join().expect("the sender does not panic").expect("the server takes everything");
}

#[test]
fn long_pipelines_of_many_clients_do_not_lock_each_other() {
    const CLIENTS: usize = 12;
    const COMMANDS: usize = 10_000;
    let cluster = Cluster::steady(3);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut wire = cluster.nodes[client % 3].connect();
            scope.spawn(move || {
                // Reads and writes of values that fill the buffers in both directions.
                let value = "x".repeat(2_000);
                let key = |n: usize| format!("c{client}-{}", n % 50);
                let writes = |n: usize| n % 100 < 50;
                let commands: String = (0..COMMANDS)
                    .map(|n| match writes(n) {
                        true => format!("set {} 0 0 2000\r\n{value}\r\n", key(n)),
                        false => format!("get {}\r\n", key(n)),
                    })
                    .collect();
                send_meanwhile(wire.writer(), commands.into_bytes(), || {
                    for n in 0..COMMANDS {
                        let line = wire.line().expect("the reply comes in time");
                        let line = String::from_utf8_lossy(&line);
                        if writes(n) {
                            assert_eq!(line, "STORED\r\n", "reply {n} of client {client}");
                        } else {
                            assert_eq!(line, format!("VALUE {} 0 2000\r\n", key(n)), "reply {n}");
                            wire.expect(&format!("{value}\r\nEND\r\n"));
                        }
                    }
                });
            });
        }
    });
}
