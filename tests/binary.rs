//! The binary protocol on real parts: what memcached does too, and how one logs in.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::for_both;
use crate::support::packet::*;
use crate::support::server::{Product, Server, command};
use crate::support::wire::Wire;

for_both! {
    answers_the_check_of_monit
    speaks_both_protocols_on_one_port
    answers_quiet_commands_only_when_they_fail
    closes_after_bytes_that_are_no_packet
    drops_what_a_set_too_large_was_to_replace
    counts_as_for_text
    shows_statistics_by_group
    flushes_when_it_is_allowed
    refuses_the_protocol_that_was_not_asked_for
}

/// monit's `protocol memcache`: it sends a noop, checks the answer byte by byte, and restarts the service when a byte
/// differs.
fn answers_the_check_of_monit(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    let mut request = [0; 24];
    (request[0], request[1]) = (0x80, NOOP);
    // In two pieces: the server waits for the whole header.
    wire.send(&request[..1]);
    wire.send(&request[1..]);
    let mut expected = request;
    expected[0] = 0x81;
    assert_eq!(wire.bytes(24).expect("an answer"), expected);
}

fn speaks_both_protocols_on_one_port(product: Product) {
    let server = Server::start(product, &[]);
    let (mut text, mut binary) = (server.connect(), server.connect());
    let set = Packet::store(SET, "k", "value").extras(&[0, 0, 0, 7, 0, 0, 0, 0]);
    let stored = ask(&mut binary, &set.opaque(0xdead_beef));
    assert_eq!((stored.status, stored.value.len()), (0, 0));
    assert_ne!(stored.cas, 0);
    text.ask("get k\r\n", "VALUE k 7 5\r\nvalue\r\nEND\r\n");
    text.ask("gets k\r\n", &format!("VALUE k 7 5 {}\r\nvalue\r\nEND\r\n", stored.cas));
    text.ask("set k 8 0 3\r\nnew\r\n", "STORED\r\n");
    let found = ask(&mut binary, &Packet::new(GETK, "k"));
    assert_eq!((found.flags(), &found.key[..], found.text().as_str()), (8, &b"k"[..], "new"));
    assert_eq!(ask(&mut binary, &set_of(&found.cas, "k")).status, 0);
    assert_eq!(ask(&mut binary, &set_of(&found.cas, "k")).status, EXISTS);
}

fn set_of(cas: &u64, key: &str) -> Packet {
    Packet::store(SET, key, "by cas").cas(*cas)
}

fn answers_quiet_commands_only_when_they_fail(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    let answers = ask_all(
        &mut wire,
        &[
            Packet::store(SETQ, "a", "1").opaque(1),
            Packet::store(ADDQ, "a", "2").opaque(2),
            Packet::store(REPLACEQ, "b", "3").opaque(3),
            Packet::store(APPENDQ, "a", "4").opaque(4),
            Packet::store(PREPENDQ, "b", "5").opaque(5),
            Packet::new(GETQ, "a").opaque(6),
            Packet::new(GETKQ, "b").opaque(7),
            Packet::sum(INCREMENTQ, "a", 1, 0, 0).opaque(8),
            Packet::sum(DECREMENTQ, "b", 1, 0, u32::MAX).opaque(9),
            Packet::new(GATQ, "b").extras(&[0; 4]).opaque(10),
            Packet::new(GATKQ, "a").extras(&[0; 4]).opaque(11),
            Packet::new(DELETEQ, "a").opaque(12),
            Packet::new(DELETEQ, "a").opaque(13),
        ],
    );
    let seen: Vec<_> = answers.iter().map(|answer| (answer.opaque, answer.status, answer.text())).collect();
    let expected = [
        (2, 2, "Data exists for key."),
        (3, 1, "Not found"),
        (5, 5, "Not stored."),
        (6, 0, "14"),
        (9, 1, "Not found"),
        (11, 0, "15"),
        (13, 1, "Not found"),
    ];
    assert_eq!(seen, expected.map(|(opaque, status, text)| (opaque, status, text.to_owned())));
}

