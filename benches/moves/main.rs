//! What clients see while nodes join, leave and are restarted one by one, and how fast items move:
//! `cargo bench --bench moves`.
//!
//! Nodes and an etcd on this machine, under a look-aside load: 100,000 keys by Zipf with exponent 1, values of 500 bytes, each
//! client asks for one key at a time and sets what it misses. Clients leave a node before it is stopped, as a load balancer
//! has them do. Then a gigabyte moves from one node to another, without a limit and at two rates.
//!
//! `--filbert PATH` measures another program, `--quick` takes a fifth of the time, `--changes` leaves out the gigabyte, and
//! `--rates 0,8m` moves it alone, at these rates. `--pause 1000` has each client rest so many microseconds after a request,
//! in place of 200.

mod load;
#[allow(dead_code)] // This is no comparison.
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::load::{Load, VALUE_BYTES, fill, p99};
use crate::support::Result;
use crate::support::server::{ask, says};
use crate::support::started::etcd::Etcd;
use crate::support::started::server_process::{self, ServerProcess};
use crate::support::started::site::Site;

/// Keys that clients ask for.
const KEYS: usize = 100_000;

/// Items of the gigabyte.
const ITEMS: usize = 2_000_000;

/// How long clients are watched while nothing moves.
const REST: Duration = Duration::from_secs(6);

/// How long nodes may take to settle.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let filbert = after("--filbert").map_or_else(|| env!("CARGO_BIN_EXE_filbert").into(), PathBuf::from);
    let scale = if args.iter().any(|arg| arg == "--quick") { 1 } else { 5 };
    let pause = Duration::from_micros(after("--pause").map_or(Ok(200), |micros| micros.parse())?);
    let etcd = Etcd::start();
    let rates = after("--rates");
    if rates.is_none() {
        changes(&filbert, &etcd.endpoint(), scale, pause)?;
    }
    if args.iter().any(|arg| arg == "--changes") {
        return Ok(());
    }
    for rate in rates.map_or("0,64m,32m", String::as_str).split(',') {
        gigabyte(&filbert, &etcd.endpoint(), rate, ITEMS * scale / 5, pause)?;
    }
    Ok(())
}

/// A node that keeps its name and its ports.
struct Node {
    args: Vec<String>,
    addr: SocketAddr,
    process: Option<ServerProcess>,
}

impl Node {
    fn new(etcd: &str, cluster: &str, id: usize, more: &[&str]) -> Self {
        let site = Site::loopback();
        let (ip, port) = (site.ip, site.free_port());
        let own = [
            ("--etcd-endpoints", etcd.to_owned()),
            ("--cluster", cluster.to_owned()),
            ("--node-id", format!("node-{id}")),
            ("--peer-listen", format!("{ip}:{}", site.free_port())),
            ("-l", ip.to_string()),
            ("-p", port.to_string()),
            ("-t", "2".to_owned()),
        ];
        let mut args: Vec<String> =
            own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        Self { args, addr: (ip, port).into(), process: None }
    }

    fn start(&mut self, filbert: &Path) -> Result<()> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut process = ServerProcess::spawn(server_process::command(&[], filbert), &args, None)?;
        process.await_ports()?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it as a supervisor does, and waits until it has ended.
    fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().ok_or("it does not run")?;
        process.child.signal(Signal::SIGTERM);
        process.child.wait()?;
        Ok(())
    }

    /// Whether it agrees that there are so many members, and nothing is on its way.
    fn is_settled(&self, members: usize) -> Result<bool> {
        let members = format!("STAT members {members}");
        let settled =
            ["STAT standing serving", "STAT settled yes", "STAT move_slots_in 0", "STAT move_slots_out 0"];
        Ok(says(self.addr, "stats ring", &[&settled[..], &[&members]].concat())?)
    }

    fn stat(&self, command: &str, name: &str) -> Result<String> {
        Ok(ask(self.addr, command, &format!("STAT {name} "))?.unwrap_or_default())
    }
}

