//! The process: the background, the pid file, the user, signals, the unix socket's file, the limit of open files.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::{self, Uid, User};
use tempfile::TempDir;

use crate::support::certificates::Authority;
use crate::support::child::is_root;
use crate::support::daemon::{Daemon, KillWithTests};
use crate::support::run;
use crate::support::server::{Product, Server, command, eventually};
use crate::support::shown::Cut;
use crate::support::wire::{DEADLINE, Wire};

/// sysexits.h, EX_OSERR: what memcached exits with when the system refuses.
const SYSTEM_REFUSED: Option<i32> = Some(71);
/// sysexits.h, EX_USAGE.
const USAGE: Option<i32> = Some(64);

#[test]
fn a_daemon_leaves_the_terminal_and_its_directory() {
    let daemon = Daemon::start(&["-l", "127.0.0.1"]);
    daemon.connect().ask("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    assert_eq!(daemon.connect().stat("pid"), u64::from(daemon.pid.as_raw().unsigned_abs()));

    let own = unistd::getsid(None).expect("this process has a session");
    assert_ne!(unistd::getsid(Some(daemon.pid)).expect("it has a session"), own);
    let proc = format!("/proc/{}", daemon.pid);
    assert_eq!(fs::read_link(format!("{proc}/cwd")).expect("readable"), Path::new("/"));
    for stream in 0..3 {
        let open = fs::read_link(format!("{proc}/fd/{stream}")).expect("readable");
        assert_eq!(open, Path::new("/dev/null"), "stream {stream}");
    }
}

#[test]
fn the_pid_file_goes_with_the_daemon() {
    let daemon = Daemon::start(&["-l", "127.0.0.1"]);
    daemon.connect().ask("mn\r\n", "MN\r\n");
    assert_eq!(fs::read_to_string(daemon.pid_file()).expect("it is there"), format!("{}\n", daemon.pid));
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit();
    assert!(!daemon.pid_file().exists());
}

/// Whoever writes `kill $(cat FILE)` may be fast.
#[test]
fn a_signal_is_heard_as_soon_as_there_is_a_pid_file() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1].into_iter().cycle().take(12) {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let pid_file = dir.path().join("pid");
        let mut server = Server::spawn(
            Product::Filbert,
            &["-l", "127.0.0.1", "-P", pid_file.to_str().expect("temporary paths are text")],
        );
        // Without a rest between two looks: the moment after the file appears is what this is about.
        let deadline = Instant::now() + DEADLINE;
        while !pid_file.exists() {
            assert!(Instant::now() < deadline, "no pid file: {}", Cut(server.stderr()));
        }
        server.signal(signal);
        assert_eq!(server.wait_exit().code(), Some(0), "{signal} is not heard yet");
        assert!(!pid_file.exists(), "{signal} leaves the pid file");
    }
}

