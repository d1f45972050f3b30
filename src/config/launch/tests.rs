use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::line::{self, Asked};

/// What a command line leads to on a machine of eight CPUs.
fn told(args: &str) -> Result<Launch, ConfigError> {
    let words = std::iter::once("filbert").chain(args.split_whitespace()).map(OsString::from);
    match line::read(words)? {
        Asked::Run(settings) => launch(&settings, 8, None),
        _ => panic!("{args} asks for a text"),
    }
}

fn server(args: &str) -> server::Options {
    told(args).unwrap_or_else(|error| panic!("{args}: {error}")).node.server
}

fn listen(args: &str) -> Vec<(Option<String>, u16)> {
    server(args).listen.into_iter().map(|listen| (listen.host, listen.port)).collect()
}

#[test]
fn the_defaults_are_memcacheds_apart_from_the_address() {
    let told = told("").expect("nothing is needed");
    assert_eq!(told.warnings, [""; 0]);
    let store = told.node.store;
    assert_eq!((store.budget_bytes, store.item_size_max), (64 << 20, 1 << 20));
    assert!(store.evict && store.cas);
    let server = told.node.server;
    assert_eq!(
        server.listen,
        [Listen { host: Some("127.0.0.1".into()), port: 11211, security: Security::Tls }]
    );
    assert_eq!((server.port, server.threads, server.max_connections, server.backlog), (11211, 4, 1024, 1024));
    assert!(server.reject_over_limit && server.flush_allowed && server.dump_allowed && server.watch_allowed);
    assert!(!server.shutdown_allowed);
    assert!(server.unix.is_none() && server.tls.is_none() && server.auth_file.is_none());
    assert!(server.idle_timeout.is_none() && server.prefix_delimiter.is_none());
    assert_eq!(server.verbosity, 0);
    assert_eq!(told.logs, logs::Options::default());
    let process = told.process;
    assert!(!process.daemon && !process.keep_output && process.pid_file.is_none() && process.user.is_none());
    assert_eq!(process.connections, 1024);
}

#[test]
fn threads_default_to_no_more_than_the_cpus() {
    let nothing = Settings::default();
    assert_eq!(launch(&nothing, 2, None).expect("valid").node.server.threads, 2);
    assert_eq!(launch(&nothing, 64, None).expect("valid").node.server.threads, 4);
    assert_eq!(server("-t 32").threads, 32);
    assert!(
        told("-t 100").expect("valid").warnings[0]
            .starts_with("-t 100: memcached advises no more threads than CPUs (8)")
    );
}

#[test]
fn every_flag_lands_in_its_option() {
    let told = told(
        "-d -P /run/f.pid -u nobody -m 1g -I 2m -M -C -c 10 -t 2 -vv -b 5 -F -X -W -A -D / -Y /users \
         --log-format json -o idle_timeout=30,no_maxconns_fast -U 0 -B auto",
    )
    .expect("valid");
    assert_eq!(told.warnings, [""; 0]);
    assert_eq!(told.node.store.budget_bytes, 1 << 30);
    assert_eq!(told.node.store.item_size_max, 2 << 20);
    assert!(!told.node.store.evict && !told.node.store.cas);
    let server = told.node.server;
    assert_eq!((server.max_connections, server.threads, server.backlog, server.verbosity), (10, 2, 5, 2));
    assert!(
        !server.flush_allowed && !server.dump_allowed && !server.watch_allowed && server.shutdown_allowed
    );
    assert!(!server.reject_over_limit);
    assert_eq!(server.idle_timeout, Some(Duration::from_secs(30)));
    assert_eq!(server.prefix_delimiter, Some(b'/'));
    assert_eq!(server.auth_file, Some("/users".into()));
    assert_eq!(
        told.logs,
        logs::Options { format: logs::Format::Json, target: logs::Target::Stderr, verbosity: 2 }
    );
    let process = told.process;
    assert!(process.daemon && process.keep_output);
    assert_eq!((process.pid_file, process.user), (Some(PathBuf::from("/run/f.pid")), Some("nobody".into())));
    assert_eq!(process.connections, 10);
}

#[test]
fn ports_and_addresses() {
    let local = |port| vec![(Some("127.0.0.1".to_owned()), port)];
    assert_eq!(listen("-p 12345"), local(12345));
    assert_eq!(listen("-p -1"), local(0));
    assert_eq!(server("-p -1").port, 0);
    assert_eq!(
        listen("-p 5 -l 10.0.0.1,[::1]:6 -l * -l 10.0.0.1"),
        [(Some("10.0.0.1".into()), 5), (Some("::1".into()), 6), (None, 5)]
    );
}

