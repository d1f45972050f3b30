//! The promise for loads: what was overwritten or deleted does not come back from an origin either, whatever fails.
//!
//! All values are numbers of one count that only grows: those that clients write, and those that the origin gives. Each key
//! has one client that writes it. Once a write or a delete with a number is acknowledged, no read that begins later may see
//! a lower one. `FILBERT_CHECKER_SECONDS` says how long to go on (15).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster_checker::client::Client;
use crate::origins::Config;
use crate::support::cluster::Cluster;
use crate::support::node::ClientAddr;
use crate::support::origin::Origin;

const KEYS: usize = 8;

/// How long a client waits for a reply: longer than the group does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longer than a lease.
const FREEZE: Duration = Duration::from_secs(3);

/// What the clients know together.
struct World {
    numbers: Arc<AtomicU64>,
    /// For each key, what no read that begins now may be below.
    floors: [AtomicU64; KEYS],
    stop: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl World {
    fn next(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn read(&self, client: &mut Client<'_>, node: usize, key: usize) {
        let floor = self.floors[key].load(Ordering::SeqCst);
        let Ok(Ok(values)) = client.values(node, &format!("get g:{key}\r\n")) else { return };
        for value in values {
            let number: u64 = value.data.parse().expect("a number");
            assert!(number >= floor, "{number} under g:{key} through node-{}, after {floor}", node + 1);
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, client: &mut Client<'_>, node: usize, key: usize, choice: usize) {
        let number = self.next();
        let len = number.to_string().len();
        let (request, good) = match choice {
            0 => (format!("delete g:{key}\r\n"), &["DELETED", "NOT_FOUND"][..]),
            1 => (format!("add g:{key} 0 0 {len}\r\n{number}\r\n"), &["STORED"][..]),
            _ => (format!("set g:{key} 0 1 {len}\r\n{number}\r\n"), &["STORED"][..]),
        };
        if client.line(node, &request).is_ok_and(|line| good.contains(&line.as_str())) {
            self.floors[key].fetch_max(number, Ordering::SeqCst);
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client that reads all keys, and writes one of them, if it has one.
    fn act(&self, addrs: &[ClientAddr], own: Option<usize>, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut client = Client::new(addrs, PATIENCE);
        while !self.stop.load(Ordering::Relaxed) {
            let node = rng.usize(..addrs.len());
            match own {
                Some(key) if rng.u8(..4) == 0 => self.write(&mut client, node, key, rng.usize(..4)),
                _ => self.read(&mut client, node, rng.usize(..KEYS)),
            }
            // Keys must be missing now and then.
            thread::sleep(Duration::from_millis(rng.u64(..10)));
        }
    }
}

#[test]
fn no_old_value_comes_back_from_an_origin() {
    keep_the_promise("ttl = \"1s\"\nstale-if-error = \"1s\"");
}

/// What is stale is older than the origin's value, and no older than a write.
#[test]
fn no_old_value_comes_back_though_values_are_renewed_behind_replies() {
    keep_the_promise("ttl = \"2s\"\nstale-while-revalidate = \"2s\"\nrefresh-ahead = 0.9");
}

fn keep_the_promise(fields: &str) {
    let seconds = std::env::var("FILBERT_CHECKER_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or(15));
    let numbers = Arc::new(AtomicU64::new(1));
    let origin = Origin::counting(numbers.clone());
    let config = Config::new(&origin.config(&format!("{fields}\nwait = \"1s\"\nmax-inflight = 4")));
    let mut cluster = Cluster::start_with(3, &config.args());
    let addrs: Vec<ClientAddr> = cluster.nodes.iter().map(|node| node.client_addr()).collect();
    let world = World {
        numbers,
        floors: Default::default(),
        stop: AtomicBool::default(),
        reads: AtomicU64::default(),
        writes: AtomicU64::default(),
    };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..KEYS + 4)
            .map(|number| {
                let (world, addrs, own) = (&world, &addrs[..], (number < KEYS).then_some(number));
                scope.spawn(move || world.act(addrs, own, seed.wrapping_add(number as u64)))
            })
            .collect();
        let mut rng = fastrand::Rng::with_seed(seed);
        let began = Instant::now();
        // A client ends early only when it has seen what must not be.
        while began.elapsed() < duration && clients.iter().all(|client| !client.is_finished()) {
            thread::sleep(Duration::from_millis(rng.u64(200..1_500)));
            let node = &mut cluster.nodes[rng.usize(..3)];
            if rng.bool() {
                node.kill9();
                node.start();
            } else {
                node.stop();
                thread::sleep(if rng.bool() { FREEZE } else { FREEZE / 10 });
                node.cont();
            }
        }
        world.stop.store(true, Ordering::Relaxed);
    });
    let (reads, writes) = (world.reads.into_inner(), world.writes.into_inner());
    println!("{reads} hits, {writes} writes, {} loads", origin.asked_in_all());
    assert!(reads > 100 && writes > 100 && origin.asked_in_all() > 100, "that proves nothing");
}
