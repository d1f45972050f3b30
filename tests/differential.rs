//! The same random commands to Filbert and to a real memcached: the replies have to be the same.
//!
//! `FILBERT_SEED=n` replays one stream; a failure prints its seed and the shortest stream found that still fails.

mod binary;
mod maker;
mod replies;
mod stream;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use crate::differential::maker::generate;
use crate::differential::replies::difference;
use crate::differential::stream::{CAS_BEFORE, CAS_NOW, PREFIX, Request};
use crate::support::server::{Product, Server};
use crate::support::shown::Cut;
use crate::support::wire::Wire;

/// Streams in one run; takes about ten seconds with both servers on one core.
const STREAMS: u64 = 4_000;
/// The seed of the first stream; the others follow it.
const BASE_SEED: u64 = 20_240_301;
const ARGS: &[&str] = &["-m", "64"];
/// Closes a batch: when its reply is there, so are all others.
const SYNC: &[u8] = b"mn\r\n";
const SYNCED: &[u8] = b"MN\r\n";

#[test]
fn filbert_answers_random_streams_as_memcached_does() {
    compare(Product::Filbert, &seeds(), |replies| replies);
}

/// memcached against itself: shows that streams are deterministic and that nothing needed is left un-evened.
#[test]
fn memcached_answers_random_streams_as_itself() {
    let seeds: Vec<u64> = seeds().into_iter().take(1_000).collect();
    compare(Product::Memcached, &seeds, |replies| replies);
}

/// A server that forgets to answer `TOUCHED` is caught, and the report has nothing but the commands it takes.
#[test]
fn a_wrong_reply_is_found_and_the_stream_minimised() {
    let forget = |replies: Vec<u8>| {
        let text = String::from_utf8_lossy(&replies).replace("TOUCHED\r\n", "");
        text.into_bytes()
    };
    let left = Server::memcached(ARGS);
    let right = Server::memcached(ARGS);
    let pair = Pair::new(&left, &right, forget);
    let stream = (BASE_SEED..BASE_SEED + STREAMS)
        .map(|seed| (seed, generate(seed)))
        .find(|(seed, stream)| pair.differs(*seed, stream).is_some());
    let (seed, stream) = stream.expect("some stream touches an item");
    let shortest = pair.minimise(seed, stream);
    assert!(shortest.len() <= 2, "one command stores, one touches: {:?}", Cut(&shortest));
}

/// The seeds to run: one if `FILBERT_SEED` is set.
fn seeds() -> Vec<u64> {
    match std::env::var("FILBERT_SEED") {
        Ok(seed) => vec![seed.parse().expect("FILBERT_SEED is a number")],
        Err(_) => (BASE_SEED..BASE_SEED + STREAMS).collect(),
    }
}

fn compare(product: Product, seeds: &[u64], fault: Fault) {
    println!("streams of seeds {} to {}", seeds[0], seeds[seeds.len() - 1]);
    let left = Server::memcached(ARGS);
    let right = Server::start(product, ARGS);
    let pair = Pair::new(&left, &right, fault);
    for &seed in seeds {
        let stream = generate(seed);
        // Once more: a server that had to wait for the other one may have come to another second meanwhile.
        if pair.differs(seed, &stream).is_some()
            && let Some(found) = pair.differs(seed, &stream)
        {
            let shortest = pair.minimise(seed, stream);
            panic!("{}\nin the whole stream: {}", pair.report(seed, &shortest, product), Cut(found));
        }
    }
}

/// Changes the replies of one server.
type Fault = fn(Vec<u8>) -> Vec<u8>;

/// The two servers, and what may be done to the replies of the second to see that it is noticed.
struct Pair<'a> {
    left: &'a Server,
    right: &'a Server,
    fault: Fault,
    /// Runs so far; each has its own key prefix.
    runs: AtomicU64,
}

