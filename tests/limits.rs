//! Limits on clients that connections.rs does not reach: waiting for a place, slow ones, and ones that stop.

use std::io::Write as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::server::{Server, eventually};
use crate::support::wire::Wire;

/// memcached runs out of files for its own connections near the limit, and is not compared.
#[test]
fn a_client_over_the_limit_waits_for_a_place_when_told() {
    let server = Server::filbert(&["-c", "2", "-t", "2", "-o", "no_maxconns_fast"]);
    let mut first = server.connect();
    first.ask("mn\r\n", "MN\r\n");
    let mut second = server.connect();
    second.ask("mn\r\n", "MN\r\n");
    let mut waiting = [server.connect(), server.connect()];
    for wire in &mut waiting {
        wire.send(b"mn\r\n");
    }
    eventually("it accepts no more", || first.stat("accepting_conns") == 0);
    assert_eq!(first.stat("curr_connections"), 2);
    assert!(!waiting.iter().any(Wire::has_input), "a client over the limit is served");

    drop(second);
    // A client that leaves makes room for the next one, in the order in which they came.
    for mut wire in waiting {
        wire.expect("MN\r\n");
    }
    eventually("it accepts again", || first.stat("accepting_conns") == 1);
    assert!(first.stat("listen_disabled_num") > 0);
    assert_eq!(first.stat("rejected_connections"), 0);
}

#[test]
fn it_stops_while_a_client_waits_for_a_place() {
    let mut server = Server::filbert(&["-c", "1", "-o", "no_maxconns_fast"]);
    let mut first = server.connect();
    first.ask("mn\r\n", "MN\r\n");
    let mut second = server.connect();
    second.send(b"mn\r\n");
    eventually("it accepts no more", || first.stat("accepting_conns") == 0);
    server.signal(Signal::SIGTERM);
    assert_eq!(first.rest().expect("the server closes in time"), b"");
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_client_that_trickles_does_not_hold_others_up() {
    let server = Server::filbert(&["-t", "1"]);
    let mut slow = server.connect();
    let mut other = server.connect();
    for (n, byte) in b"set slow 0 0 5\r\nhello\r\n".iter().enumerate() {
        slow.send(&[*byte]);
        other.ask(
            &format!("set k 0 0 3\r\n{n:03}\r\nget k\r\n"),
            &format!("STORED\r\nVALUE k 0 3\r\n{n:03}\r\nEND\r\n"),
        );
        if n < 22 {
            other.ask("get slow\r\n", "END\r\n");
        }
    }
    slow.expect("STORED\r\n");
    other.ask("get slow\r\n", "VALUE slow 0 5\r\nhello\r\nEND\r\n");
}

#[test]
fn a_client_that_stops_within_a_value_is_closed_as_idle() {
    let server = Server::filbert(&["-o", "idle_timeout=1"]);
    let mut wire = server.connect();
    wire.send(b"set k 0 0 10\r\nabc");
    assert_eq!(wire.rest().expect("the server closes in time"), b"");
    let mut other = server.connect();
    assert_eq!(other.stat("idle_kicks"), 1);
    other.ask("get k\r\n", "END\r\n");
}

#[test]
fn a_client_that_takes_its_replies_slowly_is_not_idle() {
    const VALUE_BYTES: usize = 1_000_000;
    // Far more than the sockets hold, so that replies wait in the server all the while.
    const GETS: usize = 60;
    // Longer than a machine that is busy keeps the reader from reading.
    let server = Server::filbert(&["-o", "idle_timeout=3"]);
    let mut wire = server.connect();
    wire.ask(&format!("set k 0 0 {VALUE_BYTES}\r\n{}\r\n", "v".repeat(VALUE_BYTES)), "STORED\r\n");
    wire.send("get k\r\n".repeat(GETS).as_bytes());
    let mut left = GETS * format!("VALUE k 0 {VALUE_BYTES}\r\n\r\nEND\r\n").len() + GETS * VALUE_BYTES;
    // A reader's pace, for longer than a silent client would be borne.
    for _ in 0..50 {
        left -= wire.bytes(100_000).expect("the server goes on").len();
        std::thread::sleep(Duration::from_millis(100));
    }
    while left > 0 {
        left -= wire.bytes(left.min(1 << 20)).expect("the server goes on").len();
    }
    wire.ask("mn\r\n", "MN\r\n");
}

#[test]
fn a_client_that_never_reads_does_not_keep_it_from_stopping() {
    let mut server = Server::filbert(&["-t", "1"]);
    let greedy = greedy_client(&server);
    server.connect().ask("mn\r\n", "MN\r\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    drop(greedy);
}

#[test]
fn a_client_that_never_reads_leaves_when_it_goes() {
    let server = Server::filbert(&["-t", "1"]);
    let greedy = greedy_client(&server);
    let mut other = server.connect();
    assert_eq!(other.stat("curr_connections"), 2);
    drop(greedy);
    eventually("it is gone", || other.stat("curr_connections") == 1);
}

/// A client that has asked for more than the sockets hold, and reads nothing.
fn greedy_client(server: &Server) -> Wire {
    let mut wire = server.connect();
    let value = "v".repeat(100_000);
    wire.ask(&format!("set big 0 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
    let mut writer = wire.writer();
    writer.set_write_timeout(Some(Duration::from_millis(200))).expect("a deadline that is not zero");
    // It ends at the first piece that the server does not take.
    while writer.write(&b"get big\r\n".repeat(1_000)).is_ok() {}
    wire
}
