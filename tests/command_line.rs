//! The command line, the environment and the file, seen from outside.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::run;
use crate::support::server::{Product, Server, command, eventually};
use crate::support::shown::Cut;
use crate::support::wire::Wire;

/// sysexits.h, EX_USAGE.
const USAGE: Option<i32> = Some(64);

#[test]
fn a_memcacheds_command_line_starts_it() {
    let server = Server::filbert(&["-m", "64", "-c", "100", "-t", "2", "-vv", "-I", "2m", "-o", "modern"]);
    let mut wire = server.connect();
    assert_settings(
        &mut wire,
        &[
            ("maxbytes", "67108864"),
            ("maxconns", "100"),
            ("num_threads", "2"),
            ("verbosity", "2"),
            ("item_size_max", "2097152"),
            ("evictions", "on"),
            ("cas_enabled", "yes"),
            ("maxconns_fast", "yes"),
        ],
    );
    assert_eq!(wire.stat("limit_maxbytes"), 64 << 20);
    assert_eq!(wire.stat("max_connections"), 100);
    assert_eq!(wire.stat("threads"), 2);
    // -I: past the default of a megabyte.
    let value = "v".repeat(1_500_000);
    wire.ask(&format!("set big 0 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
    // -vv: what clients say is shown.
    wire.ask("get shown\r\n", "END\r\n");
    eventually("it is in the log", || server.stderr().contains("get shown"));
}

#[test]
fn flags_are_seen_in_the_settings() {
    let server = Server::filbert(&[
        "-M",
        "-C",
        "-F",
        "-X",
        "-W",
        "-A",
        "-D",
        "/",
        "-b",
        "77",
        "-o",
        "idle_timeout=30,no_maxconns_fast",
    ]);
    let mut wire = server.connect();
    assert_settings(
        &mut wire,
        &[
            ("evictions", "off"),
            ("cas_enabled", "no"),
            ("flush_enabled", "no"),
            ("dump_enabled", "no"),
            ("shutdown_command", "yes"),
            ("stat_key_prefix", "/"),
            ("detail_enabled", "yes"),
            ("tcp_backlog", "77"),
            ("idle_timeout", "30"),
            ("maxconns_fast", "no"),
            ("inter", "127.0.0.1"),
            ("domain_socket", "NULL"),
            ("udpport", "0"),
        ],
    );
    wire.ask("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n");
    wire.ask("watch\r\n", "CLIENT_ERROR watch commands not allowed\r\n");
}

/// What images and charts of memcached give as a container's command.
#[test]
fn the_command_of_a_container_starts_it() {
    let mut server = Server::spawn(
        Product::Filbert,
        &["memcached", "-m", "64", "-o", "modern", "-v", "-l", "tag[inside]:127.0.0.1", "leftover"],
    );
    let port = server.await_ports()[0];
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into());
    assert_settings(&mut wire, &[("maxbytes", "67108864"), ("verbosity", "1"), ("inter", "127.0.0.1")]);
    let said = "passed over as memcached does: memcached leftover";
    assert!(server.stderr().contains(said), "{}", Cut(server.stderr()));
}

#[test]
fn the_line_wins_over_the_environment_and_that_over_the_file() {
    let file = File::new("memory-limit = 128\nconn-limit = 7\nthreads = 3\nverbose = 1\nidle_timeout = 9\n");
    let mut told = command(Product::Filbert, &[]);
    told.envs([("FILBERT_MEMORY_LIMIT", "256"), ("FILBERT_CONN_LIMIT", "8"), ("FILBERT_CONFIG", "/nowhere")]);
    let args = ["-l", "127.0.0.1", "--config", file.name(), "-m", "512"];
    let mut server = Server::spawn_as(Product::Filbert, told, &args);
    let port = server.await_ports()[0];
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into());
    assert_settings(
        &mut wire,
        &[
            ("maxbytes", "536870912"),
            ("maxconns", "8"),
            ("num_threads", "3"),
            ("verbosity", "1"),
            ("idle_timeout", "9"),
            ("tcp_backlog", "1024"),
        ],
    );
}