impl<'a> Pair<'a> {
    fn new(left: &'a Server, right: &'a Server, fault: Fault) -> Pair<'a> {
        // The streams take token 1 for one that no item has: let the servers use up the first few.
        for server in [left, right] {
            server
                .connect()
                .ask("set warm 0 0 1\r\n1\r\nincr warm 1\r\nincr warm 1\r\n", "STORED\r\n2\r\n3\r\n");
        }
        Pair { left, right, fault, runs: AtomicU64::new(0) }
    }

    fn differs(&self, seed: u64, stream: &[Request]) -> Option<String> {
        let (left, right) = self.replies(seed, stream);
        difference(&left, &right)
    }

    fn replies(&self, seed: u64, stream: &[Request]) -> (Vec<u8>, Vec<u8>) {
        let prefix = format!("s{:06}", self.runs.fetch_add(1, Ordering::Relaxed));
        let left = converse(&mut self.left.connect(), seed, &prefix, stream);
        let right = converse(&mut self.right.connect(), seed, &prefix, stream);
        (left, (self.fault)(right))
    }

    /// Leaves out commands, ever fewer at a time, as long as the replies still differ.
    fn minimise(&self, seed: u64, mut stream: Vec<Request>) -> Vec<Request> {
        let mut width = stream.len().div_ceil(2);
        loop {
            let mut at = 0;
            while at < stream.len() {
                let mut shorter = stream.clone();
                shorter.drain(at..(at + width).min(stream.len()));
                if self.differs(seed, &shorter).is_some() {
                    stream = shorter;
                } else {
                    at += width;
                }
            }
            if width == 1 {
                return stream;
            }
            width = width.div_ceil(2);
        }
    }

    fn report(&self, seed: u64, stream: &[Request], product: Product) -> String {
        let (left, right) = self.replies(seed, stream);
        let mut text = format!("FILBERT_SEED={seed} replays this. The shortest stream that differs:\n");
        for request in stream {
            let readable = request.template.replace(PREFIX, "");
            let readable = readable.replace(CAS_NOW, "<cas now>").replace(CAS_BEFORE, "<cas before>");
            let _ = writeln!(text, "  > {}", Cut(readable.as_bytes().escape_ascii()));
        }
        let _ = writeln!(text, "memcached:\n{}\n{product}:\n{}", Cut(shown(&left)), Cut(shown(&right)));
        let _ = write!(text, "{}", difference(&left, &right).unwrap_or("it did not differ again".to_owned()));
        text
    }
}

/// Sends a stream and returns all replies; a connection that ends or falls silent shows in them.
fn converse(wire: &mut Wire, seed: u64, prefix: &str, stream: &[Request]) -> Vec<u8> {
    // The same segments for both servers.
    let mut rng = Rng::with_seed(seed);
    let mut tokens = HashMap::new();
    let mut replies = Vec::new();
    let mut outbox = Vec::new();
    for request in stream {
        let mut text = request.template.replace(PREFIX, prefix);
        if request.sync_before {
            replies.extend(exchange(wire, &mut rng, &std::mem::take(&mut outbox)));
        }
        if let Some(key) = &request.cas_of {
            let key = key.replace(PREFIX, prefix);
            let before = tokens.get(&key).cloned().unwrap_or("2".to_owned());
            let found = exchange(wire, &mut rng, format!("gets {key}\r\n").as_bytes());
            let now = cas_token(&found).unwrap_or("2".to_owned());
            replies.extend(found);
            text = text.replace(CAS_NOW, &now).replace(CAS_BEFORE, &before);
            tokens.insert(key, now);
        }
        outbox.extend(text.into_bytes());
    }
    replies.extend(exchange(wire, &mut rng, &outbox));
    replies
}

/// Sends these bytes and a sync, in random pieces, and returns the replies up to the sync.
fn exchange(wire: &mut Wire, rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let bytes = [bytes, SYNC].concat();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let whole = rng.u8(0..3) == 0;
        let len = if whole { rest.len() } else { rng.usize(1..=rest.len().min(200.max(rest.len() / 4))) };
        let (piece, after) = rest.split_at(len);
        if wire.try_send(piece).is_err() {
            break;
        }
        rest = after;
    }
    let mut replies = Vec::new();
    loop {
        match wire.line() {
            Ok(line) if line.is_empty() => {
                replies.extend(b"[closed]");
                return replies;
            }
            Ok(line) => {
                replies.extend(&line);
                if line == SYNCED {
                    return replies;
                }
            }
            Err(silent) => {
                replies.extend(format!("[{silent}]").into_bytes());
                return replies;
            }
        }
    }
}

/// The token in the reply to a `gets` of one key.
fn cas_token(reply: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(reply);
    let line = text.lines().next()?;
    line.strip_prefix("VALUE ")?.split(' ').nth(3).map(str::to_owned)
}

fn shown(replies: &[u8]) -> String {
    replies.split_inclusive(|&b| b == b'\n').fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "  < {}", line.escape_ascii());
        text
    })
}