/// Waits until so many nodes agree, and nothing is on its way.
fn settle(nodes: &[Node], members: usize) -> Result<()> {
    let began = Instant::now();
    for node in nodes.iter().filter(|node| node.process.is_some()) {
        while !node.is_settled(members)? {
            if began.elapsed() > PATIENCE {
                return Err("the nodes do not settle".into());
            }
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Three nodes become four and three again, and all are restarted one by one.
fn changes(filbert: &Path, etcd: &str, scale: usize, pause: Duration) -> Result<()> {
    let mut nodes: Vec<Node> = (1..=4).map(|id| Node::new(etcd, "changes", id, &["-m", "512"])).collect();
    for node in &mut nodes[..3] {
        node.start(filbert)?;
    }
    settle(&nodes, 3)?;
    fill(nodes[0].addr, KEYS)?;
    let items = |nodes: &[Node]| -> Result<u64> {
        let running = nodes.iter().filter(|node| node.process.is_some());
        running.map(|node| Ok(node.stat("stats", "curr_items")?.parse::<u64>()?)).sum()
    };
    println!("{:<26} {:>8} {:>10} {:>12} {:>10}", "", "seconds", "worst hits", "p99 in worst", "items");
    let addrs: Vec<_> = nodes[..3].iter().map(|node| node.addr).collect();
    let load = Load::start(&addrs, pause);
    let rest = Duration::from_secs(scale as u64);
    sleep(rest * 2);
    let mut marks = vec![("nothing changes", 1, load.second(), items(&nodes)?)];
    let mut mark = |name, from, nodes: &[Node]| -> Result<()> {
        sleep(rest);
        marks.push((name, from, load.second(), items(nodes)?));
        Ok(())
    };
    let from = load.second();
    nodes[3].start(filbert)?;
    settle(&nodes, 4)?;
    mark("a node joins", from, &nodes)?;
    let from = load.second();
    nodes[3].stop()?;
    settle(&nodes, 3)?;
    mark("it is stopped", from, &nodes)?;
    let from = load.second();
    for number in 0..3 {
        load.avoid(number);
        nodes[number].stop()?;
        nodes[number].start(filbert)?;
        settle(&nodes, 3)?;
    }
    load.avoid(usize::MAX);
    mark("all three are restarted", from, &nodes)?;
    let seen = load.end();
    for (name, from, to, items) in marks {
        let seconds = &seen.seconds[from..to.min(seen.seconds.len())];
        let ratio = |(hits, took): &(usize, Vec<u32>)| *hits as f64 / took.len().max(1) as f64;
        let worst = seconds.iter().map(ratio).fold(1.0, f64::min);
        let p99 = seconds.iter().map(|(_, took)| p99(took)).max().unwrap_or_default();
        println!("{name:<26} {:>8} {worst:>10.4} {p99:>9} us {items:>10}", seconds.len());
    }
    let asked: usize = seen.seconds.iter().map(|(_, took)| took.len()).sum();
    println!("{asked} requests, {} errors {:?}\n", seen.errors.len(), seen.errors.first());
    Ok(())
}

/// A gigabyte moves from one node to another while clients ask for it.
fn gigabyte(filbert: &Path, etcd: &str, rate: &str, items: usize, pause: Duration) -> Result<()> {
    let cluster = format!("gigabyte-{rate}");
    let more = ["-m", "3072", "--move-rate", rate];
    let mut nodes = vec![
        Node::new(etcd, &cluster, 1, &more),
        Node::new(etcd, &cluster, 2, &[&more[..], &["--weight", "10000"]].concat()),
    ];
    nodes[0].start(filbert)?;
    settle(&nodes, 1)?;
    fill(nodes[0].addr, items)?;
    let load = Load::start(&[nodes[0].addr], pause);
    sleep(REST);
    let (from, began) = (load.second(), Instant::now());
    nodes[1].start(filbert)?;
    settle(&nodes, 2)?;
    let took = began.elapsed();
    let to = load.second();
    sleep(REST);
    let seen = load.end();
    let moved: usize = nodes[1].stat("stats", "curr_items")?.parse()?;
    let rate_now = (moved * (VALUE_BYTES + 10)) as f64 / 1e6 / took.as_secs_f64();
    println!(
        "--move-rate {rate}: {moved} of {items} items in {:.1} s, {rate_now:.0} MB/s",
        took.as_secs_f64()
    );
    let whole = seen.seconds.len() - 1;
    for (when, seconds) in [("before", 1..from), ("meanwhile", from + 1..to), ("afterwards", to + 1..whole)] {
        let mut p99s: Vec<u32> = seen.seconds[seconds].iter().map(|(_, took)| p99(took)).collect();
        p99s.sort_unstable();
        let (middle, worst) = (p99s.get(p99s.len() / 2), p99s.last());
        println!(
            "  p99 of a second {when:<10} {:>6} us, worst {:>6} us",
            middle.unwrap_or(&0),
            worst.unwrap_or(&0)
        );
    }
    println!("  {} errors", seen.errors.len());
    Ok(())
}
