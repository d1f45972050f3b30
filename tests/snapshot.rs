//! Warm restarts of a node that is alone: what comes back, and what never does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::run;
use crate::support::server::{Product, Server, command, eventually};
use crate::support::wire::Wire;

/// Enough for reading them back to take a while.
const ITEMS: usize = 200_000;

fn directory() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("items");
    (dir, path)
}

fn start(path: &Path) -> Server {
    Server::filbert(&["-m", "256", "-A", "-t", "2", "--snapshot", path.to_str().expect("UTF-8")])
}

fn stop(mut server: Server) -> String {
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    server.stderr()
}

fn await_read(server: &Server) {
    eventually("the snapshot is read back", || server.stderr().contains(" read back: "));
}

/// Sends commands with `noreply`, and waits until they are executed.
fn send_all(wire: &mut Wire, line: impl Fn(usize) -> String) {
    let lines: String = (0..ITEMS).map(line).collect();
    wire.send(lines.as_bytes());
    wire.ask("mn\r\n", "MN\r\n");
}

fn fill(server: &Server) {
    fill_over(&mut server.connect());
}

fn fill_over(wire: &mut Wire) {
    send_all(wire, |number| format!("set k{number} 5 0 3 noreply\r\nold\r\n"));
}

/// How many of the keys are there, and with which values.
fn held(server: &Server) -> Vec<String> {
    let mut wire = server.connect();
    let mut writer = wire.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let lines: String = (0..ITEMS).map(|number| format!("mg k{number} v\r\n")).collect();
            writer.write_all(lines.as_bytes()).expect("it is taken");
        });
        let mut values = Vec::new();
        for _ in 0..ITEMS {
            if wire.line().expect("an answer") != b"EN\r\n" {
                let value = wire.line().expect("a value");
                values.push(String::from_utf8_lossy(&value).trim_end().to_owned());
            }
        }
        values
    })
}

#[test]
fn items_outlive_a_restart_and_no_crash() {
    let (_dir, path) = directory();
    let large = "x".repeat(300_000);
    let server = start(&path);
    let mut wire = server.connect();
    wire.ask(&format!("set large 7 0 300000\r\n{large}\r\n"), "STORED\r\n");
    wire.ask("ms ends 4 T3000 F9\r\nends\r\n", "HD\r\n");
    wire.ask("set past 0 -1 1\r\n1\r\n", "STORED\r\n");
    fill(&server);
    let said = stop(server);
    assert!(said.contains(&format!("snapshot {} written: {} items, ", path.display(), ITEMS + 2)), "{said}");

    let server = start(&path);
    server.connect().ask("mn\r\n", "MN\r\n");
    assert!(!path.exists(), "it loses its name before clients are served");
    await_read(&server);
    let mut wire = server.connect();
    wire.ask("get large\r\n", &format!("VALUE large 7 300000\r\n{large}\r\nEND\r\n"));
    wire.ask("get past\r\n", "END\r\n");
    wire.ask("mg ends v f\r\n", "VA 4 f9\r\nends\r\n");
    wire.send(b"mg ends t\r\n");
    let line = String::from_utf8(wire.line().expect("an answer")).expect("text");
    let left: u32 = line.trim_start_matches("HD t").trim_end().parse().expect("seconds");
    assert!((2900..=3000).contains(&left), "{line}");
    assert_eq!(held(&server), vec!["old"; ITEMS]);

    // `shutdown graceful` writes one as well.
    wire.send(b"shutdown graceful\r\n");
    let mut server = server;
    server.wait_exit();
    let server = start(&path);
    await_read(&server);
    server.connect().ask("set k1 0 0 3\r\nnew\r\n", "STORED\r\n");
    server.signal(Signal::SIGKILL);

    // Nothing is left that could bring the old value back.
    let server = start(&path);
    server.connect().ask("get k1\r\nget k2\r\n", "END\r\nEND\r\n");
    assert!(!server.stderr().contains("snapshot"), "{}", server.stderr());
}

/// What is tried again because the process was done with it before it could be killed.
const ATTEMPTS: usize = 10;

#[test]
fn a_node_that_is_killed_while_it_writes_leaves_nothing_to_read() {
    let (_dir, path) = directory();
    let unfinished = path.with_extension("tmp");
    let was_killed_in_time = (0..ATTEMPTS).any(|_| {
        let server = start(&path);
        let value = "x".repeat(500);
        send_all(&mut server.connect(), |number| format!("set k{number} 0 0 500 noreply\r\n{value}\r\n"));
        server.signal(Signal::SIGTERM);
        eventually("it writes", || unfinished.exists() || path.exists());
        server.signal(Signal::SIGKILL);
        drop(server);
        unfinished.exists() && !path.exists()
    });
    assert!(was_killed_in_time);

    let server = start(&path);
    server.connect().ask("get k1\r\n", "END\r\n");
    assert!(!server.stderr().contains("snapshot"), "{}", server.stderr());
    fill(&server);
    let said = stop(server);
    assert!(said.contains(" written: "), "what is unfinished is in nobody's way: {said}");
    assert!(path.exists() && !unfinished.exists());
}

