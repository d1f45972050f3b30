//! What clients see while nodes join, leave and are restarted one by one, and how fast items move:
//! `cargo bench --bench moves`.
//!
//! Nodes and an etcd on this machine, under a look-aside load: 100,000 keys by Zipf with exponent 1, values of 500 bytes, each
//! client asks for one key at a time and sets what it misses. Clients leave a node before it is stopped, as a load balancer
//! has them do. Then a gigabyte moves from one node to another, without a limit and at the default rate.
//!
//! `--filbert PATH` measures another program, `--quick` takes a fifth of the time.

/// What starts etcd and servers in the tests.
#[allow(dead_code, unused_imports)]
#[path = "../tests/support"]
mod support {
    mod child;
    pub mod etcd;
    mod netns;
    pub mod server_process;
    mod shown;
    pub mod site;
}

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::etcd::Etcd;
use crate::support::server_process::{self, ServerProcess};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 500;
const CLIENTS: usize = 4;

/// Items of the gigabyte, and how many are set at once.
const ITEMS: usize = 2_000_000;
const BATCH: usize = 1_000;

const PATIENCE: Duration = Duration::from_secs(60);

/// A client that rests asks no faster than this; the machine is shared with the nodes.
const PAUSE: Duration = Duration::from_micros(200);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let filbert = after("--filbert").map_or_else(|| env!("CARGO_BIN_EXE_filbert").into(), PathBuf::from);
    let scale = if args.iter().any(|arg| arg == "--quick") { 1 } else { 5 };
    let etcd = Etcd::start();
    changes(&filbert, &etcd.endpoint(), scale)?;
    for rate in ["0", "64m"] {
        gigabyte(&filbert, &etcd.endpoint(), rate, ITEMS * scale / 5)?;
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
        let (port, peer) = (free_port(), free_port());
        let own = [
            ("--etcd-endpoints", etcd.to_owned()),
            ("--cluster", cluster.to_owned()),
            ("--node-id", format!("node-{id}")),
            ("--peer-listen", format!("127.0.0.1:{peer}")),
            ("-l", "127.0.0.1".to_owned()),
            ("-p", port.to_string()),
            ("-t", "2".to_owned()),
        ];
        let mut args: Vec<String> =
            own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        Self { args, addr: (Ipv4Addr::LOCALHOST, port).into(), process: None }
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
        process.child.wait();
        Ok(())
    }

    fn stat(&self, command: &str, name: &str) -> Result<String> {
        let mut client = Client::connect(self.addr)?;
        client.stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut found = String::new();
        loop {
            let line = client.line()?;
            match line.strip_prefix("STAT ").and_then(|rest| rest.strip_prefix(name)?.strip_prefix(' ')) {
                Some(value) => found = value.to_owned(),
                None if line == "END" => return Ok(found),
                None => {}
            }
        }
    }
}