#[test]
fn a_daemon_reports_a_port_in_use_before_it_leaves() {
    let first = Server::filbert(&[]);
    let port = first.addr().port().to_string();
    let dir = TempDir::new().expect("a temporary directory can be made");
    let pid_file = dir.path().join("pid");
    let pid_file_name = pid_file.to_str().expect("temporary paths are text");
    let ended = run::filbert(&["-d", "-l", "127.0.0.1", "-p", &port, "-P", pid_file_name]);
    assert_eq!(ended.code, SYSTEM_REFUSED, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", ended.stderr);
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing is left");
    first.connect().ask("mn\r\n", "MN\r\n");
}

#[test]
fn a_pid_file_that_cannot_be_written_is_a_message() {
    let server = Server::filbert(&["-P", "/nowhere/filbert.pid"]);
    server.connect().ask("mn\r\n", "MN\r\n");
    eventually("it is said", || server.stderr().contains("WARN -P /nowhere/filbert.pid: No such file"));
}

/// As Debian's memcached.service starts it: root that may become another user and raise limits, and
/// may not pass over the owners of files.
#[test]
fn a_bounded_root_does_as_the_user_what_only_that_one_may() {
    if !is_root() {
        // There are no other users to do it as, and it is nobody's directory but this one's.
        return root_is_given_away();
    }
    const BOUNDS: [&str; 3] =
        ["setpriv", "--no-new-privs", "--bounding-set=-all,+setgid,+setuid,+sys_resource"];
    let nobody = nobody();
    let dir = TempDir::new().expect("a temporary directory can be made");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let own = dir.path().join("own");
    fs::create_dir(&own).expect("the directory is writable");
    let authority = Authority::new();
    for (from, name) in [("server.pem", "cert"), ("server.key", "key")] {
        fs::copy(authority.path(from), own.join(name)).expect("the directory is writable");
    }
    fs::write(own.join("users"), "ann:apple\n").expect("the directory is writable");
    for name in ["cert", "key", "users"] {
        fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
        unistd::chown(&own.join(name), Some(nobody.uid), Some(nobody.gid)).expect("root may");
    }
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).expect("it is ours");
    unistd::chown(&own, Some(nobody.uid), Some(nobody.gid)).expect("root may");
    let path = |name: &str| own.join(name).to_str().expect("temporary paths are text").to_owned();

    let start = |args: &[&str]| {
        let ports = format!("MEMCACHED_PORT_FILENAME={}", path("ports"));
        let bounded = command(Product::Filbert, &[&BOUNDS[..], &["env", &ports]].concat());
        let mut all = vec!["-u", "nobody"];
        all.extend_from_slice(args);
        let server = Server::spawn_as(Product::Filbert, bounded, &all);
        let killer = KillWithTests::to(server.pid());
        (server, killer)
    };
    let of_nobody = |name: &str| fs::metadata(path(name)).is_ok_and(|file| file.uid() == nobody.uid.as_raw());

    let (pid, users, log, socket) = (path("pid"), path("users"), path("log"), path("socket"));
    let tls = format!("ssl_chain_cert={},ssl_key={}", path("cert"), path("key"));
    let (mut server, killer) =
        start(&["-l", "127.0.0.1", "-P", &pid, "-Y", &users, "-Z", "-o", &tls, "--log-file", &log]);
    eventually("the pid file is written", || Path::new(&pid).exists());
    assert_eq!(fs::read_to_string(&pid).expect("it is there"), format!("{}\n", server.pid()));
    assert!(of_nobody("pid") && of_nobody("ports") && of_nobody("log"), "all are the user's");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
    assert!(!Path::new(&pid).exists() && !Path::new(&format!("{pid}.tmp")).exists(), "none is left");
    drop(killer);

    let (mut server, _killer) = start(&["-s", &socket, "-P", &pid]);
    unix_client(Path::new(&socket)).ask("mn\r\n", "MN\r\n");
    assert!(of_nobody("socket"), "it belongs to the user");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
    assert!(!Path::new(&socket).exists(), "it goes at the end");
}

#[test]
fn stop_signals_end_it_with_0_and_without_its_pid_file() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1] {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let pid_file = dir.path().join("pid");
        let mut server = Server::filbert(&["-P", pid_file.to_str().expect("temporary paths are text")]);
        let mut wire = server.connect();
        wire.ask("mn\r\n", "MN\r\n");
        assert_eq!(fs::read_to_string(&pid_file).expect("it is there"), format!("{}\n", server.pid()));
        server.signal(signal);
        assert_eq!(wire.rest().expect("the server closes in time"), b"");
        assert_eq!(server.wait_exit().code(), Some(0), "{signal}");
        assert!(!pid_file.exists(), "{signal}");
    }
}

#[test]
fn hup_does_not_end_it() {
    let mut server = Server::filbert(&[]);
    server.signal(Signal::SIGHUP);
    eventually("it says that it has reloaded", || server.stderr().contains("reloaded"));
    server.connect().ask("mn\r\n", "MN\r\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn root_is_given_away() {
    if !is_root() {
        // What there is to test without root to give away.
        let server = Server::filbert(&["-u", "nobody"]);
        server.connect().ask("mn\r\n", "MN\r\n");
        eventually("it is warned of", || server.stderr().contains("-u nobody has no effect: only root"));
        return;
    }
    let nobody = nobody();
    let server = Server::filbert(&["-u", "nobody"]);
    let _killer = KillWithTests::to(server.pid());
    server.connect().ask("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    // Every thread, with its real, effective, saved and file system ids.
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("readable");
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.expect("readable").path().join("status")).expect("readable");
        let ids = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux reports it");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ids("Uid:"), vec![nobody.uid.to_string(); 4]);
        assert_eq!(ids("Gid:"), vec![nobody.gid.to_string(); 4]);
        assert!(!ids("Groups:").contains(&"0".to_owned()), "{status}");
        threads += 1;
    }
    assert!(threads > 1, "{threads} threads");
}