#[test]
fn the_environment_may_name_the_file_and_have_every_option() {
    let file = File::new("disable-evictions = true\nthreads = 2\n");
    let mut told = command(Product::Filbert, &[]);
    told.envs([
        ("FILBERT_CONFIG", file.name()),
        ("FILBERT_MAX_ITEM_SIZE", "512k"),
        ("FILBERT_EXTENDED", "idle_timeout=20"),
        ("FILBERT_DISABLE_CAS", "yes"),
        ("FILBERT_NOTHING", "1"),
    ]);
    let mut server = Server::spawn_as(Product::Filbert, told, &["-l", "127.0.0.1"]);
    let port = server.await_ports()[0];
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into());
    assert_settings(
        &mut wire,
        &[
            ("evictions", "off"),
            ("num_threads", "2"),
            ("item_size_max", "524288"),
            ("idle_timeout", "20"),
            ("cas_enabled", "no"),
        ],
    );
    let stderr = server.stderr();
    assert!(stderr.contains("FILBERT_NOTHING in the environment is no option: ignored"), "{stderr}");
}

#[test]
fn what_has_no_effect_is_said_once() {
    let server = Server::filbert(&[
        "-f",
        "1.08",
        "-n",
        "48",
        "-L",
        "-k",
        "-r",
        "-R",
        "20",
        "-N",
        "2",
        "-o",
        "modern,hash_algorithm=xxh3,no_lru_crawler,slab_automove=1,hot_lru_pct=20,tail_repair_time=0",
    ]);
    server.connect().ask("mn\r\n", "MN\r\n");
    let stderr = server.stderr();
    let said: Vec<_> = stderr.lines().filter(|line| line.contains("without effect here")).collect();
    assert_eq!(said.len(), 1, "{stderr}");
    for word in ["-f", "-n", "-L", "-k", "-r", "-R", "-N", "-o modern", "-o hash_algorithm", "-o lru_crawler"]
    {
        assert!(said[0].contains(&format!(" {word}")), "{word}: {stderr}");
    }
}

#[test]
fn a_wrong_value_names_the_flag_and_what_is_allowed() {
    for (args, expected) in [
        (
            &["-m", "lots"][..],
            "-m lots: needs a number of megabytes, such as 64, or a size such as 512m or 4g",
        ),
        (&["--memory-limit=lots"], "-m lots: needs a number of megabytes"),
        (&["-I", "1"], "-I 1: needs a number of bytes, or a size such as 512k or 2m, from 1k to 1g"),
        (&["-c", "0"], "-c 0: needs a whole number from 1 to"),
        (&["-t", "0"], "-t 0: needs a whole number from 1 to"),
        (&["-p", "http"], "-p http: needs a port from 0 to 65535"),
        (&["-l", "127.0.0.1:http"], "-l 127.0.0.1:http: http is no port"),
        (&["-o", "idle_timeout=soon"], "-o idle_timeout=soon: needs a whole number"),
        (&["-Z"], "-Z: needs a certificate: -o ssl_chain_cert=FILE,ssl_key=FILE"),
        (&["-m"], "-m (--memory-limit) needs a value"),
    ] {
        assert_refused(args, &[], expected);
    }
    assert_refused(&[], &[("FILBERT_THREADS", "four")], "FILBERT_THREADS=four: needs a whole number");
    let file = File::new("memory-limit = 'lots'\n");
    let expected = format!("memory-limit = lots in {}: needs a number of megabytes", file.name());
    assert_refused(&["--config", file.name()], &[], &expected);
    assert_refused(&["--config", "/nowhere.toml"], &[], "/nowhere.toml: No such file");
}

#[test]
fn what_cannot_be_had_is_refused_with_the_reason() {
    for (args, expected) in [
        (&["-S"][..], "-S: needs a file of user:password lines"),
        (
            &["-e", "/mnt/file"],
            "-e /mnt/file: items do not live in a file here: --snapshot FILE keeps them over a restart",
        ),
        (&["-U", "11211"], "-U 11211: there is no UDP here"),
        (&["-o", "ext_path=/x:1g"], "items are kept in memory only, never on disk"),
        (&["-o", "proxy_config=/x.lua"], "there is no Lua proxy here"),
        (&["-o", "ssl_ciphers=HIGH"], "-o ssl_ciphers=HIGH: an OpenSSL cipher list has no meaning"),
        (&["-o", "sparkle"], "-o sparkle: is no option of -o"),
        (&["-z"], "-z is no flag"),
        (&["--sparkle"], "--sparkle is no flag"),
    ] {
        assert_refused(args, &[], expected);
    }
}

