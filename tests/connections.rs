//! Connections: how they are fed, bounded, refused and ended.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::for_both;
use crate::support::server::{Product, Server, eventually};
use crate::support::shown::Cut;
use crate::support::wire::Wire;

for_both! {
    takes_one_byte_at_a_time
    answers_a_long_pipeline_in_order
    answers_a_multiget_of_100_000_keys
    is_not_held_up_by_a_client_that_does_not_read
    finishes_a_half_closed_connection
    closes_idle_connections
    lets_a_slow_reader_take_its_time
    sends_a_value_as_it_was_when_it_was_asked_for
    refuses_connections_over_the_limit
    counts_refused_connections_apart
    stops_on_term
    listens_on_several_addresses
    listens_on_a_unix_socket
    refuses_to_start_on_a_port_in_use
    reloads_the_password_file_on_hup
}

fn takes_one_byte_at_a_time(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    for byte in b"set k 5 0 7\r\nval\r\nue\r\nmg k v f\r\nget k nothing\r\n" {
        wire.send(&[*byte]);
    }
    wire.expect("STORED\r\nVA 7 f5\r\nval\r\nue\r\nVALUE k 5 7\r\nval\r\nue\r\nEND\r\n");
}

fn answers_a_long_pipeline_in_order(product: Product) {
    const COMMANDS: usize = 100_000;
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    wire.ask("set n 0 0 1\r\n0\r\n", "STORED\r\n");
    let mut writer = wire.writer();
    let sender = thread::spawn(move || writer.write_all("incr n 1\r\n".repeat(COMMANDS).as_bytes()));
    for n in 1..=COMMANDS {
        let line = wire.line().expect("the reply comes in time");
        assert_eq!(format!("{n}\r\n"), String::from_utf8_lossy(&line));
    }
    sender.join().expect("the sender does not panic").expect("the server takes everything");
}

fn answers_a_multiget_of_100_000_keys(product: Product) {
    const KEYS: usize = 100_000;
    const STORED_EACH: usize = 1_000;
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    let mut request = String::from("get");
    let mut reply = String::new();
    for n in 0..KEYS {
        let _ = write!(request, " key{n:06}");
        if n % STORED_EACH == 0 {
            wire.ask(&format!("set key{n:06} 0 0 6\r\n{n:06}\r\n"), "STORED\r\n");
            let _ = write!(reply, "VALUE key{n:06} 0 6\r\n{n:06}\r\n");
        }
    }
    let mut writer = wire.writer();
    let sender = thread::spawn(move || writer.write_all(format!("{request}\r\n").as_bytes()));
    wire.expect(&format!("{reply}END\r\n"));
    sender.join().expect("the sender does not panic").expect("the server takes everything");
}

fn is_not_held_up_by_a_client_that_does_not_read(product: Product) {
    /// What the server may need for a client that has been answered with far more than it reads.
    const GROWTH_MAX_KIB: u64 = 64 * 1024;
    /// More than all socket buffers on the way hold, so that a server without a bound takes it all.
    const REQUEST_BYTES_MAX: usize = 256 * 1024 * 1024;
    let server = Server::start(product, &["-t", "2"]);
    let mut other = server.connect();
    let value = "v".repeat(100_000);
    other.ask(&format!("set big 0 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
    let before = server.resident_kib();

    let greedy = server.connect();
    let mut writer = greedy.writer();
    writer.set_write_timeout(Some(Duration::from_millis(500))).expect("a deadline that is not zero");
    let requests = "get big\r\n".repeat(10_000);
    let mut sent = 0;
    let stopped = loop {
        match writer.write(requests.as_bytes()) {
            Ok(len) => sent += len,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break true;
            }
            // Closing such a client is an answer as well.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                break true;
            }
            Err(e) => panic!("sending to {product}: {e}"),
        }
        if sent > REQUEST_BYTES_MAX {
            break false;
        }
    };
    assert!(stopped, "{product} takes requests without end from a client that reads no replies");

    for n in 0..100 {
        other.ask(
            &format!("set k{n} 0 0 1\r\nx\r\nget k{n}\r\n"),
            &format!("STORED\r\nVALUE k{n} 0 1\r\nx\r\nEND\r\n"),
        );
    }
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < GROWTH_MAX_KIB, "{product} grew by {growth} KiB for one client");
}

