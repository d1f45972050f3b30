//! Values on their way in and replies on their way out: their memory is bounded for all clients together, and clients
//! that behave well are still served.

use std::io::Write;

use fastrand::Rng;

use crate::support::packet::*;
use crate::support::server::{Server, eventually};
use crate::support::wire::Wire;

/// `-m 64`, of which little is stored: an eighth for each way, the program, and what the allocator has not given back.
/// Without a bound it is ten times as much.
const BOUND_KIB: u64 = 64 * 1024;
const HALF_SENT: usize = 500;
const SLOW_READERS: usize = 200;

fn value(len: usize) -> String {
    "v".repeat(len)
}

#[test]
fn half_sent_values_are_bounded_and_others_are_served() {
    bounds_half_sent(format!("set half 0 0 1000000\r\n{}", value(999_000)).as_bytes());
}

/// What a connection was promised for one value is not taken for the next one, which may be far larger.
#[test]
fn large_values_behind_small_ones_are_bounded() {
    let server = Server::filbert(&["-m", "64", "-t", "2", "-o", "read_buf_mem_limit=8"]);
    let mut looking = server.connect();
    let small = format!("set small 0 0 10000\r\n{}\r\n", value(10_000));
    let (front, rest) = small.split_at(5_000);
    let next = format!("{rest}set large 0 0 1000000\r\n{}", value(6_000));
    let mut half_sent: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for wire in &mut half_sent {
        wire.send(front.as_bytes());
    }
    eventually("room is promised to all", || looking.stat("read_buf_count") == 60);
    for wire in &mut half_sent {
        // It may have been closed for the others.
        _ = wire.try_send(next.as_bytes());
    }
    eventually("some are refused", || {
        let bytes = looking.stat("read_buf_bytes");
        assert!(bytes <= 9 << 20, "{bytes} bytes are promised");
        looking.stat("read_buf_oom") > 0
    });
}

#[test]
fn half_sent_packets_are_bounded_and_others_are_served() {
    let packet = Packet::store(SETQ, "half", value(1_000_000)).bytes();
    bounds_half_sent(&packet[..packet.len() - 1_000]);
}

fn bounds_half_sent(half: &[u8]) {
    let server = Server::filbert(&["-m", "64", "-t", "2"]);
    let mut good = server.connect();
    let whole = value(900_000);
    let mut half_sent = Vec::new();
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..HALF_SENT)
            .map(|_| {
                let server = &server;
                let sender = std::thread::Builder::new().stack_size(256 << 10);
                sender
                    .spawn_scoped(scope, move || {
                        let mut wire = server.connect();
                        // It is refused, or closed for the others.
                        let _ = wire.try_send(half);
                        wire
                    })
                    .expect("a thread more")
            })
            .collect();
        for _ in 0..20 {
            good.ask("set small 0 0 2\r\nok\r\nget small\r\n", "STORED\r\nVALUE small 0 2\r\nok\r\nEND\r\n");
            store(&mut good, &whole);
            let kib = server.resident_kib();
            assert!(kib < BOUND_KIB, "{kib} KiB in memory");
        }
        half_sent.extend(senders.into_iter().map(|sender| sender.join().expect("it only sends")));
    });
    let kib = server.resident_kib();
    assert!(kib < BOUND_KIB, "{kib} KiB in memory");
    assert!(good.stat("read_buf_oom") > 0);
    assert!(good.stat("read_buf_bytes") <= 9 << 20);
    drop(half_sent);
    eventually("all of it is given back", || good.stat("read_buf_bytes") == 0);
    store(&mut good, &whole);
}