fn closes_after_bytes_that_are_no_packet(product: Product) {
    let server = Server::start(product, &[]);
    // A key longer than the body, one that is too long, and lengths that a get cannot have.
    for (key, body, status) in [(3_u16, 2_u32, UNKNOWN), (251, 251, INVALID), (1, 2, INVALID)] {
        let mut wire = server.connect();
        let bytes = [&header(GET, 0, key, body)[..], &vec![b'k'; key.into()]].concat();
        wire.send(&bytes);
        assert_eq!(answer(&mut wire).expect("it is told").status, status);
        assert!(answer(&mut wire).is_none(), "it closes");
    }
    let mut wire = server.connect();
    ask(&mut wire, &Packet::new(NOOP, ""));
    wire.send(b"a line where a packet should be\r\n");
    assert!(answer(&mut wire).is_none(), "it closes");
}

fn drops_what_a_set_too_large_was_to_replace(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    let large = vec![b'x'; 1 << 20];
    for (opcode, kept) in [(SET, false), (SETQ, false), (ADD, true), (REPLACEQ, true), (APPEND, true)] {
        ask(&mut wire, &Packet::store(SET, "k", "small"));
        assert_eq!(ask(&mut wire, &Packet::store(opcode, "k", large.clone())).status, TOO_LARGE);
        // What follows is understood.
        let status = if kept { 0 } else { NOT_FOUND };
        assert_eq!(ask(&mut wire, &Packet::new(GET, "k")).status, status, "{opcode:#04x}");
    }
}

fn counts_as_for_text(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    ask(&mut wire, &Packet::store(SET, "k", "v"));
    ask(&mut wire, &Packet::new(GET, "k"));
    ask(&mut wire, &Packet::new(GETK, "none"));
    ask(&mut wire, &Packet::new(TOUCH, "k").extras(&[0; 4]));
    ask(&mut wire, &Packet::new(GAT, "none").extras(&[0; 4]));
    ask(&mut wire, &Packet::sum(INCREMENT, "n", 1, 0, 0));
    ask(&mut wire, &Packet::sum(INCREMENT, "n", 1, 0, 0));
    ask(&mut wire, &Packet::sum(DECREMENT, "none", 1, 0, u32::MAX));
    ask(&mut wire, &Packet::store(SET, "k", "v").cas(u64::MAX));
    ask(&mut wire, &Packet::new(DELETE, "k"));
    ask(&mut wire, &Packet::new(DELETE, "k"));
    ask(&mut wire, &Packet::new(FLUSH, ""));
    for (name, count) in [
        ("cmd_get", "2"),
        ("get_hits", "1"),
        ("get_misses", "1"),
        ("cmd_set", "2"),
        ("cmd_touch", "2"),
        ("touch_hits", "1"),
        ("touch_misses", "1"),
        ("incr_hits", "1"),
        ("incr_misses", "0"),
        ("decr_misses", "1"),
        ("cas_badval", "1"),
        ("delete_hits", "1"),
        ("delete_misses", "1"),
        ("cmd_flush", "1"),
        ("cmd_meta", "0"),
    ] {
        assert_eq!(stat(&mut wire, "", name), count, "{name}");
    }
}

fn shows_statistics_by_group(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    ask(&mut wire, &Packet::store(SET, "p:k", "v"));
    assert_eq!(stat(&mut wire, "items", "items:1:number"), "1");
    assert_eq!(stat(&mut wire, "slabs", "active_slabs"), "1");
    assert_eq!(stat(&mut wire, "sizes", "sizes_status"), "disabled");
    assert_eq!(stat(&mut wire, "settings", "auth_enabled_sasl"), "no");
    assert_eq!(stats(&mut wire, "detail on"), []);
    ask(&mut wire, &Packet::new(GET, "p:k"));
    let dump = stat(&mut wire, "detail dump", "detailed");
    assert_eq!(dump, "PREFIX p get 1 hit 1 set 0 del 0\r\nEND\r\n");
    assert_eq!(stats(&mut wire, "detail off"), []);
    assert_eq!(stats(&mut wire, "reset"), []);
    assert_eq!(stat(&mut wire, "", "cmd_get"), "0");
    for unknown in ["nothing", "cachedump 1 1"] {
        assert_eq!(ask(&mut wire, &Packet::new(STAT, unknown)).status, NOT_FOUND, "{unknown}");
    }
}