fn finishes_a_half_closed_connection(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    wire.ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    wire.finish_sending();
    assert_eq!(wire.rest().expect("the server closes in time"), b"");
}

fn closes_idle_connections(product: Product) {
    let server = Server::start(product, &["-o", "idle_timeout=1"]);
    let mut wire = server.connect();
    wire.ask("mn\r\n", "MN\r\n");
    assert_eq!(wire.rest().expect("the server closes in time"), b"");
    assert_eq!(server.connect().stat("idle_kicks"), 1);
}

/// A client that takes its replies slowly is not idle.
fn lets_a_slow_reader_take_its_time(product: Product) {
    const VALUE: usize = 900_000;
    // More than the sockets between the two hold, and more than one idle timeout to take.
    const GETS: usize = 60;
    const PAUSE: Duration = Duration::from_millis(100);
    // Longer than a machine that is busy keeps the reader from reading.
    let server = Server::start(product, &["-o", "idle_timeout=3"]);
    let mut wire = server.connect();
    let value = "v".repeat(VALUE);
    wire.ask(&format!("set k 0 0 {VALUE}\r\n{value}\r\n"), "STORED\r\n");
    let reply_len = format!("VALUE k 0 {VALUE}\r\n{value}\r\nEND\r\n").len();
    wire.send("get k\r\n".repeat(GETS).as_bytes());
    for get in 0..GETS {
        thread::sleep(PAUSE);
        let reply = wire.bytes(reply_len).expect("the reply comes in time");
        assert_eq!(reply.len(), reply_len, "closed within reply {get}");
    }
}

/// What is on its way to a client stays as it was, whatever becomes of the item meanwhile.
fn sends_a_value_as_it_was_when_it_was_asked_for(product: Product) {
    const VALUE: usize = 900_000;
    // More than the sockets between the two hold.
    const GETS: usize = 40;
    let server = Server::start(product, &[]);
    let (mut slow, mut other) = (server.connect(), server.connect());
    let mut store = |byte: &str, len: usize| {
        other.ask(&format!("set k 0 0 {len}\r\n{}\r\n", byte.repeat(len)), "STORED\r\n");
    };
    store("a", VALUE);
    slow.send("get k\r\n".repeat(GETS).as_bytes());
    eventually("the first reply is on its way", || slow.has_input());
    // The same length, another one, and none.
    store("b", VALUE);
    store("c", VALUE - 1);
    other.ask("delete k\r\n", "DELETED\r\n");
    let mut seen = Vec::new();
    for _ in 0..GETS {
        let line = slow.line().expect("the reply comes in time");
        if line == b"END\r\n" {
            seen.push(b'd');
            continue;
        }
        let len = if line.ends_with(b" 900000\r\n") { VALUE } else { VALUE - 1 };
        let value = slow.bytes(len + b"\r\nEND\r\n".len()).expect("the value comes in time");
        let (value, end) = value.split_at(len);
        assert_eq!(end, b"\r\nEND\r\n");
        assert!(value.iter().all(|byte| *byte == value[0]), "a mixture of two values");
        assert_eq!(value[0] == b'c', len < VALUE);
        seen.push(value[0]);
    }
    assert!(seen[0] == b'a' && seen.is_sorted(), "{}", seen.escape_ascii());
    assert_eq!(seen.last(), Some(&b'd'), "all of it was read at once");
}

fn counts_refused_connections_apart(product: Product) {
    let server = Server::start(product, &["-c", "20", "-t", "1"]);
    let mut wire = server.connect();
    let mut open = Vec::new();
    eventually("the limit is reached", || {
        open.push(server.connect());
        wire.stat("rejected_connections") > 0
    });
    let (total, rejected) = (wire.stat("total_connections"), wire.stat("rejected_connections"));
    open.push(server.connect());
    eventually("one more is refused", || wire.stat("rejected_connections") > rejected);
    assert_eq!(wire.stat("total_connections"), total);
}

