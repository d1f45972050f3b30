//! Clients that look aside, and what they see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::KEYS;
use crate::support::Result;
use crate::support::client::Client;

pub const VALUE_BYTES: usize = 500;
const CLIENTS: usize = 4;

/// Keys that are set at once.
const BATCH: usize = 1_000;

/// The value of every key.
static VALUE: [u8; VALUE_BYTES] = [b'x'; VALUE_BYTES];

/// Sets so many keys.
pub fn fill(addr: SocketAddr, keys: usize) -> Result<()> {
    let mut client = Client::connect("a node", addr)?;
    for first in (0..keys).step_by(BATCH) {
        let batch = first..(first + BATCH).min(keys);
        batch.clone().for_each(|key| client.put_set(&name(key), &VALUE));
        client.send()?;
        batch.into_iter().try_for_each(|_| stored(&mut client))?;
    }
    Ok(())
}

fn name(key: usize) -> Vec<u8> {
    format!("key-{key}").into_bytes()
}

fn stored(client: &mut Client) -> Result<()> {
    if client.read_set()? { Ok(()) } else { Err(client.reply().into()) }
}

/// Asks for a key, and sets it where it is missing; whether it was there.
fn look_aside(client: &mut Client, key: usize) -> Result<bool> {
    let keys = [name(key)];
    client.put_gets(&keys);
    client.send()?;
    let mut is_there = false;
    client.read_gets(&keys, |_, value| {
        is_there = true;
        *value == VALUE
    })?;
    if !is_there {
        client.put_set(&keys[0], &VALUE);
        client.send()?;
        stored(client)?;
    }
    Ok(is_there)
}

/// What clients see, second by second.
pub struct Load {
    stop: Arc<AtomicBool>,
    /// The node that clients leave alone.
    avoided: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Seen>>,
    began: Instant,
}

#[derive(Default)]
pub struct Seen {
    /// For each second: hits, and how long each request took.
    pub seconds: Vec<(usize, Vec<u32>)>,
    pub errors: Vec<String>,
}

impl Load {
    /// Clients of these nodes, which rest between their requests: the machine is shared with the nodes.
    pub fn start(addrs: &[SocketAddr], pause: Duration) -> Self {
        let zipf = zipf();
        let (stop, avoided) = (Arc::<AtomicBool>::default(), Arc::new(AtomicUsize::new(usize::MAX)));
        let began = Instant::now();
        let client = |number: usize| {
            let (stop, avoided, zipf) = (stop.clone(), avoided.clone(), zipf.clone());
            let addrs = addrs.to_vec();
            thread::spawn(move || ask(number, &addrs, &zipf, &stop, &avoided, (began, pause)))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, avoided, clients, began }
    }

    /// Clients leave a node, and have done so on return.
    pub fn avoid(&self, node: usize) {
        self.avoided.store(node, Ordering::SeqCst);
        sleep(Duration::from_millis(100));
    }

    /// Since it began.
    pub fn second(&self) -> usize {
        self.began.elapsed().as_secs() as usize
    }

    /// Ends it.
    pub fn end(self) -> Seen {
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
    (began, pause): (Instant, Duration),
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
                if let (true, Ok(client)) = (node != avoided, Client::connect("a node", addrs[node])) {
                    *none = Some((node, client));
                }
                continue;
            }
        };
        let key = zipf.partition_point(|sum| *sum < random.f64());
        let asked = Instant::now();
        let hit = look_aside(client, key);
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
        sleep(pause);
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

/// The 99th percentile, in microseconds.
pub fn p99(took: &[u32]) -> u32 {
    let mut took = took.to_vec();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}
