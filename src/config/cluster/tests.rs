use std::ffi::OsString;
use std::time::Duration;

use super::*;
use crate::config::launch::launch;
use crate::config::line::{self, Asked};
use crate::config::option_specs::{OPTION_SPECS, Spelled};
use crate::config::{Launch, option_specs};

/// What a command line leads to, etcd's address before it.
fn told(args: &str) -> Result<Launch, ConfigError> {
    alone(&format!("--etcd-endpoints 127.0.0.1:2379 {args}"))
}

/// What a command line leads to.
fn alone(args: &str) -> Result<Launch, ConfigError> {
    let words = std::iter::once("filbert").chain(args.split_whitespace()).map(OsString::from);
    match line::read(words)? {
        Asked::Run(settings) => launch(&settings, 8, None),
        _ => panic!("{args} asks for a text"),
    }
}

fn member(args: &str) -> etcd::Options {
    let told = told(args).unwrap_or_else(|error| panic!("{args}: {error}"));
    assert_eq!(told.warnings, [""; 0], "{args}");
    told.node.cluster.expect("etcd is given").membership
}

fn refusal(args: &str) -> String {
    told(args).expect_err(args).to_string()
}

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with such files.
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        Self(folder)
    }

    /// `args`, with the folder for each `%`.
    fn fill(&self, args: &str) -> String {
        args.replace('%', self.0.path().to_str().expect("UTF-8"))
    }
}

#[test]
fn without_etcd_a_node_is_alone() {
    assert!(alone("").expect("valid").node.cluster.is_none());
    for spec in OPTION_SPECS.iter().filter(|spec| IN_A_CLUSTER.contains(&spec.name)) {
        let args = format!("--{} x", spec.name);
        let error = alone(&args).expect_err(&args).to_string();
        assert_eq!(error, format!("{args}: needs --etcd-endpoints, without which a node is in no cluster"));
    }
}

#[test]
fn every_option_of_a_cluster_is_known_as_one() {
    let http = ["http-listen", "http-advertise", "http-token-file", "memcached-exporter-metrics"];
    let logs = [option_specs::LOG_FORMAT, option_specs::LOG_FILE, option_specs::LOG_SYSLOG];
    let alone = [option_specs::SNAPSHOT, option_specs::SNAPSHOT_MAX_AGE];
    let of_any_node = [&http[..], &logs, &alone, &[option_specs::CONFIG]].concat();
    let long =
        OPTION_SPECS.iter().filter(|spec| spec.spelled == Spelled::Long && !of_any_node.contains(&spec.name));
    let names: Vec<_> = long.map(|spec| spec.name).filter(|name| *name != ENDPOINTS).collect();
    assert_eq!(names.len(), IN_A_CLUSTER.len());
    for name in names {
        assert!(IN_A_CLUSTER.contains(&name), "{name}");
    }
}

#[test]
fn the_defaults_make_a_node_of_this_machine() {
    let told = told("").expect("valid");
    assert_eq!(told.warnings, [""; 0]);
    let cluster = told.node.cluster.expect("etcd is given");
    let membership = cluster.membership;
    assert_eq!(membership.endpoints, ["127.0.0.1:2379"]);
    assert_eq!(
        (membership.cluster.as_str(), membership.zone.as_str(), membership.weight),
        ("default", "", 100)
    );
    assert_eq!(membership.node_id, etcd::default_node_id(11212));
    assert_eq!(membership.peer_addr, "127.0.0.1:11212");
    assert_eq!(membership.memcached_addr, "127.0.0.1:11211");
    assert_eq!(membership.lease_ttl, Duration::from_secs(5));
    assert_eq!(membership.gone_after, Duration::from_secs(60));
    assert!(membership.user.is_none() && membership.password.is_none());
    assert!(membership.ca.is_none() && membership.cert.is_none() && membership.key.is_none());
    let peer = cluster.peer;
    assert_eq!(peer.listen, "127.0.0.1:11212");
    assert!(peer.tls.is_none() && !peer.is_exposed());
    assert_eq!(peer.connect_timeout, Duration::from_millis(100));
    assert_eq!(peer.operation_timeout, Duration::from_millis(250));
}