fn refuses_connections_over_the_limit(product: Product) {
    const LIMIT: usize = 20;
    const REFUSAL: &str = "ERROR Too many open connections\r\n";
    let server = Server::start(product, &["-c", "20", "-t", "1"]);
    let mut open = Vec::new();
    let mut refused = loop {
        let mut wire = server.connect();
        let _ = wire.try_send(b"mn\r\n");
        if wire.bytes(4).expect("an answer comes in time") != b"MN\r\n" {
            break wire;
        }
        open.push(wire);
        assert!(open.len() <= LIMIT, "{} connections are open", open.len());
    };
    // The first four bytes are read already.
    let rest = refused.rest().expect("the server closes in time");
    assert_eq!(String::from_utf8_lossy(&rest), REFUSAL[4..]);

    open.truncate(1);
    let mut next = None;
    eventually("a connection is accepted again", || {
        let mut wire = server.connect();
        let _ = wire.try_send(b"mn\r\n");
        let accepted = wire.bytes(4).is_ok_and(|reply| reply == b"MN\r\n");
        next = accepted.then_some(wire);
        accepted
    });
    let mut wire = next.expect("set when it was accepted");
    assert!(wire.stat("rejected_connections") > 0);
}

fn stops_on_term(product: Product) {
    let mut server = Server::start(product, &[]);
    let mut wire = server.connect();
    wire.ask("mn\r\n", "MN\r\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(wire.rest().expect("the server closes in time"), b"");
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// memcached may stop in the middle of a reply.
/// A health check that was made for HTTP, a client that expects TLS.
#[test]
fn filbert_warns_once_of_clients_that_speak_something_else() {
    for (spoken, named) in [
        (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n", "TLS"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis' protocol"),
        (b"\x05\x01\x00\r\n", "no protocol of memcached's"),
    ] {
        let server = Server::filbert(&[]);
        // Clients that speak it well are not warned of.
        server.connect().ask("mn\r\n", "MN\r\n");
        let mut binary = server.connect();
        binary.send(&[&[0x80, 0x0a][..], &[0; 22]].concat());
        assert_eq!(binary.bytes(24).expect("a NOOP is answered")[..2], [0x81, 0x0a]);
        assert!(!server.stderr().contains("speaks"), "{}", Cut(server.stderr()));
        for _ in 0..5 {
            let mut stranger = server.connect();
            stranger.send(spoken);
            stranger.finish_sending();
            // The end may be a reset.
            let _ = stranger.rest();
        }
        let said = format!(" speaks {named}, which is not understood here");
        eventually("it is warned of", || server.stderr().contains(&said));
        assert_eq!(server.stderr().matches(" speaks ").count(), 1, "{}", Cut(server.stderr()));
    }
}

#[test]
fn filbert_finishes_the_replies_it_began_before_it_stops() {
    const COMMANDS: usize = 1_000;
    let mut server = Server::filbert(&[]);
    let mut wire = server.connect();
    let value = "v".repeat(100);
    wire.ask(&format!("set k 0 0 100\r\n{value}\r\n"), "STORED\r\n");
    let reply = format!("VALUE k 0 100\r\n{value}\r\nEND\r\n");
    wire.send("get k\r\n".repeat(COMMANDS).as_bytes());
    wire.expect(&reply);
    server.signal(Signal::SIGTERM);
    let rest = wire.rest().expect("the server closes in time");
    assert_eq!(rest.len() % reply.len(), 0, "the last reply is cut off");
    assert_eq!(server.wait_exit().code(), Some(0));
}

fn listens_on_several_addresses(product: Product) {
    for args in [&["-l", "127.0.0.1", "-l", "127.0.0.2"][..], &["-l", "127.0.0.1,127.0.0.2"]] {
        let mut server = Server::spawn(product, args);
        let ports = server.await_ports();
        assert_eq!(ports.len(), 2, "one line per listener for {args:?}");
        let mut first = Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0])));
        let mut second = Wire::connect(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), ports[1])));
        first.ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        second.ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    }
}