fn flushes_when_it_is_allowed(product: Product) {
    let server = Server::start(product, &[]);
    let mut wire = server.connect();
    ask(&mut wire, &Packet::store(SET, "k", "v"));
    // memcached needs another second than that of the set to be sure.
    ask(&mut wire, &Packet::new(FLUSH, "").extras(&100_u32.to_be_bytes()));
    assert_eq!(ask(&mut wire, &Packet::new(GET, "k")).status, 0, "not yet");
    assert!(ask_all(&mut wire, &[Packet::new(FLUSHQ, "")]).is_empty());
    assert_eq!(ask(&mut wire, &Packet::new(GET, "k")).status, NOT_FOUND);

    let server = Server::start(product, &["-F"]);
    let refused = ask(&mut server.connect(), &Packet::new(FLUSHQ, ""));
    assert_eq!((refused.status, refused.text().as_str()), (AUTH_ERROR, "Auth failure."));
}

fn refuses_the_protocol_that_was_not_asked_for(product: Product) {
    let server = Server::start(product, &["-B", "binary"]);
    let mut wire = server.connect();
    assert_eq!(ask(&mut wire, &Packet::new(VERSION, "")).status, 0);
    assert_eq!(stat(&mut wire, "settings", "binding_protocol"), "binary");
    let mut wire = server.connect();
    wire.send(b"a line that is longer than a header\r\n");
    assert_eq!(wire.rest().expect("it closes"), b"");

    let server = Server::start(product, &["-B", "ascii"]);
    let mut wire = server.connect();
    assert_eq!(wire.setting("binding_protocol"), "ascii");
    let mut wire = server.connect();
    wire.send(&[&Packet::new(VERSION, "").bytes()[..], b"\r\n"].concat());
    assert_eq!(wire.line().expect("a line comes back"), b"ERROR\r\n");
}

/// A file of two users.
fn users() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let file = dir.path().join("users");
    fs::write(&file, "ann:apple\nbob:pear\n").expect("the directory is writable");
    (dir, file)
}

fn start_with_users(more: &[&str]) -> (Server, TempDir) {
    let (dir, file) = users();
    let file = file.to_str().expect("UTF-8");
    (Server::filbert(&[&["-Y", file], more].concat()), dir)
}

#[track_caller]
fn assert_logged_in(wire: &mut Wire) {
    assert_eq!(ask(wire, &Packet::new(GET, "none")).status, NOT_FOUND);
}