#[test]
fn every_option_lands_in_its_place() {
    let folder = Folder::with(&[("password", "secret\n"), ("pem", "")]);
    let args = folder.fill(
        "--cluster c --node-id n --peer-listen 10.0.0.1:1 --peer-advertise p:2 --advertise m:3 --weight 10000 \
         --zone z --lease-ttl 60 --etcd-user u --etcd-password-file %/password --peer-cert %/pem \
         --peer-key %/pem --peer-ca %/pem --peer-connect-timeout 7 --peer-timeout 8 \
         --move-rate 9k --drain-timeout 10",
    );
    let cluster = told(&args).expect("valid").node.cluster.expect("etcd is given");
    let membership = cluster.membership;
    assert_eq!((membership.cluster.as_str(), membership.node_id.as_str()), ("c", "n"));
    assert_eq!((membership.peer_addr.as_str(), membership.memcached_addr.as_str()), ("p:2", "m:3"));
    assert_eq!((membership.weight, membership.zone.as_str()), (10_000, "z"));
    assert_eq!(membership.lease_ttl, Duration::from_secs(60));
    assert_eq!(membership.gone_after, Duration::from_secs(240), "a long lease needs longer");
    assert_eq!(membership.user.as_deref(), Some("u"));
    assert_eq!(membership.password.expect("given").0, "secret");
    assert_eq!(cluster.moves.bytes_per_second, 9 << 10);
    assert_eq!(cluster.moves.drain_timeout, Duration::from_secs(10));
    let peer = cluster.peer;
    assert_eq!(peer.listen, "10.0.0.1:1");
    assert_eq!(peer.connect_timeout, Duration::from_millis(7));
    assert_eq!(peer.operation_timeout, Duration::from_millis(8));
    let tls = peer.tls.expect("given");
    assert_eq!(folder.fill("%/pem"), tls.cert.to_string_lossy());
    assert_eq!((&tls.cert, &tls.cert), (&tls.key, &tls.ca));
}

#[test]
fn endpoints_add_up_each_once() {
    let membership =
        member("--etcd-endpoints a:1,127.0.0.1:2379 --etcd-endpoints=http://[::1]:2379/ --peer-listen b:1");
    assert_eq!(membership.endpoints, ["127.0.0.1:2379", "a:1", "http://[::1]:2379/"]);
}

#[test]
fn clients_are_told_an_address_that_they_can_reach() {
    for (args, expected) in [
        ("-p 5", "127.0.0.1:5"),
        ("-l cache-1,10.0.0.1", "cache-1:11211"),
        ("-l [fe80::1]:7", "[fe80::1]:7"),
        // Every address: the one that the peers are told.
        ("-l 0.0.0.0 --peer-listen 10.0.0.5:1", "10.0.0.5:11211"),
        ("-l * -p 5 --peer-listen 0.0.0.0:1 --peer-advertise cache-1:2", "cache-1:5"),
        ("-l :: --peer-listen [fe80::1]:1", "[fe80::1]:11211"),
        ("-s /run/f.sock --peer-listen 10.0.0.5:1", "10.0.0.5:11211"),
        ("-s /run/f.sock -p 0", "127.0.0.1:11211"),
        ("-l 10.0.0.1 --advertise cache.example.com:5", "cache.example.com:5"),
        // The port is known once it is bound.
        ("-p -1", ""),
        ("-l * -p -1 --peer-listen 10.0.0.5:1", ""),
        ("-p -1 --advertise cache-1:6", "cache-1:6"),
    ] {
        assert_eq!(member(args).memcached_addr, expected, "{args}");
    }
}