/// Waits until so many nodes agree, and nothing is on its way.
fn settle(nodes: &[Node], members: usize) -> Result<()> {
    let began = Instant::now();
    let is_settled = |node: &Node| -> Result<bool> {
        let is = |name, wanted: &str| Ok::<_, Box<dyn Error>>(node.stat("stats ring", name)? == wanted);
        Ok(is("members", &members.to_string())?
            && is("settled", "yes")?
            && is("move_slots_in", "0")?
            && is("move_slots_out", "0")?)
    };
    for node in nodes.iter().filter(|node| node.process.is_some()) {
        while !is_settled(node)? {
            if began.elapsed() > PATIENCE {
                return Err("the nodes do not settle".into());
            }
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// A port that nobody listened on a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

struct Client {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Client {
    fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { input: BufReader::new(stream.try_clone()?), stream })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.input.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Whether it is there.
    fn get(&mut self, key: usize) -> io::Result<bool> {
        self.stream.write_all(format!("get key-{key}\r\n").as_bytes())?;
        let line = self.line()?;
        let Some(bytes) = line.strip_prefix("VALUE ").and_then(|rest| rest.rsplit(' ').next()) else {
            return if line == "END" { Ok(false) } else { Err(io::Error::other(line)) };
        };
        let bytes: usize = bytes.parse().map_err(io::Error::other)?;
        let mut rest = vec![0; bytes + b"\r\nEND\r\n".len()];
        self.input.read_exact(&mut rest)?;
        Ok(true)
    }

    fn set(&mut self, key: usize) -> io::Result<()> {
        self.stream.write_all(&set(key))?;
        match self.line()? {
            line if line == "STORED" => Ok(()),
            line => Err(io::Error::other(line)),
        }
    }
}

fn set(key: usize) -> Vec<u8> {
    let mut command = format!("set key-{key} 0 0 {VALUE_BYTES}\r\n").into_bytes();
    command.resize(command.len() + VALUE_BYTES, b'x');
    command.extend(b"\r\n");
    command
}

/// What clients see, second by second.
struct Load {
    stop: Arc<AtomicBool>,
    /// The node that clients leave alone.
    avoided: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Seen>>,
    began: Instant,
}

#[derive(Default)]
struct Seen {
    /// For each second: hits, and how long each request took.
    seconds: Vec<(usize, Vec<u32>)>,
    errors: Vec<String>,
}

impl Load {
    fn start(addrs: &[SocketAddr], zipf: &Arc<Vec<f64>>) -> Self {
        let (stop, avoided) = (Arc::<AtomicBool>::default(), Arc::new(AtomicUsize::new(usize::MAX)));
        let began = Instant::now();
        let client = |number: usize| {
            let (stop, avoided, zipf) = (stop.clone(), avoided.clone(), zipf.clone());
            let addrs = addrs.to_vec();
            thread::spawn(move || ask(number, &addrs, &zipf, &stop, &avoided, began))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, avoided, clients, began }
    }

    /// Clients leave a node, and have done so on return.
    fn avoid(&self, node: usize) {
        self.avoided.store(node, Ordering::SeqCst);
        sleep(Duration::from_millis(100));
    }

    fn second(&self) -> usize {
        self.began.elapsed().as_secs() as usize
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for client in self.clients {
            let seen = client.join().expect("no client panics");
            all.errors.extend(seen.errors);
            all.seconds.resize_with(all.seconds.len().max(seen.seconds.len()), Default::default);
            for (second, (hits, took)) in seen.seconds.into_iter().enumerate() {
                all.seconds[second].0 += hits;
                all.seconds[second].1.extend(took);
            }
        }
        all
    }
}

fn ask(
    number: usize,
    addrs: &[SocketAddr],
    zipf: &[f64],
    stop: &AtomicBool,
    avoided: &AtomicUsize,
    began: Instant,
) -> Seen {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let mut seen = Seen::default();
    let mut present: Option<(usize, Client)> = None;
    let mut turn = number;
    while !stop.load(Ordering::Relaxed) {
        let avoided = avoided.load(Ordering::SeqCst);
        present = present.filter(|(node, _)| *node != avoided);
        let (_, client) = match &mut present {
            Some(present) => present,
            none => {
                turn += 1;
                let node = turn % addrs.len();
                if let (true, Ok(client)) = (node != avoided, Client::connect(addrs[node])) {
                    *none = Some((node, client));
                }
                continue;
            }
        };
        let key = zipf.partition_point(|sum| *sum < random.f64());
        let asked = Instant::now();
        let hit =
            client.get(key).and_then(|hit| if hit { Ok(true) } else { client.set(key).map(|()| false) });
        let second = began.elapsed().as_secs() as usize;
        seen.seconds.resize_with(seen.seconds.len().max(second + 1), Default::default);
        match hit {
            Ok(hit) => {
                seen.seconds[second].0 += usize::from(hit);
                seen.seconds[second].1.push(asked.elapsed().as_micros() as u32);
            }
            Err(error) => {
                seen.errors.push(error.to_string());
                present = None;
            }
        }
        sleep(PAUSE);
    }
    seen
}

/// The sums of the keys' shares, the most popular first.
fn zipf() -> Arc<Vec<f64>> {
    let total: f64 = (1..=KEYS).map(|rank| 1.0 / rank as f64).sum();
    let mut sum = 0.0;
    let mut next = |rank: usize| {
        sum += 1.0 / rank as f64 / total;
        sum
    };
    Arc::new((1..=KEYS).map(|rank| if rank == KEYS { next(rank).max(1.0) } else { next(rank) }).collect())
}

/// Three nodes become four and three again, and all are restarted one by one.
fn changes(filbert: &Path, etcd: &str, scale: usize) -> Result<()> {
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
    let load = Load::start(&addrs, &zipf());
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
fn gigabyte(filbert: &Path, etcd: &str, rate: &str, items: usize) -> Result<()> {
    let cluster = format!("gigabyte-{rate}");
    let more = ["-m", "3072", "--move-rate", rate];
    let mut nodes = vec![
        Node::new(etcd, &cluster, 1, &more),
        Node::new(etcd, &cluster, 2, &[&more[..], &["--weight", "10000"]].concat()),
    ];
    nodes[0].start(filbert)?;
    settle(&nodes, 1)?;
    fill(nodes[0].addr, items)?;
    let load = Load::start(&[nodes[0].addr], &zipf());
    sleep(Duration::from_secs(5));
    let (from, began) = (load.second(), Instant::now());
    nodes[1].start(filbert)?;
    settle(&nodes, 2)?;
    let took = began.elapsed();
    let to = load.second();
    let seen = load.end();
    let p99_of = |seconds: &[(usize, Vec<u32>)]| {
        let mut all: Vec<u32> = seconds.iter().map(|(_, took)| p99(took)).collect();
        all.sort_unstable();
        (all.get(all.len() / 2).copied().unwrap_or_default(), all.last().copied().unwrap_or_default())
    };
    let (before, during) =
        (p99_of(&seen.seconds[1..from]), p99_of(&seen.seconds[from..(to + 1).min(seen.seconds.len())]));
    let moved: usize = nodes[1].stat("stats", "curr_items")?.parse()?;
    println!(
        "--move-rate {rate}: {moved} of {items} items in {:.1} s, {:.0} MB/s; p99 by the second {} us before, {} us meanwhile \
         (worst {} and {}), {} errors",
        took.as_secs_f64(),
        (moved * (VALUE_BYTES + 10)) as f64 / 1e6 / took.as_secs_f64(),
        before.0,
        during.0,
        before.1,
        during.1,
        seen.errors.len()
    );
    Ok(())
}

/// Sets so many keys.
fn fill(addr: SocketAddr, keys: usize) -> Result<()> {
    let mut client = Client::connect(addr)?;
    for first in (0..keys).step_by(BATCH) {
        let batch = first..(first + BATCH).min(keys);
        let commands: Vec<u8> = batch.clone().flat_map(set).collect();
        client.stream.write_all(&commands)?;
        for _ in batch {
            let line = client.line()?;
            if line != "STORED" {
                return Err(line.into());
            }
        }
    }
    Ok(())
}

fn p99(took: &[u32]) -> u32 {
    let mut took = took.to_vec();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}