/// memcached's `-Y` turns the binary protocol off.
#[test]
fn filbert_asks_clients_of_the_binary_protocol_for_the_users_of_the_text_protocol() {
    let (server, _dir) = start_with_users(&[]);
    for packet in [
        Packet::new(GET, "k"),
        Packet::store(SETQ, "k", "v"),
        Packet::new(NOOP, ""),
        Packet::new(STAT, ""),
        Packet::new(0x55, ""),
    ] {
        let mut wire = server.connect();
        let refused = ask(&mut wire, &packet);
        assert_eq!((refused.status, refused.text().as_str()), (AUTH_ERROR, "Auth failure."));
        assert!(answer(&mut wire).is_none(), "it closes");
    }
    let mut wire = server.connect();
    assert_eq!(ask(&mut wire, &Packet::new(VERSION, "")).text(), "1.6.45");
    assert_eq!(ask(&mut wire, &Packet::new(SASL_LIST, "")).text(), "PLAIN");
    for wrong in [
        login("ann", "pear"),
        login("ann", ""),
        login("", ""),
        Packet { value: b"ann apple".to_vec(), ..Packet::new(SASL_AUTH, "PLAIN") },
        Packet { value: b"bob\0ann\0apple".to_vec(), ..Packet::new(SASL_AUTH, "PLAIN") },
        Packet { value: b"\0ann\0apple\0".to_vec(), ..Packet::new(SASL_AUTH, "PLAIN") },
        Packet { key: b"CRAM-MD5".to_vec(), ..login("ann", "apple") },
        Packet { opcode: SASL_STEP, ..login("ann", "apple") },
    ] {
        let refused = ask(&mut wire, &wrong);
        assert_eq!((refused.status, refused.text().as_str()), (AUTH_ERROR, "Auth failure."), "{wrong:?}");
    }
    assert_eq!(ask(&mut wire, &login("ann", "apple")).text(), "Authenticated");
    assert_logged_in(&mut wire);
    assert_eq!(stat(&mut wire, "", "auth_cmds"), "9");
    assert_eq!(stat(&mut wire, "", "auth_errors"), "8");
    // A client that fails to log in again is logged out.
    assert_eq!(ask(&mut wire, &login("ann", "pear")).status, AUTH_ERROR);
    assert_eq!(ask(&mut wire, &Packet::new(NOOP, "")).status, AUTH_ERROR);

    // In two steps, and in the name of oneself.
    let mut wire = server.connect();
    let asked = ask(&mut wire, &Packet::new(SASL_AUTH, "PLAIN"));
    assert_eq!((asked.status, asked.text().as_str()), (AUTH_CONTINUE, ""));
    let message = b"bob\0bob\0pear".to_vec();
    let step = Packet { value: message, ..Packet::new(SASL_STEP, "PLAIN") };
    assert_eq!(ask(&mut wire, &step).text(), "Authenticated");
    assert_logged_in(&mut wire);

    server.connect().ask("set x 0 0 9\r\nann apple\r\n", "STORED\r\n");
}

#[test]
fn filbert_has_no_sasl_without_users() {
    let server = Server::filbert(&[]);
    let mut wire = server.connect();
    for packet in [Packet::new(SASL_LIST, ""), login("ann", "apple")] {
        let refused = ask(&mut wire, &packet);
        assert_eq!((refused.status, refused.text().as_str()), (UNKNOWN, "Unknown command"));
    }
    assert_eq!(ask(&mut wire, &Packet::new(NOOP, "")).status, 0, "the next one is understood");
}

#[test]
fn filbert_takes_the_users_of_sasl_from_the_environment() {
    let (_dir, file) = users();
    let mut command = command(Product::Filbert, &[]);
    command.env("MEMCACHED_SASL_PWDB", &file);
    let mut server = Server::spawn_as(Product::Filbert, command, &["-S", "-l", "127.0.0.1"]);
    let port = server.await_ports()[0];
    let addr = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let mut wire = Wire::connect(addr);
    assert_eq!(ask(&mut wire, &login("bob", "pear")).text(), "Authenticated");
    assert_logged_in(&mut wire);
    assert_eq!(stat(&mut wire, "settings", "auth_enabled_sasl"), "yes");
    // There is no text protocol then, as in memcached.
    let mut wire = Wire::connect(addr);
    wire.send(b"set x 0 0 8\r\nbob pear\r\n");
    assert_eq!(wire.rest().expect("it closes"), b"");
}

#[test]
fn filbert_logs_commands_but_neither_values_nor_passwords() {
    let (server, _dir) = start_with_users(&["-vv"]);
    let mut wire = server.connect();
    ask(&mut wire, &login("ann", "wrong-apple"));
    ask(&mut wire, &login("ann", "apple"));
    ask(&mut wire, &Packet::store(SET, "shown-key", "hidden-value"));
    ask(&mut wire, &login("bob", "pear"));
    crate::support::server::eventually("the command is logged", || server.stderr().contains("set shown-key"));
    let log = server.stderr();
    for hidden in ["apple", "pear", "hidden-value"] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
}

