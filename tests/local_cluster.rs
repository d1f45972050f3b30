//! `filbert local-cluster`: what it starts, and that nothing of it is left.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::origin::Origin;
use crate::support::run;
use crate::support::server::{Product, command, eventually};
use crate::support::shown::Cut;
use crate::support::wire::Wire;

#[test]
fn its_nodes_are_one_cache() {
    // The port of the second node is taken: another one does.
    let (first, taken) = two_ports_in_a_row();
    let local = Local::start(&["--port", &first.to_string(), "--", "-m", "16", "--zone", "here"]);
    let nodes = local.await_nodes();
    assert_eq!(nodes.len(), 3, "{}", local.stdout());
    assert_eq!(nodes[0].port, first);
    assert_ne!(nodes[1].port, taken.local_addr().expect("bound").port());

    for (index, node) in nodes.iter().enumerate() {
        let mut wire = node.connect();
        wire.ask(&format!("set key-{index} 0 0 1\r\n{index}\r\n"), "STORED\r\n");
        assert_eq!(wire.setting("maxbytes"), (16 << 20).to_string(), "what is behind -- is for the nodes");
    }
    for node in &nodes {
        let mut wire = node.connect();
        for index in 0..nodes.len() {
            wire.ask(
                &format!("get key-{index}\r\n"),
                &format!("VALUE key-{index} 0 1\r\n{index}\r\nEND\r\n"),
            );
        }
    }
    local.stop_and_look(Signal::SIGINT);
}

#[test]
fn its_nodes_have_the_groups_of_a_file() {
    let origin = Origin::start();
    origin.has("Tom", "630");
    let dir = TempDir::new().expect("a temporary directory can be made");
    let file = dir.path().join("groups.toml");
    fs::write(&file, origin.config("wait = \"20s\"")).expect("the directory is writable");
    let file = file.to_str().expect("UTF-8");
    let local = Local::start(&["--port", "0", "--", "--config", file]);
    for node in &local.await_nodes() {
        node.connect().ask("get g:Tom\r\n", "VALUE g:Tom 0 3\r\n630\r\nEND\r\n");
    }
    assert_eq!(origin.asked("Tom"), 1);
    local.stop_and_look(Signal::SIGTERM);
}

#[test]
fn a_node_that_ends_is_missed_and_can_be_started_again() {
    let local = Local::start(&["--port", "0", "--nodes", "2"]);
    let nodes = local.await_nodes();
    kill(nodes[1].pid, Signal::SIGKILL).expect("it runs");
    eventually("its end is said", || local.stderr().contains("node-2 has ended (signal: 9 (SIGKILL))"));
    let stderr = local.stderr();
    let again = stderr.lines().find_map(|line| line.split_once("to start it again: ")).expect("said").1;
    assert!(again.contains("--node-id node-2"), "{again}");
    assert!(again.contains(&format!("--listen 127.0.0.1:{}", nodes[1].port)), "{again}");
    nodes[0].connect().ask("mn\r\n", "MN\r\n");
    local.stop_and_look(Signal::SIGTERM);
}

#[test]
fn it_can_be_stopped_while_it_starts() {
    let local = Local::start(&["--port", "0"]);
    local.await_children(4);
    local.stop_and_look(Signal::SIGTERM);
}

#[test]
fn its_children_end_with_it_even_when_it_is_killed() {
    let mut local = Local::start(&["--port", "0"]);
    let children = local.await_children(4);
    local.child.kill().expect("it runs");
    local.wait_exit();
    await_gone(&children);
}

#[test]
fn logs_say_whose_they_are() {
    let local = Local::start(&["--port", "0", "--nodes", "2", "--", "-v"]);
    eventually("both say where they listen", || {
        let stderr = local.stderr();
        let listens = |node: &str| {
            let name = format!("{node}   | ");
            stderr.lines().any(|line| line.starts_with(&name) && line.contains("listening on tcp:127.0.0.1:"))
        };
        listens("node-1") && listens("node-2")
    });
    local.stop_and_look(Signal::SIGTERM);
}