#[test]
fn a_cluster_is_refused_where_it_makes_no_sense() {
    let etcd = ["--etcd-endpoints", "127.0.0.1:2379"];
    for (args, expected) in [
        (&["--weight", "0"][..], "--weight 0: needs a whole number from 1 to 10000"),
        (&["--lease-ttl", "61"], "--lease-ttl 61: needs a whole number from 2 to 60, in seconds"),
        (&["--peer-timeout", "soon"], "--peer-timeout soon: needs a whole number from 1 to 60000"),
        (&["--node-id", "a/b"], "--node-id a/b: needs 1 to 200 characters of ASCII, without blanks"),
        (&["--node-id="], "--node-id '': needs 1 to 200 characters"),
        (
            &["--peer-listen", "a:http"],
            "--peer-listen a:http: http is no port from 0 to 65535 (allowed: host:port",
        ),
        (&["--peer-listen", "[::]:11212"], "--peer-listen [::]:11212: listens on every address"),
        (&["--peer-advertise", "a:0"], "--peer-advertise a:0: nobody can connect to port 0"),
        (&["--advertise", "*:1"], "--advertise *:1: no address and no host name (allowed: host:port"),
        (&["--peer-cert", "/x"], "--peer-cert /x: needs --peer-key and --peer-ca, too"),
        (&["--etcd-ca", "/no/such.pem"], "--etcd-ca /no/such.pem: No such file"),
        (&["--etcd-endpoints", "etcd"], "--etcd-endpoints etcd: no port (allowed: host:port, http://"),
    ] {
        assert_refused(&[&etcd[..], args].concat(), &[], expected);
    }
    assert_refused(
        &["--node-id", "a"],
        &[],
        "--node-id a: needs --etcd-endpoints, without which a node is in no",
    );
    assert_refused(&[], &[("FILBERT_ZONE", "z")], "FILBERT_ZONE=z: needs --etcd-endpoints");
    let file = File::new("weight = 7\n");
    let expected = format!("weight = 7 in {}: needs --etcd-endpoints", file.name());
    assert_refused(&["--config", file.name()], &[], &expected);
}

#[test]
fn a_check_starts_nothing() {
    let file = File::new("memory-limit = '4g'\nport = 11211\n");
    let ended = run::filbert(&["--check", "--config", file.name()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout, "the configuration can be used\n");
    assert_refused(
        &["--check", "-Y", "/nowhere"],
        &[],
        "cannot read the users of -Y from /nowhere: No such file",
    );
    assert_refused(
        &["--check"],
        &[("FILBERT_THREADS", "four")],
        "FILBERT_THREADS=four: needs a whole number",
    );
}

#[test]
fn alone_a_node_never_mentions_etcd() {
    let mut server = Server::filbert(&["-vv"]);
    server.connect().ask("mn\r\n", "MN\r\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(!server.stderr().to_lowercase().contains("etcd"), "{}", Cut(server.stderr()));
}

#[test]
fn texts_are_printed_and_nothing_else_happens() {
    for flag in ["-h", "--help"] {
        let ended = run::filbert(&[flag]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{flag}");
        // Where scripts look for it.
        let words: Vec<_> = ended.stdout.lines().next().unwrap_or_default().split(' ').collect();
        assert!(words[0] == "memcached" && words[1].starts_with("1.6."), "{}", ended.stdout);
        assert!(words.ends_with(&["filbert", env!("CARGO_PKG_VERSION")]), "{}", ended.stdout);
        assert!(ended.stdout.contains("-m, --memory-limit=<num>"), "{}", ended.stdout);
    }
    for flag in ["-V", "--version"] {
        let ended = run::filbert(&[flag]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{flag}");
        let line = format!("filbert {} (memcached 1.6.", env!("CARGO_PKG_VERSION"));
        assert!(ended.stdout.starts_with(&line) && ended.stdout.lines().count() == 1, "{}", ended.stdout);
    }
}

#[track_caller]
fn assert_settings(wire: &mut Wire, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(wire.setting(name), *value, "{name}");
    }
}

#[track_caller]
fn assert_refused(args: &[&str], variables: &[(&str, &str)], expected: &str) {
    let ended = run::filbert_in(&[], variables, args);
    assert_eq!(ended.code, USAGE, "{args:?}: {}", ended.stderr);
    assert!(
        ended.stderr.starts_with("filbert: ") && ended.stderr.contains(expected),
        "{args:?}: {}",
        ended.stderr
    );
    assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{args:?}: {}", ended.stderr);
}

/// A configuration file.
struct File {
    _dir: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> File {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let path = dir.path().join("filbert.toml");
        fs::write(&path, text).expect("the directory is writable");
        File { _dir: dir, path }
    }

    fn name(&self) -> &str {
        self.path.to_str().expect("temporary paths are text")
    }
}
