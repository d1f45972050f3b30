//! TLS: which certificate a client is shown, which it must show, changing both, and clients that do not play along.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustls::{ClientConfig, version};

use crate::support::certificates::Authority;
use crate::support::child::program;
use crate::support::for_both;
use crate::support::server::{Product, Server, eventually, quickly};
use crate::support::shown::Cut;
use crate::support::wire::Wire;

for_both! {
    stores_and_returns_values
    carries_large_values
    answers_a_long_pipeline_of_openssl_in_order
    asks_clients_for_certificates_as_told
    refuses_tls_1_2_when_told
    shows_the_new_certificate_after_refresh_certs
    closes_on_plain_text
    listens_in_plain_text_where_told
    tells_of_its_certificates
    serves_others_while_clients_are_silent_in_the_handshake
}

fn stores_and_returns_values(product: Product) {
    let authority = Authority::new();
    let server = start(product, &authority, "", &[]);
    for version in [&version::TLS12, &version::TLS13] {
        let mut wire = connect(&server, &authority.client_of(version, None));
        wire.ask("set k 5 0 7\r\nval\r\nue\r\n", "STORED\r\n");
        wire.ask("get k\r\n", "VALUE k 5 7\r\nval\r\nue\r\nEND\r\n");
        wire.ask("mg none\r\n", "EN\r\n");
    }
}

fn carries_large_values(product: Product) {
    /// Under the default `-I` by as much as memcached needs for its header.
    const VALUE_BYTES: usize = 1_000_000;
    let authority = Authority::new();
    let server = start(product, &authority, "", &[]);
    let mut wire = connect(&server, &authority.client());
    let value: String = (0..VALUE_BYTES).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    for n in 0..5 {
        wire.ask(&format!("set k{n} 0 0 {VALUE_BYTES}\r\n{value}\r\n"), "STORED\r\n");
    }
    for n in 0..5 {
        wire.ask(&format!("get k{n}\r\n"), &format!("VALUE k{n} 0 {VALUE_BYTES}\r\n{value}\r\nEND\r\n"));
    }
}