#[test]
fn filbert_raises_its_verbosity() {
    let server = Server::filbert(&[]);
    let mut wire = server.connect();
    assert_eq!(ask(&mut wire, &Packet::new(VERBOSITY, "").extras(&[0, 0, 0, 2])).status, 0);
    assert_eq!(stat(&mut wire, "settings", "verbosity"), "2");
}

/// A key of the binary protocol may hold what would end a line of the others.
#[test]
fn filbert_takes_no_key_for_a_line() {
    let server = Server::filbert(&[]);
    let mut wire = server.connect();
    let key = "a b\r\nmg forged";
    ask(&mut wire, &Packet::store(SET, key, "v"));
    let found = ask(&mut wire, &Packet::new(GETK, key));
    assert_eq!((&found.key[..], found.text().as_str()), (key.as_bytes(), "v"));
    ask(&mut wire, &Packet::sum(INCREMENT, "c d", 1, 1, 0));
    let mut text = server.connect();
    text.send(b"lru_crawler mgdump all\r\n");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != b"EN\r\n") {
        lines.push(text.line().expect("the dump comes"));
    }
    lines.retain(|line| line.starts_with(b"mg "));
    lines.sort();
    assert_eq!(lines, [&b"mg YSBiDQptZyBmb3JnZWQ= b\r\n"[..], b"mg YyBk b\r\n"]);
    text.ask("mg YSBiDQptZyBmb3JnZWQ= b k v\r\n", "VA 1 kYSBiDQptZyBmb3JnZWQ= b\r\nv\r\n");
}

/// As for text: replies that a client asks for and does not read are bounded.
#[test]
fn filbert_goes_on_while_one_client_asks_for_more_than_it_takes() {
    let server = Server::filbert(&["-t", "1"]);
    let mut greedy = server.connect();
    ask(&mut greedy, &Packet::store(SET, "large", vec![b'x'; 1_000_000]));
    greedy.send(&Packet::new(GET, "large").bytes().repeat(1_000));
    let mut other = server.connect();
    for _ in 0..100 {
        assert_eq!(ask(&mut other, &Packet::new(NOOP, "")).status, 0);
    }
    assert!(server.resident_kib() < 200 << 10, "{} KiB", server.resident_kib());
    for _ in 0..1_000 {
        assert_eq!(answer(&mut greedy).expect("all are answered").value.len(), 1_000_000);
    }
    assert_eq!(ask(&mut greedy, &Packet::new(QUIT, "")).status, 0);
    assert!(answer(&mut greedy).is_none(), "it closes");
}

/// In their order, whatever the pieces that they come in.
#[test]
fn filbert_answers_a_long_pipeline_in_order() {
    let server = Server::filbert(&[]);
    let mut wire = server.connect();
    const COMMANDS: u32 = 20_000;
    let mut writer = wire.writer();
    let sender = std::thread::spawn(move || {
        use std::io::Write;

        let bytes: Vec<u8> = (0..COMMANDS)
            .flat_map(|n| match n % 3 {
                0 => Packet::store(SET, &format!("k{}", n % 7), n.to_string()).opaque(n).bytes(),
                1 => Packet::new(GATK, &format!("k{}", n % 7)).extras(&[0; 4]).opaque(n).bytes(),
                _ => Packet::new(DELETE, &format!("k{}", n % 7)).opaque(n).bytes(),
            })
            .collect();
        for piece in bytes.chunks(1_001) {
            writer.write_all(piece).expect("it is taken");
        }
    });
    for n in 0..COMMANDS {
        assert_eq!(answer(&mut wire).expect("all are answered").opaque, n);
    }
    sender.join().expect("all was sent");
}