/// Stores a large value; when everything is full this may take a second try.
fn store(wire: &mut Wire, value: &str) {
    eventually("a large value is stored", || {
        wire.send(format!("set whole 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
        match &wire.line().expect("an answer in time")[..] {
            b"STORED\r\n" => true,
            b"SERVER_ERROR out of memory storing object\r\n" => false,
            other => panic!("{}", other.escape_ascii()),
        }
    });
}

#[test]
fn replies_that_nobody_takes_are_bounded_and_others_are_served() {
    bounds_replies(b"get large\r\n");
}

#[test]
fn packets_that_nobody_takes_are_bounded_and_others_are_served() {
    bounds_replies(&Packet::new(GETKQ, "large").bytes());
}

fn bounds_replies(get: &[u8]) {
    let server = Server::filbert(&["-m", "64", "-t", "2"]);
    let mut good = server.connect();
    let large = value(500_000);
    good.ask(&format!("set large 0 0 500000\r\n{large}\r\n"), "STORED\r\n");
    let reply = format!("VALUE large 0 500000\r\n{large}\r\nEND\r\n");
    // More than the sockets' buffers take.
    let gets = get.repeat(30);
    let mut slow: Vec<_> = (0..SLOW_READERS)
        .map(|_| {
            let mut wire = server.connect();
            wire.send(&gets);
            wire
        })
        .collect();
    for _ in 0..20 {
        good.ask("set small 0 0 2\r\nok\r\nget small\r\n", "STORED\r\nVALUE small 0 2\r\nok\r\nEND\r\n");
        // Where the machine is busy it may take longer than one waits until the slow ones have made room.
        eventually("the value comes", || {
            good.send(b"get large\r\n");
            let line = good.line().expect("a line");
            let kib = server.resident_kib();
            assert!(kib < BOUND_KIB, "{kib} KiB in memory");
            if line.starts_with(b"SERVER_ERROR out of memory") {
                // That closes the connection.
                good = server.connect();
                return false;
            }
            good.expect(&reply[line.len()..]);
            true
        });
    }
    eventually("somebody makes room", || good.stat("response_obj_oom") > 0);
    let kib = server.resident_kib();
    assert!(kib < BOUND_KIB, "{kib} KiB in memory");
    slow.clear();
    eventually("all of it is given back", || good.stat("response_obj_bytes") == 0);
    good.ask("get large\r\n", &reply);
}

#[test]
fn a_value_larger_than_all_of_the_room_comes_in() {
    let server =
        Server::filbert(&["-m", "64", "-I", "32m", "-o", "read_buf_mem_limit=1,resp_obj_mem_limit=1"]);
    let mut wire = server.connect();
    let huge = value(30 << 20);
    let len = huge.len();
    wire.ask(&format!("set huge 0 0 {len}\r\n{huge}\r\n"), "STORED\r\n");
    wire.ask("get huge\r\n", &format!("VALUE huge 0 {len}\r\n{huge}\r\nEND\r\n"));
}

/// Requests of sizes around those at which they are received in other ways, cut into pieces anywhere, with small ones
/// around them; a value that is on its way goes on while others take its place.
#[test]
fn large_values_come_in_whole_however_they_are_cut() {
    let server = Server::filbert(&["-t", "1"]);
    let (mut wire, mut other) = (server.connect(), server.connect());
    let mut rng = Rng::with_seed(7);
    let mut held = String::new();
    for _ in 0..300 {
        let near = [4 << 10, 8 << 10, 16 << 10, 20 << 10, 32 << 10, 64 << 10, 100_000, 900_000];
        let len = rng.choice(near).expect("there are some") + rng.usize(0..200) - 100;
        let piece: String = (0..97).map(|_| rng.alphanumeric()).collect();
        let sent: String = piece.chars().cycle().take(len).collect();
        let old = shown(&held);
        let line = match rng.u8(0..6) {
            0 if held.len() + len < 1_000_000 => format!("append large 0 0 {len}"),
            1 => format!("add large 0 0 {len}"),
            2 => format!("ms large {len} MR"),
            3 => format!("ms large {len} I"),
            _ => format!("set large 7 0 {len}"),
        };
        let is_stored = match &line[..3] {
            "add" => held.is_empty(),
            "app" => !held.is_empty(),
            _ => !line.ends_with("MR") || !held.is_empty(),
        };
        if is_stored && line.starts_with("append") {
            held.push_str(&sent);
        } else if is_stored {
            held = sent.clone();
        }
        let new = shown(&held);
        let said = match (line.starts_with("ms"), is_stored) {
            (true, true) => "HD\r\n",
            (true, false) => "NS\r\n",
            (false, true) => "STORED\r\n",
            (false, false) => "NOT_STORED\r\n",
        };
        let request =
            format!("mg large v\r\n{line}\r\n{sent}\r\nset small 0 0 1\r\n1\r\nmg large v\r\nmn\r\n");
        let sender = &mut wire.writer();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = request.as_bytes();
                while !rest.is_empty() {
                    let most = rest.len().min([100, 20_000, 2_000_000][rng.usize(0..3)]);
                    let (piece, after) = rest.split_at(rng.usize(1..=most));
                    sender.write_all(piece).expect("it is taken");
                    rest = after;
                }
            });
            wire.expect(&format!("{old}{said}STORED\r\n{new}MN\r\n"));
        });
        other.ask("mg large v\r\n", &new);
    }
}

/// The answer to an `mg` with `v` that finds this value.
fn shown(value: &str) -> String {
    if value.is_empty() { "EN\r\n".into() } else { format!("VA {}\r\n{value}\r\n", value.len()) }
}

#[test]
fn a_busy_connection_lets_others_go_first() {
    let server = Server::filbert(&["-t", "1"]);
    let mut busy = server.connect();
    let before = busy.stat("conn_yields");
    busy.send(format!("{}mn\r\n", "set k 0 0 1 noreply\r\n1\r\n".repeat(2_000)).as_bytes());
    busy.expect("MN\r\n");
    let after_stream = busy.stat("conn_yields");
    assert!(after_stream >= before + 7, "{before} to {after_stream}");

    // One command, of which each key counts.
    let got = "VALUE k 0 1\r\n1\r\n".repeat(2_000);
    busy.ask(&format!("get{}\r\n", " k".repeat(2_000)), &format!("{got}END\r\n"));
    let after_multiget = busy.stat("conn_yields");
    assert!(after_multiget >= after_stream + 7, "{after_stream} to {after_multiget}");

    let mut busy = server.connect();
    assert_eq!(ask_all(&mut busy, &vec![Packet::store(SETQ, "k", "1"); 2_000]), []);
    let after_packets: u64 = stat(&mut busy, "", "conn_yields").parse().expect("a number");
    assert!(after_packets >= after_multiget + 7, "{after_multiget} to {after_packets}");
}
