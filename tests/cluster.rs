//! Nodes that are one cache: real processes, a real etcd, and clients that ask any of them.

mod admission;
mod binary;
mod changes;
mod commands;
mod cuts;
mod etcd;
mod expiry;
mod moves;
mod peers;
mod statistics;
mod strangers;
mod values;

use crate::support::node::Node;
use crate::support::server::eventually;
use crate::support::wire::Wire;

/// The value of a key; empty when it is a miss.
#[track_caller]
fn get(wire: &mut Wire, key: &str) -> String {
    wire.send(format!("get {key}\r\n").as_bytes());
    let reply = wire.until_end();
    reply.lines().nth(1).unwrap_or_default().to_owned()
}

/// The value of a key, from a node that has just stood still. For a moment it closes connections without reading.
#[track_caller]
fn get_anew(node: &Node, key: &str) -> String {
    let mut line = Vec::new();
    let mut wire = node.connect();
    eventually("the connection is not closed", || {
        wire = node.connect();
        // Closed before it took everything is the same.
        let _ = wire.try_send(format!("get {key}\r\n").as_bytes());
        line = wire.line().expect("the reply comes in time");
        !line.is_empty()
    });
    if line == b"END\r\n" {
        String::new()
    } else {
        wire.until_end().lines().next().unwrap_or_default().to_owned()
    }
}

/// Whether it was stored; otherwise the answer must be an error.
#[track_caller]
fn set(wire: &mut Wire, key: &str, value: &str) -> bool {
    wire.send(format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
    let line = wire.line().expect("the reply comes in time");
    let stored = line == b"STORED\r\n";
    assert!(stored || line.starts_with(b"SERVER_ERROR "), "{}", shown(&line));
    stored
}

fn shown(line: &[u8]) -> String {
    line.escape_ascii().to_string()
}