/// Another library's client, which sends and reads at the same time.
fn answers_a_long_pipeline_of_openssl_in_order(product: Product) {
    const COMMANDS: usize = 100_000;
    let authority = Authority::new();
    let server = start(product, &authority, "", &[]);
    let mut openssl = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-CAfile"])
        .arg(authority.path("ca.pem"))
        .args(["-connect", &server.addr().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl starts");
    let mut stdin = openssl.stdin.take().expect("piped");
    let sender = thread::spawn(move || {
        stdin.write_all(b"set n 0 0 1\r\n0\r\n")?;
        stdin.write_all("incr n 1\r\n".repeat(COMMANDS).as_bytes())?;
        stdin.write_all(b"quit\r\n")?;
        // Open until all is read: openssl may stop reading the replies once it has no more to send.
        Ok::<_, std::io::Error>(stdin)
    });
    let mut lines = BufReader::new(openssl.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().map(|line| line.expect("UTF-8 text")).unwrap_or_default();
    assert_eq!(line(), "STORED");
    for n in 1..=COMMANDS {
        assert_eq!(line(), n.to_string());
    }
    drop(sender.join().expect("the sender does not panic").expect("the server takes everything"));
    assert_eq!(line(), "");
    openssl.wait().expect("openssl ends when the server closes");
}

fn asks_clients_for_certificates_as_told(product: Product) {
    let authority = Authority::new();
    let stranger = Authority::new();
    for (mode, none_serves, strangers_serves) in
        [(0, true, true), (1, true, false), (2, false, false), (3, false, false)]
    {
        // Without a mode memcached has no use for authorities, and Filbert says so.
        let authorities = match mode {
            0 => String::new(),
            _ => format!(",ssl_ca_cert={}", authority.path("ca.pem").display()),
        };
        let server = start(product, &authority, &format!("ssl_verify_mode={mode}{authorities}"), &[]);
        for version in [&version::TLS12, &version::TLS13] {
            for (signer, serves) in
                [(None, none_serves), (Some(&authority), true), (Some(&stranger), strangers_serves)]
            {
                let client = authority.client_of(version, signer);
                let whose =
                    signer.map(|signer| if std::ptr::eq(signer, &authority) { "ours" } else { "other" });
                assert_eq!(serves_it(&server, &client), serves, "mode {mode} {whose:?} {version:?}");
            }
        }
    }
}

fn refuses_tls_1_2_when_told(product: Product) {
    let authority = Authority::new();
    let server = start(product, &authority, "ssl_min_version=3", &[]);
    assert!(!serves_it(&server, &authority.client_of(&version::TLS12, None)));
    assert!(serves_it(&server, &authority.client_of(&version::TLS13, None)));
}

fn shows_the_new_certificate_after_refresh_certs(product: Product) {
    let authority = Authority::new();
    let server = start(product, &authority, "", &[]);
    // A client anew each time, since memcached resumes sessions begun with the old certificate.
    let mut early = connect(&server, &authority.client());
    early.ask("mn\r\n", "MN\r\n");
    let first = early.server_certificate();

    let second = authority.sign("server");
    assert_eq!(connect(&server, &authority.client()).server_certificate(), first, "not before it is told to");
    early.ask("refresh_certs\r\n", "OK\r\n");
    let mut late = connect(&server, &authority.client());
    late.ask("mn\r\n", "MN\r\n");
    assert_eq!(late.server_certificate(), second);
    early.ask("mn\r\n", "MN\r\n");
}

fn closes_on_plain_text(product: Product) {
    let authority = Authority::new();
    let server = start(product, &authority, "", &["-t", "1"]);
    let mut other = connect(&server, &authority.client());
    for text in
        ["set k 0 0 1\r\nx\r\n", "get k\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n\r\n\r\n"]
    {
        let mut plain = server.connect();
        plain.send(text.as_bytes());
        // The end may be a reset, and a TLS alert may come before it.
        let answer = plain.rest().expect("the server closes in time");
        assert!(!answer.windows(6).any(|part| part == b"STORED"), "{text:?}: {:?}", Cut(&answer));
        other.ask("get k\r\n", "END\r\n");
    }
    eventually("nobody else is connected", || other.stat("curr_connections") <= connections_at_rest(product));
}

fn listens_in_plain_text_where_told(product: Product) {
    let authority = Authority::new();
    let words = authority.words("");
    let mut server =
        Server::spawn(product, &["-Z", "-o", &words, "-l", "127.0.0.1", "-l", "notls:127.0.0.1:0"]);
    let ports = server.await_ports();
    assert_eq!(ports.len(), 2, "one line per listener");
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut secret = Wire::connect_tls(address(ports[0]), &authority.client()).expect("the hands are shaken");
    let mut plain = Wire::connect(address(ports[1]));
    secret.ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    plain.ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
}

/// `stats` and `stats settings` of a server with certificates.
fn tells_of_its_certificates(product: Product) {
    let authority = Authority::new();
    let server = start(product, &authority, "ssl_min_version=3", &[]);
    let mut wire = connect(&server, &authority.client());
    for (name, value) in [
        ("ssl_enabled", "yes"),
        ("ssl_verify_mode", "0"),
        ("ssl_keyformat", "1"),
        ("ssl_ciphers", "NULL"),
        ("ssl_ca_cert", "NULL"),
        ("ssl_wbuf_size", "16384"),
        // Tickets are always given here; memcached has to be told to keep sessions.
        ("ssl_session_cache", if product == Product::Filbert { "yes" } else { "no" }),
        ("ssl_kernel_tls", "no"),
        ("ssl_min_version", "tlsv1.3"),
    ] {
        assert_eq!(wire.setting(name), value, "{name}");
    }
    let age = wire.stat("time_since_server_cert_refresh");
    eventually("they get older", || wire.stat("time_since_server_cert_refresh") > age);
    let older = wire.stat("time_since_server_cert_refresh");
    wire.ask("refresh_certs\r\n", "OK\r\n");
    assert!(wire.stat("time_since_server_cert_refresh") < older);

    assert_eq!(wire.stat("ssl_handshake_errors"), 0);
    eventually("what is no handshake is counted", || {
        let mut stranger = server.connect();
        stranger.send(b"this is no handshake, but long enough to be told from one\r\n");
        // memcached does not count one whose bytes come after it has looked for them.
        let _ = stranger.rest();
        wire.stat("ssl_handshake_errors") > 0
    });
}

fn serves_others_while_clients_are_silent_in_the_handshake(product: Product) {
    let authority = Authority::new();
    let server = start(product, &authority, "", &["-t", "1"]);
    let silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let halfway: Vec<_> = (0..20)
        .map(|_| {
            let mut wire = server.connect();
            // The head of a handshake record of 512 bytes (RFC 8446, 5.1), and nothing of them.
            wire.send(&[0x16, 0x03, 0x01, 0x02, 0x00]);
            wire
        })
        .collect();
    let mut other = connect(&server, &authority.client());
    other.ask("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    drop((silent, halfway));
    eventually("nobody else is connected", || other.stat("curr_connections") <= connections_at_rest(product));
    other.ask("mn\r\n", "MN\r\n");
}

/// memcached 1.6.18 has no `mtls:`.
#[test]
fn filbert_requires_a_client_certificate_on_one_listener() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let words = authority.words(&format!("ssl_ca_cert={}", authority.path("ca.pem").display()));
    let listen = ["-l", "127.0.0.1", "-l", "mtls:127.0.0.1:0"];
    let mut server = Server::spawn(Product::Filbert, &[&["-Z", "-o", &words][..], &listen].concat());
    let ports = server.await_ports();
    let serves = |port, signer| {
        let client = authority.client_of(&version::TLS13, signer);
        serves_at((Ipv4Addr::LOCALHOST, port).into(), &client)
    };
    assert!(serves(ports[0], None), "without a certificate where none is asked for");
    let mutual = ports[1];
    let all = |when: &str| {
        assert!(!serves(mutual, None), "without a certificate, {when}");
        assert!(!serves(mutual, Some(&stranger)), "with another authority's, {when}");
        assert!(serves(mutual, Some(&authority)), "with a good one, {when}");
    };
    all("at first");
    let mut usual = Wire::connect_tls((Ipv4Addr::LOCALHOST, ports[0]).into(), &authority.client())
        .expect("the hands are shaken");
    usual.ask("refresh_certs\r\n", "OK\r\n");
    all("after the certificates were read again");
    let mut plain = Wire::connect((Ipv4Addr::LOCALHOST, mutual).into());
    plain.send(b"mn\r\n");
    assert!(!plain.rest().expect("the server closes").starts_with(b"MN"));
    eventually("it is warned of", || server.stderr().contains("speaks plain text to a listener with TLS"));
}

/// memcached leaves its certificates alone then.
#[test]
fn filbert_shows_the_new_certificate_after_hup() {
    let authority = Authority::new();
    let server = start(Product::Filbert, &authority, "", &[]);
    let client = authority.client();
    let mut early = connect(&server, &client);
    early.ask("mn\r\n", "MN\r\n");
    let second = authority.sign("server");
    server.signal(Signal::SIGHUP);
    eventually("the new certificate is shown", || connect(&server, &client).server_certificate() == second);
    early.ask("mn\r\n", "MN\r\n");
}

/// memcached loses the name of the file.
#[test]
fn filbert_keeps_the_old_certificate_when_the_new_one_is_bad_and_says_so() {
    let authority = Authority::new();
    let server = start(Product::Filbert, &authority, "", &[]);
    let client = authority.client();
    let mut early = connect(&server, &client);
    let first = early.server_certificate();

    fs::write(authority.path("server.key"), "half-writ").expect("the directory is writable");
    early.send(b"refresh_certs\r\n");
    let answer = String::from_utf8(early.line().expect("the reply comes in time")).expect("UTF-8 text");
    assert!(answer.starts_with("SERVER_ERROR ssl_key=") && answer.contains("server.key"), "{answer}");
    assert_eq!(connect(&server, &client).server_certificate(), first);

    server.signal(Signal::SIGHUP);
    eventually("the log says so", || server.stderr().contains("not reloaded: ssl_key="));
    assert_eq!(connect(&server, &client).server_certificate(), first);
    early.ask("mn\r\n", "MN\r\n");

    let second = authority.sign("server");
    early.ask("refresh_certs\r\n", "OK\r\n");
    assert_eq!(connect(&server, &client).server_certificate(), second);
}

#[test]
fn filbert_refuses_to_start_with_a_bad_certificate() {
    let authority = Authority::new();
    fs::write(authority.path("server.pem"), "not PEM").expect("the directory is writable");
    let mut server = Server::spawn(Product::Filbert, &["-l", "127.0.0.1", "-Z", "-o", &authority.words("")]);
    assert!(!server.wait_exit().success());
    assert!(server.stderr().contains("ssl_chain_cert="), "{}", Cut(server.stderr()));
}

/// memcached may stop in the middle of a reply.
#[test]
fn filbert_finishes_the_replies_it_began_before_it_stops() {
    const COMMANDS: usize = 1_000;
    let authority = Authority::new();
    let mut server = start(Product::Filbert, &authority, "", &[]);
    let mut wire = connect(&server, &authority.client());
    let value = "v".repeat(100);
    wire.ask(&format!("set k 0 0 100\r\n{value}\r\n"), "STORED\r\n");
    let reply = format!("VALUE k 0 100\r\n{value}\r\nEND\r\n");
    wire.send("get k\r\n".repeat(COMMANDS).as_bytes());
    wire.expect(&reply);
    server.signal(Signal::SIGUSR1);
    // Without close_notify, or with what was cut off, this is an error.
    let rest = wire.rest().expect("the server says that it closes");
    assert_eq!(rest.len() % reply.len(), 0, "the last reply is cut off");
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// Without it OpenSSL 3 takes the end for one that somebody else made, and fails. memcached closes without.
#[test]
fn filbert_says_that_it_closes() {
    let authority = Authority::new();
    let server = start(Product::Filbert, &authority, "idle_timeout=1", &[]);
    for version in [&version::TLS12, &version::TLS13] {
        let client = authority.client_of(version, None);
        // What comes without close_notify is an error.
        let mut silent = connect(&server, &client);
        silent.ask("mn\r\n", "MN\r\n");
        assert_eq!(silent.rest().expect("it says so after idle_timeout"), b"");
        let mut leaving = connect(&server, &client);
        leaving.ask("mn\r\n", "MN\r\n");
        leaving.take_leave();
        assert_eq!(leaving.rest().expect("it answers the client's own"), b"");
        let mut quitting = connect(&server, &client);
        quitting.send(b"quit\r\n");
        assert_eq!(quitting.rest().expect("it says so after quit"), b"");
    }
}

#[test]
fn filbert_does_not_wait_for_handshakes_when_it_stops() {
    let authority = Authority::new();
    // The grace period, in which replies may still be taken, is 5 seconds.
    quickly("a stop", Duration::from_secs(4), || {
        let mut server = start(Product::Filbert, &authority, "", &[]);
        let mut silent = server.connect();
        let mut other = connect(&server, &authority.client());
        eventually("both are connected", || other.stat("curr_connections") == 2);
        let since = Instant::now();
        server.signal(Signal::SIGTERM);
        assert_eq!(silent.rest().expect("the server closes in time"), b"");
        assert_eq!(server.wait_exit().code(), Some(0));
        since.elapsed()
    });
}

/// Starts a server that speaks TLS with the authority's certificate.
fn start(product: Product, authority: &Authority, words: &str, args: &[&str]) -> Server {
    let words = authority.words(words);
    let mut all = vec!["-Z", "-o", &words];
    all.extend_from_slice(args);
    Server::start(product, &all)
}

#[track_caller]
fn connect(server: &Server, client: &Arc<ClientConfig>) -> Wire {
    Wire::connect_tls(server.addr(), client).expect("the hands are shaken")
}

/// Whether a client gets as far as an answer.
fn serves_it(server: &Server, client: &Arc<ClientConfig>) -> bool {
    serves_at(server.addr(), client)
}

fn serves_at(address: SocketAddr, client: &Arc<ClientConfig>) -> bool {
    let Ok(mut wire) = Wire::connect_tls(address, client) else { return false };
    let _ = wire.try_send(b"mn\r\n");
    wire.bytes(4).is_ok_and(|answer| answer == b"MN\r\n")
}

/// What `curr_connections` says to the only client.
fn connections_at_rest(product: Product) -> u64 {
    match product {
        Product::Filbert => 1,
        // memcached counts its listener as well.
        Product::Memcached => 2,
    }
}