#[test]
fn a_unix_socket_takes_the_place_of_tcp() {
    let options = server("-s /run/f.sock -a 0766");
    assert_eq!(options.unix, Some(UnixListen { path: "/run/f.sock".into(), mode: 0o766 }));
    assert_eq!((options.listen.len(), options.port), (0, 0));
    assert_eq!(server("-s /run/f.sock -p 0").unix.expect("given").mode, 0o700);
    let told = told("-s /run/f.sock -l 10.0.0.1").expect("as memcached");
    assert_eq!(told.warnings, ["-l 10.0.0.1 has no effect: a unix socket (-s) turns TCP off"]);
}

#[test]
fn tls_takes_its_words() {
    let tls = server(
        "-Z -o ssl_chain_cert=c.pem,ssl_key=k.pem -o ssl_verify_mode=2,ssl_ca_cert=ca.pem,ssl_min_version=3",
    )
    .tls
    .expect("on");
    assert_eq!(
        (tls.chain_cert, tls.key, tls.ca_cert),
        ("c.pem".into(), "k.pem".into(), Some("ca.pem".into()))
    );
    assert_eq!((tls.verify, tls.min_version), (ClientVerify::Require, MinVersion::Tls13));

    let tls = server("-Z -o ssl_chain_cert=both.pem,ssl_keyformat=1").tls.expect("on");
    assert_eq!(tls.key, PathBuf::from("both.pem"), "the key may stand in the chain's file");
    assert_eq!((tls.verify, tls.min_version), (ClientVerify::None, MinVersion::Tls12));

    let listen = server("-Z -o ssl_chain_cert=c -l notls:127.0.0.1:1,127.0.0.1:2").listen;
    assert_eq!(listen[0].security, Security::Plain);

    let given =
        told("-Z -o ssl_chain_cert=c,ssl_ca_cert=ca.pem -l mtls:127.0.0.1:1,127.0.0.1:2").expect("valid");
    let tls = given.node.server.tls.expect("on");
    assert_eq!((tls.verify, tls.mutual), (ClientVerify::None, true));
    assert_eq!(given.warnings, [""; 0], "the authorities are of use");
    let error = told("-Z -o ssl_chain_cert=c -l mtls:127.0.0.1").expect_err("no authorities").to_string();
    assert!(error.starts_with("-l mtls:127.0.0.1: mtls: needs the authorities"), "{error}");
    let error = told("-l mtls:127.0.0.1").expect_err("no TLS").to_string();
    assert!(error.starts_with("-l mtls:127.0.0.1: mtls: needs -Z"), "{error}");
}

#[test]
fn clients_of_the_binary_protocol_log_in_with_either_file_of_users() {
    let spoken = |args| server(args).protocol;
    assert_eq!(spoken(""), Protocol::Auto);
    assert_eq!(spoken("-B auto"), Protocol::Auto);
    assert_eq!(spoken("-B ascii"), Protocol::Ascii);
    assert_eq!(spoken("-B binary"), Protocol::Binary);
    assert_eq!(spoken("-S -Y /users"), Protocol::Auto, "the users of -Y log in by text as well");

    let alone = |args: &[&str]| {
        let words = std::iter::once(&"filbert").chain(args).map(OsString::from);
        let Ok(Asked::Run(settings)) = line::read(words) else { panic!("valid") };
        let told = launch(&settings, 8, Some("/sasl".into())).expect("valid").node.server;
        (told.protocol, told.sasl, told.auth_file)
    };
    assert_eq!(alone(&["-S"]), (Protocol::Binary, true, Some("/sasl".into())));
    assert_eq!(alone(&["-S", "-Y", "/users"]), (Protocol::Auto, true, Some("/users".into())));
    assert_eq!(alone(&["-S", "-B", "auto"]), (Protocol::Auto, true, Some("/sasl".into())));
    assert_eq!(alone(&[]), (Protocol::Auto, false, None), "without -S nobody asked for it");
}