#[test]
fn a_node_that_is_killed_while_it_reads_has_nothing_afterwards() {
    let (_dir, path) = directory();
    let was_killed_in_time = (0..ATTEMPTS).any(|_| {
        let server = start(&path);
        fill(&server);
        stop(server);
        let server = start(&path);
        server.connect().ask("set k1 0 0 3\r\nnew\r\n", "STORED\r\n");
        let is_reading = !server.stderr().contains(" read back: ");
        server.signal(Signal::SIGKILL);
        is_reading
    });
    assert!(was_killed_in_time);

    let server = start(&path);
    assert_eq!(held(&server), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_told_of() {
    let (dir, path) = directory();
    let mount = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let dir = dir.path().to_str().expect("UTF-8");
    let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, dir];
    let args = ["-l", "127.0.0.1", "-A", "--snapshot", path.to_str().expect("UTF-8")];
    let mut server = Server::spawn_as(Product::Filbert, command(Product::Filbert, &wrapper), &args);
    let port = server.await_ports()[0];
    fill_over(&mut Wire::connect(([127, 0, 0, 1], port).into()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0), "it stops all the same");
    let said = server.stderr();
    assert!(said.contains(" not written: No space left on device"), "{said}");
}

#[test]
fn what_clients_change_while_it_is_read_stays_changed() {
    let (_dir, path) = directory();
    let server = start(&path);
    fill(&server);
    stop(server);

    let server = start(&path);
    send_all(&mut server.connect(), |number| match number % 3 {
        0 => format!("delete k{number} noreply\r\n"),
        1 => format!("set k{number} 0 0 3 noreply\r\nnew\r\n"),
        _ => String::new(),
    });
    await_read(&server);
    let held = held(&server);
    let new = held.iter().filter(|value| *value == "new").count();
    // Who is not sure whether a key was written takes its item for a miss.
    assert_eq!(new, ITEMS / 3 + usize::from(ITEMS % 3 == 2));
    assert!(held.len() <= new + ITEMS / 3, "{} of {ITEMS}, {new} of them new", held.len());
    assert!(held.len() > new, "some come back");
}

#[test]
fn a_flush_while_it_is_read_leaves_nothing() {
    let (_dir, path) = directory();
    let server = start(&path);
    fill(&server);
    stop(server);
    let server = start(&path);
    server.connect().ask("flush_all\r\n", "OK\r\n");
    await_read(&server);
    assert_eq!(held(&server), [] as [&str; 0]);
}

/// A process that is being stopped may still write what another one has overwritten by then.
#[test]
fn a_start_waits_for_another_process_to_write() {
    let (_dir, path) = directory();
    let server = start(&path);
    server.connect().ask("set k 0 0 3\r\nold\r\n", "STORED\r\n");
    let text = path.to_str().expect("UTF-8");
    let mut next = Server::spawn(Product::Filbert, &["-l", "127.0.0.1", "--snapshot", text]);
    eventually("the next one waits", || next.stderr().contains("another process still uses it, waiting"));
    server.connect().ask("set k 0 0 3\r\nnew\r\n", "STORED\r\n");
    stop(server);
    next.await_ports();
    await_read(&next);
    assert!(next.stderr().contains(" read back: 1 items in "), "{}", next.stderr());
}

#[test]
fn a_damaged_one_is_named_and_moved_aside() {
    let (_dir, path) = directory();
    let server = start(&path);
    fill(&server);
    stop(server);
    let mut bytes = fs::read(&path).expect("it was written");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("it can be written");

    let server = start(&path);
    let refused = path.with_extension("refused");
    let expected =
        format!("snapshot {} not read: it is damaged; it is now {}", path.display(), refused.display());
    eventually("it is refused", || server.stderr().contains(&expected));
    assert_eq!(fs::read(&refused).expect("it is aside"), bytes);
    server.connect().ask("get k1\r\n", "END\r\n");
    // And the next one is in order.
    server.connect().ask("set k1 0 0 3\r\nnew\r\n", "STORED\r\n");
    stop(server);
    let server = start(&path);
    await_read(&server);
    server.connect().ask("get k1\r\n", "VALUE k1 0 3\r\nnew\r\nEND\r\n");
}

#[test]
fn where_it_makes_no_sense_or_cannot_be_written_is_said_at_once() {
    let cluster = ["--etcd-endpoints", "127.0.0.1:1", "--peer-listen", "127.0.0.1:0", "--snapshot", "items"];
    let ended = run::filbert(&cluster);
    assert_eq!(ended.code, Some(64));
    assert!(
        ended.stderr.contains("--snapshot items: is for a node that is alone: in a cluster "),
        "{}",
        ended.stderr
    );
    let ended = run::filbert(&["-p", "-1", "--http-listen", "127.0.0.1:0", "--snapshot", "/nowhere/items"]);
    assert_eq!(ended.code, Some(71));
    assert!(
        ended.stderr.contains("--snapshot /nowhere/items: cannot write there: No such file"),
        "{}",
        ended.stderr
    );
    for age in ["0", "1h"] {
        let ended = run::filbert(&["--snapshot", "items", "--snapshot-max-age", age]);
        let expected = format!("--snapshot-max-age {age}: needs a whole number from 1 to 2147483647");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}