#[test]
fn the_unix_socket_belongs_to_the_user() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("socket");
    let name = path.to_str().expect("temporary paths are text");
    let server = Server::spawn(Product::Filbert, &["-s", name, "-u", "nobody"]);
    let _killer = KillWithTests::to(server.pid());
    unix_client(&path).ask("mn\r\n", "MN\r\n");
    let file = fs::metadata(&path).expect("it is there");
    let owner = if is_root() { nobody().uid } else { Uid::current() };
    assert_eq!(file.uid(), owner.as_raw());
    assert_eq!(file.permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_unknown_user_is_refused() {
    if !is_root() {
        // It has no effect then, whoever it is.
        Server::filbert(&["-u", "no-such-user-here"]).connect().ask("mn\r\n", "MN\r\n");
        return;
    }
    let ended = run::filbert(&["-l", "127.0.0.1", "-p", "-1", "-u", "no-such-user-here"]);
    assert_eq!(ended.code, SYSTEM_REFUSED);
    assert!(ended.stderr.contains("-u no-such-user-here: there is no such user"), "{}", ended.stderr);
}

#[test]
fn port_0_without_a_unix_socket_is_refused() {
    let ended = run::filbert(&["-p", "0"]);
    assert_eq!(ended.code, USAGE);
    assert!(
        ended.stderr.contains("-p 0: turns TCP off, so that a unix socket (-s) is needed"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_unix_socket_replaces_a_stale_one_and_goes_at_the_end() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("socket");
    let name = path.to_str().expect("temporary paths are text");
    let first = Server::spawn(Product::Filbert, &["-s", name, "-a", "0600"]);
    unix_client(&path).ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    first.signal(Signal::SIGKILL);
    drop(first);
    assert!(fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket()), "it is stale");

    let mut second = Server::spawn(Product::Filbert, &["-s", name, "-a", "0666"]);
    let mut wire = unix_client(&path);
    wire.ask("get k\r\n", "END\r\n");
    assert_eq!(wire.setting("domain_socket"), name);
    assert_eq!(wire.setting("umask"), "666");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o666);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait_exit().code(), Some(0));
    assert!(fs::symlink_metadata(&path).is_err());
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("socket");
    fs::write(&path, "dear").expect("the directory is writable");
    let ended = run::filbert(&["-s", path.to_str().expect("temporary paths are text")]);
    assert_eq!(ended.code, SYSTEM_REFUSED);
    assert!(ended.stderr.contains(&format!("cannot listen on {}: ", path.display())), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "dear");
}

#[test]
fn the_port_file_has_a_line_for_each_listener() {
    let mut server = Server::spawn(
        Product::Filbert,
        &["-l", "127.0.0.1", "-l", "127.0.0.2,127.0.0.3:0", "-l", "127.0.0.4:-1"],
    );
    let ports = server.await_ports();
    assert_eq!(ports.len(), 4);
    let lines: String = ports.iter().map(|port| format!("TCP INET: {port}\n")).collect();
    assert_eq!(server.port_file(), format!("{lines}HTTP INET: {}\n", server.http_addr().port()));
    for (last, port) in (1..).zip(ports) {
        Wire::connect(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port))).ask("mn\r\n", "MN\r\n");
    }
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_may_be() {
    let limited = command(
        Product::Filbert,
        &["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=64:4096"],
    );
    let mut server = Server::spawn_as(Product::Filbert, limited, &["-l", "127.0.0.1", "-c", "200"]);
    let port = server.await_ports()[0];
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut open: Vec<_> = (0..200).map(|_| Wire::connect(address)).collect();
    for wire in &mut open {
        wire.ask("mn\r\n", "MN\r\n");
    }
}

#[test]
fn more_connections_than_files_are_refused() {
    // Root would raise the limit, unless it may not: CAP_SYS_RESOURCE.
    let wrapper = &["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=256:256"];
    let ended = run::filbert_in(wrapper, &[], &["-l", "127.0.0.1", "-p", "-1", "-c", "1000"]);
    assert_eq!(ended.code, SYSTEM_REFUSED, "{}", ended.stderr);
    let said = "-c 1000 needs as many open files, and the system allows 256: raise the limit (ulimit -n, \
                LimitNOFILE=), start as root, or lower -c";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);

    let limited = command(Product::Filbert, wrapper);
    let mut server = Server::spawn_as(Product::Filbert, limited, &["-l", "127.0.0.1", "-c", "200"]);
    server.await_ports();
    let said = "the system allows 256 open files: with -c 200 the last few clients may be refused";
    eventually("it is warned of", || server.stderr().contains(said));
}

fn nobody() -> User {
    User::from_name("nobody").expect("users can be looked up").expect("every system has it")
}

/// A connection to a unix socket, once there is one.
fn unix_client(path: &Path) -> Wire {
    let mut connected = None;
    eventually("the socket accepts", || {
        connected = Wire::connect_unix(path).ok();
        connected.is_some()
    });
    connected.expect("set when it was accepted")
}