#[test]
fn options_that_do_nothing_are_said_once() {
    let warnings = told("-f 1.08 -n 48 -L -k -r -R 20 -N 2 -o modern,hash_algorithm=xxh3,no_lru_crawler")
        .expect("accepted")
        .warnings;
    assert_eq!(
        warnings,
        ["accepted as memcached does, without effect here: -f, -n, -L, -k, -r, -R, -N, -o modern, \
          -o hash_algorithm, -o lru_crawler"]
    );
    for (args, expected) in [
        ("-a 700", "-a 700 has no effect without a unix socket (-s)"),
        ("-o ssl_key=k", "-o ssl_key=k has no effect: TLS is off without -Z"),
        ("-Z -s /x", "-Z has no effect: the unix socket (-s) is plain text"),
        (
            "-Z -o ssl_chain_cert=c,ssl_ca_cert=ca",
            "-o ssl_ca_cert=ca has no effect: client certificates are not asked for (ssl_verify_mode is 0)",
        ),
    ] {
        assert_eq!(told(args).expect(args).warnings, [expected], "{args}");
    }
}

#[test]
fn every_refusal_names_the_flag_the_value_and_what_is_allowed() {
    for (args, expected) in [
        ("-m lots", "-m lots: needs a number of megabytes, such as 64"),
        ("-m -5", "-m -5: needs a number of megabytes"),
        ("-m 0", "-m 0: needs a number of megabytes"),
        ("-m 1", "-m 1: the largest item (-I, 1048576 bytes) may take half the memory (-m, 1048576 bytes)"),
        ("-I 1000", "-I 1000: needs a number of bytes, or a size such as 512k or 2m, from 1k to 1g"),
        (
            "-I 256m",
            "-I 256m: the largest item (-I, 268435456 bytes) may take half the memory (-m, 67108864 bytes)",
        ),
        ("-c 0", "-c 0: needs a whole number from 1 to"),
        ("-t 0", "-t 0: needs a whole number from 1 to 1024"),
        ("-t four", "-t four: needs a whole number"),
        ("-b -1", "-b -1: needs a whole number from 0 to"),
        ("-p 65536", "-p 65536: needs a port from 0 to 65535"),
        ("-p 0", "-p 0: turns TCP off, so that a unix socket (-s) is needed"),
        ("-l 10.0.0.1:http", "-l 10.0.0.1:http: http is no port"),
        ("-l notls:10.0.0.1", "-l notls:10.0.0.1: notls: means something with -Z only"),
        ("-s /x -a 999", "-a 999: needs permissions in octal"),
        (
            "-U 11211",
            "-U 11211: there is no UDP here (it amplifies attacks, and carries no large values): 0 is allowed",
        ),
        ("-B morse", "-B morse: needs auto, ascii or binary"),
        ("-S", "-S: needs a file of user:password lines: -Y FILE, or MEMCACHED_SASL_PWDB in the environment"),
        ("-S -B ascii -Y /users", "-S: SASL belongs to the binary protocol, which -B ascii turns off"),
        ("-D ::", "-D ::: needs one character"),
        ("-v --verbose=much", "-v much: needs a number from 0 to 3"),
        ("--log-format xml", "--log-format xml: needs text or json"),
        ("-M --disable-cas=maybe", "-C maybe: needs true or false"),
        ("-Z", "-Z: needs a certificate: -o ssl_chain_cert=FILE,ssl_key=FILE"),
        ("-Z -o ssl_chain_cert=c,ssl_verify_mode=2", "-o ssl_verify_mode=2: needs the authorities"),
        ("-o ssl_verify_mode=9", "-o ssl_verify_mode=9: needs 0 (no client certificates)"),
        ("-o ssl_min_version=0", "-o ssl_min_version=0: TLS 1.0 and 1.1 are broken"),
        ("-o ssl_keyformat=2", "-o ssl_keyformat=2: only PEM (1) is read here"),
        (
            "-o idle_timeout=soon",
            "-o idle_timeout=soon: needs a whole number from 0 to 2147483647, in seconds",
        ),
        ("-o idle_timeout", "-o idle_timeout: needs a value"),
    ] {
        let error = told(args).expect_err(args).to_string();
        assert!(error.starts_with(expected), "{args}: {error}");
    }
}

#[test]
fn paths_and_users_are_not_empty() {
    for flag in ["--pidfile=", "--auth-file=", "--unix-socket=", "--user=", "--config="] {
        let words = ["filbert", flag].into_iter().map(OsString::from);
        let error = crate::config::load(words, std::iter::empty()).expect_err(flag).to_string();
        assert!(error.contains("'': needs the"), "{flag}: {error}");
    }
}