#[test]
fn without_etcd_it_says_what_to_install() {
    let empty = TempDir::new().expect("a temporary directory can be made");
    let path = empty.path().to_str().expect("temporary paths are text");
    let ended = run::filbert_in(&[], &[("PATH", path)], &["local-cluster"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(
        ended.stderr,
        "filbert: etcd is not on the PATH; on Debian and Ubuntu: apt-get install etcd-server\n"
    );
}

#[test]
fn an_etcd_that_ends_is_shown_with_what_it_said() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let etcd = dir.path().join("etcd");
    fs::write(&etcd, "#!/bin/sh\necho \"no room for $1\" >&2\nexit 3\n").expect("the directory is writable");
    let mut allowed = fs::metadata(&etcd).expect("written").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut allowed, 0o755);
    fs::set_permissions(&etcd, allowed).expect("it is ours");
    let path = dir.path().to_str().expect("temporary paths are text");
    let ended = run::filbert_in(&[], &[("PATH", path), ("TMPDIR", path)], &["local-cluster"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr, "filbert: etcd ended at start: exit status: 3\nno room for --name\n");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "only etcd itself is left");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, expected) in [
        (&["--nodes", "0"][..], "local-cluster --nodes 0: needs a whole number from 1 to 16"),
        (&["--", "-p", "5"], "-p 5: cannot be told to the nodes of local-cluster"),
        (&["--", "-m", "lots"], "-m lots: needs a number of megabytes"),
    ] {
        let ended = run::filbert(&[&["local-cluster"], args].concat());
        assert_eq!(ended.code, Some(64), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("filbert: {expected}")), "{args:?}: {}", ended.stderr);
    }
    let help = run::filbert(&["local-cluster", "--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.starts_with("filbert local-cluster [--nodes=<num>]"), "{}", help.stdout);
}

/// A local cluster, killed when dropped; its children die with it.
struct Local {
    child: Child,
    dir: TempDir,
}

/// A row of the table that it prints.
struct Node {
    port: u16,
    pid: Pid,
}

impl Local {
    fn start(args: &[&str]) -> Local {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let file = |name| File::create(dir.path().join(name)).expect("the directory is writable");
        fs::create_dir(dir.path().join("tmp")).expect("the directory is writable");
        let child = command(Product::Filbert, &[])
            .arg("local-cluster")
            .args(args)
            .env("TMPDIR", dir.path().join("tmp"))
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("setpriv starts");
        Local { child, dir }
    }

    /// Waits for the table.
    fn await_nodes(&self) -> Vec<Node> {
        eventually("the cluster is whole", || {
            assert!(self.is_running(), "ended at start: {}", Cut(self.stderr()));
            self.stdout().contains("Ctrl-C stops it")
        });
        let row = |line: &str| {
            let mut words = line.split_whitespace();
            words.next().filter(|name| name.starts_with("node-"))?;
            let port = words.next()?.strip_prefix("127.0.0.1:")?.parse().ok()?;
            Some(Node { port, pid: Pid::from_raw(words.nth(2)?.parse().ok()?) })
        };
        self.stdout().lines().filter_map(row).collect()
    }

    /// Waits until it has `count` children, each running its own program.
    fn await_children(&self, count: usize) -> BTreeSet<Pid> {
        let mut children = BTreeSet::new();
        eventually(&format!("there are {count} children"), || {
            assert!(self.is_running(), "ended at start: {}", Cut(self.stderr()));
            children = children_of(self.child.id());
            children.len() == count && children.iter().all(|pid| !is_in_between(*pid))
        });
        children
    }

    /// Stops it, and looks that it ends well and leaves nothing.
    fn stop_and_look(mut self, signal: Signal) {
        let children = children_of(self.child.id());
        let pid = i32::try_from(self.child.id()).expect("Linux process ids fit in i32");
        kill(Pid::from_raw(pid), signal).expect("the process is ours and not yet reaped");
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "{}", Cut(self.stderr()));
        await_gone(&children);
        let left = fs::read_dir(self.dir.path().join("tmp")).expect("readable").count();
        assert_eq!(left, 0, "a directory is left");
    }

    fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().expect("the child can be waited for");
            status.is_some()
        });
        status.expect("set when the wait succeeded")
    }

    fn is_running(&self) -> bool {
        !is_gone(Pid::from_raw(i32::try_from(self.child.id()).expect("Linux process ids fit in i32")))
    }

    fn stdout(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).expect("UTF-8 text")
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).expect("UTF-8 text")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Fails only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- stdout of the local cluster:\n{}--- stderr:\n{}", self.stdout(), self.stderr());
        }
    }
}

impl Node {
    fn connect(&self) -> Wire {
        Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }
}

/// A free port, and the one above it, which the caller holds.
fn two_ports_in_a_row() -> (u16, TcpListener) {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = first.local_addr().expect("bound").port();
        if let Some(next) = port.checked_add(1)
            && let Ok(next) = TcpListener::bind((Ipv4Addr::LOCALHOST, next))
        {
            return (port, next);
        }
    }
}

fn children_of(pid: u32) -> BTreeSet<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Whether a child has not yet become the program that it was started for.
fn is_in_between(pid: Pid) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = words.split(|byte| *byte == 0).collect();
    words.get(1).is_none_or(|word| *word == b"local-cluster-child" || *word == b"local-cluster")
}

#[track_caller]
fn await_gone(pids: &BTreeSet<Pid>) {
    eventually(&format!("{pids:?} are gone"), || pids.iter().all(|pid| is_gone(*pid)));
}

fn is_gone(pid: Pid) -> bool {
    // Nobody may be there to reap it, as in a container whose first process does not.
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}