fn listens_on_a_unix_socket(product: Product) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("socket");
    let name = path.to_str().expect("temporary paths are text");
    let server = Server::spawn(product, &["-s", name, "-a", "0640", "-p", "0"]);
    let mut connected = None;
    eventually("the socket accepts", || {
        connected = Wire::connect_unix(&path).ok();
        connected.is_some()
    });
    let mut wire = connected.expect("set when it was accepted");
    wire.ask("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    let mode = fs::metadata(&path).expect("the socket is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o640, "{mode:o} {}", Cut(server.stderr()));
}

fn refuses_to_start_on_a_port_in_use(product: Product) {
    let first = Server::start(product, &[]);
    let port = first.addr().port().to_string();
    let mut second = Server::spawn(product, &["-l", "127.0.0.1", "-p", &port]);
    let status = second.wait_exit();
    assert!(!status.success(), "{status}");
    let stderr = second.stderr();
    assert!(stderr.contains("in use"), "it says what is wrong: {stderr:?}");
    first.connect().ask("mn\r\n", "MN\r\n");
}

fn reloads_the_password_file_on_hup(product: Product) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("users");
    fs::write(&path, "ann:apple\n").expect("the directory is writable");
    let server = Server::start(product, &["-Y", path.to_str().expect("temporary paths are text")]);
    let mut early = server.connect();
    early.ask("set x 0 0 9\r\nann apple\r\n", "STORED\r\n");

    fs::write(&path, "bob:quince\n").expect("the directory is writable");
    server.signal(Signal::SIGHUP);
    eventually("the new password counts", || {
        let mut wire = server.connect();
        wire.send(b"set x 0 0 10\r\nbob quince\r\n");
        wire.line().expect("the reply comes in time") == b"STORED\r\n"
    });
    server.connect().ask("set x 0 0 9\r\nann apple\r\n", "CLIENT_ERROR authentication failure\r\n");
    // A client that is logged in stays so.
    early.ask("mn\r\n", "MN\r\n");
}

#[test]
fn filbert_keeps_no_memory_for_clients_that_wait() {
    const CLIENTS: u64 = 300;
    const GROWTH_MAX_KIB: u64 = 8 * CLIENTS;
    // Replies of more than are collected before a client has to take them.
    const GETS: usize = 800;
    let server = Server::filbert(&["-t", "1"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    let value = "v".repeat(2_000);
    clients[0].ask(&format!("set k 0 0 2000\r\n{value}\r\n"), "STORED\r\n");
    let reply = format!("VALUE k 0 2000\r\n{value}\r\nEND\r\n");
    let ask = |wire: &mut Wire| {
        wire.send("get k\r\n".repeat(GETS).as_bytes());
        let got = wire.bytes(reply.len() * GETS).expect("the replies come in time");
        assert_eq!(got.len(), reply.len() * GETS);
    };
    ask(&mut clients[0]);
    let before = server.resident_kib();
    clients.iter_mut().for_each(ask);
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < GROWTH_MAX_KIB, "{CLIENTS} clients that wait take {growth} KiB");
}

/// What waits for a watcher is bounded in lines, so a line must not be as long as a client likes.
#[test]
fn filbert_shows_a_watcher_the_beginning_of_a_long_line() {
    const SHOWN_MAX: usize = 2_200;
    let server = Server::filbert(&[]);
    let mut watcher = server.connect();
    watcher.ask("watch rawcmds\r\n", "OK\r\n");
    let mut wire = server.connect();
    let keys: Vec<u8> =
        b"\xff".repeat(250).repeat(200).chunks(250).flat_map(|key| [b" ", key].concat()).collect();
    wire.send(&[b"get", &keys[..], b"\r\n"].concat());
    wire.expect("END\r\n");
    let line = watcher.line().expect("the line comes in time");
    assert!(line.len() < SHOWN_MAX, "{} bytes", line.len());
    let line = String::from_utf8_lossy(&line);
    assert!(line.contains(r"get \xff\xff"), "{line}");
}