#[test]
fn peers_are_told_where_they_are_listened_for() {
    let own = etcd::default_node_id(5);
    for (args, id, address) in [
        ("--peer-listen 10.0.0.1:5", own.as_str(), "10.0.0.1:5"),
        ("--peer-listen cache-1:5", &own, "cache-1:5"),
        ("--peer-listen [::1]:5", &own, "[::1]:5"),
        ("--peer-listen 0.0.0.0:5 --peer-advertise cache-1:6", &own, "cache-1:6"),
        // The port, and a name made of it, are known once it is bound.
        ("--peer-listen 10.0.0.1:0", "", ""),
        ("--peer-listen 127.0.0.1:0 --node-id me", "me", ""),
        ("--peer-listen 10.0.0.1:0 --peer-advertise cache-1:6", "", "cache-1:6"),
    ] {
        let membership = member(args);
        assert_eq!((membership.node_id.as_str(), membership.peer_addr.as_str()), (id, address), "{args}");
    }
}

#[test]
fn a_loopback_address_is_warned_of_when_etcd_is_far() {
    let warnings = |args: &str| alone(args).expect(args).warnings;
    assert_eq!(
        warnings("--etcd-endpoints localhost:2379,etcd:2379"),
        ["other nodes are told to reach this one at 127.0.0.1:11212, which only this machine can, though \
             etcd is at etcd:2379: give --peer-listen and --peer-advertise"]
    );
    for args in ["--etcd-endpoints http://[::1]:2379", "--etcd-endpoints etcd:2379 --peer-listen 10.0.0.1:1"]
    {
        assert_eq!(warnings(args), [""; 0], "{args}");
    }
}

#[test]
fn every_refusal_names_the_option_the_value_and_what_is_allowed() {
    for (args, expected) in [
        ("--weight 0", "--weight 0: needs a whole number from 1 to 10000"),
        ("--weight 10001", "--weight 10001: needs a whole number from 1 to 10000"),
        ("--weight heavy", "--weight heavy: needs a whole number from 1 to 10000"),
        ("--lease-ttl 1", "--lease-ttl 1: needs a whole number from 2 to 60, in seconds"),
        ("--lease-ttl 61", "--lease-ttl 61: needs a whole number from 2 to 60, in seconds"),
        ("--lease-ttl 5s", "--lease-ttl 5s: needs a whole number from 2 to 60, in seconds"),
        (
            "--move-rate fast",
            "--move-rate fast: needs a number of bytes a second, such as 64m, or 0 for no limit",
        ),
        ("--drain-timeout 4000", "--drain-timeout 4000: needs a whole number from 0 to 3600, in seconds"),
        ("--peer-timeout 0", "--peer-timeout 0: needs a whole number from 1 to 60000, in milliseconds"),
        (
            "--peer-connect-timeout 60001",
            "--peer-connect-timeout 60001: needs a whole number from 1 to 60000, in milliseconds",
        ),
        ("--node-id=", "--node-id '': needs 1 to 200 characters of ASCII, without blanks and without /"),
        ("--node-id a/b", "--node-id a/b: needs 1 to 200 characters"),
        ("--node-id ö", "--node-id ö: needs 1 to 200 characters"),
        ("--cluster a/b", "--cluster a/b: needs 1 to 200 characters"),
        ("--zone=", "--zone '': needs 1 to 200 characters"),
        (
            "--peer-listen 11212",
            "--peer-listen 11212: no port (allowed: host:port, [v6]:port, with 0.0.0.0 or [::] for every address \
             and 0 for any free port)",
        ),
        ("--peer-listen *:1", "--peer-listen *:1: no address and no host name (allowed: host:port"),
        ("--peer-listen a:http", "--peer-listen a:http: http is no port from 0 to 65535 (allowed"),
        (
            "--peer-listen 0.0.0.0:1",
            "--peer-listen 0.0.0.0:1: listens on every address, so that others must be told which to use: \
             --peer-advertise HOST:PORT",
        ),
        ("--peer-listen [::]:0", "--peer-listen [::]:0: listens on every address"),
        (
            "--peer-advertise a:0",
            "--peer-advertise a:0: nobody can connect to port 0 (allowed: host:port, [v6]:port, with a port from \
             1 to 65535)",
        ),
        ("--peer-advertise [::]:1", "--peer-advertise [::]:1: nobody can connect to every address (allowed"),
        ("--advertise cache-1", "--advertise cache-1: no port (allowed"),
        ("--advertise 0.0.0.0:11211", "--advertise 0.0.0.0:11211: nobody can connect to every address"),
        ("--etcd-user u", "--etcd-user u: needs --etcd-password-file, too"),
        ("--etcd-password-file /x", "--etcd-password-file /x: needs --etcd-user, too"),
        ("--etcd-cert /x", "--etcd-cert /x: needs --etcd-key and --etcd-ca, too"),
        ("--etcd-key /x --etcd-ca /y", "--etcd-key /x: needs --etcd-cert, too"),
        ("--peer-cert /x", "--peer-cert /x: needs --peer-key and --peer-ca, too"),
        ("--peer-ca /x --peer-key /y", "--peer-key /y: needs --peer-cert, too"),
        ("--etcd-endpoints b", "--etcd-endpoints b: no port (allowed: host:port, http://host:port, https"),
        ("--etcd-endpoints b:2,:2", "--etcd-endpoints b:2,:2: :2: no address and no host name (allowed"),
        ("--etcd-endpoints b:0", "--etcd-endpoints b:0: nobody can connect to port 0"),
        ("--etcd-endpoints ftp://b:2", "--etcd-endpoints ftp://b:2: etcd is not asked through ftp"),
        ("--etcd-endpoints http://b", "--etcd-endpoints http://b: no port (allowed"),
        ("--etcd-endpoints http://b:2/v3", "--etcd-endpoints http://b:2/v3: 2/v3 is no port"),
        (
            "--etcd-endpoints http://u:secret@b:2",
            "--etcd-endpoints ...: a name and a password do not belong into an address: give --etcd-user",
        ),
    ] {
        let error = refusal(args);
        assert!(error.starts_with(expected), "{args}: {error}");
    }
    let error = alone("--etcd-endpoints ,").expect_err("none").to_string();
    assert_eq!(error, "--etcd-endpoints ,: needs the addresses of etcd, such as 127.0.0.1:2379");
}

#[test]
fn files_are_looked_at_before_anything_starts() {
    let folder = Folder::with(&[("empty", "\n"), ("pem", "no certificate")]);
    for (args, expected) in [
        ("--etcd-ca /no/such.pem", "--etcd-ca /no/such.pem: No such file"),
        ("--etcd-ca %", "--etcd-ca %: Is a directory"),
        ("--peer-cert %/pem --peer-key /no/such --peer-ca %/pem", "--peer-key /no/such: No such file"),
        ("--etcd-user u --etcd-password-file /no/such", "--etcd-password-file /no/such: No such file"),
        (
            "--etcd-user u --etcd-password-file %/empty",
            "--etcd-password-file %/empty: is empty: needs a file that holds the password of --etcd-user",
        ),
        ("--etcd-ca=", "--etcd-ca '': needs the path of a file"),
    ] {
        let error = refusal(&folder.fill(args));
        assert!(error.starts_with(&folder.fill(expected)), "{args}: {error}");
    }
}

#[test]
fn what_joining_would_refuse_is_refused_at_start() {
    let error = alone("--etcd-endpoints https://etcd:2379").expect_err("no authorities").to_string();
    assert!(
        error.starts_with("--etcd-endpoints https://etcd:2379: ") && error.contains("authorities"),
        "{error}"
    );
}

#[test]
fn a_password_does_not_show_in_what_was_told() {
    let folder = Folder::with(&[("password", "secret")]);
    let told = told(&folder.fill("--etcd-user u --etcd-password-file %/password")).expect("valid");
    assert!(!format!("{told:?}").contains("secret"));
}
