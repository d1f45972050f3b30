//! Which server has a key: libmemcached's ketama.
//!
//! There are two of them, which agree in nothing but the circle. `MEMCACHED_BEHAVIOR_KETAMA` hashes keys and points
//! by the key hash, which is one-at-a-time unless a client chose another. `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED` hashes
//! both by MD5 and takes four points from each digest (libmemcached's hosts.cc, `update_continuum`, and behavior.cc).

use std::num::NonZeroU32;

use md5::{Digest, Md5};

use crate::origin::memcached::address::{Address, DEFAULT_PORT};

/// Points of a server without weights (libmemcached's constants.h, `MEMCACHED_POINTS_PER_SERVER`).
const POINTS: u32 = 100;

/// Points of a server of mean weight (the same, `MEMCACHED_POINTS_PER_SERVER_KETAMA`).
const POINTS_WEIGHTED: f32 = 160.0;

/// Bytes of a digest that make a point; it has four times as many.
const POINT_BYTES: usize = 4;

/// The circle with the points of all servers.
#[derive(Debug)]
pub(super) struct Ring {
    hash: fn(&[u8]) -> u32,
    /// Sorted; of equal points the first counts, that of the server named first.
    points: Vec<Point>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: u32,
    server: usize,
}

impl Ring {
    /// The circle of these servers: weighted if one of them has a weight. Time and room are in proportion to their
    /// number, with some hundred points for each.
    pub fn new(servers: &[Address]) -> Self {
        if servers.len() < 2 {
            return Self { hash: one_at_a_time, points: Vec::new() };
        }
        let is_weighted = servers.iter().any(|server| server.weight.is_some());
        let (hash, mut points): (fn(&[u8]) -> u32, _) =
            if is_weighted { (md5, weighted(servers)) } else { (one_at_a_time, even(servers)) };
        points.sort_unstable();
        Self { hash, points }
    }

    /// The number of the server that has a key: that of the next point of the circle. A single server has all,
    /// without hashing.
    pub fn owner(&self, key: &[u8]) -> usize {
        let Some(first) = self.points.first() else { return 0 };
        let hash = (self.hash)(key);
        let next = self.points.partition_point(|point| point.at < hash);
        self.points.get(next).unwrap_or(first).server
    }
}

/// As many points for each server, each of a name of its own.
fn even(servers: &[Address]) -> Vec<Point> {
    let points_of = |(server, address)| {
        (0..POINTS).map(move |number| Point { at: one_at_a_time(name(address, number).as_bytes()), server })
    };
    servers.iter().enumerate().flat_map(points_of).collect()
}

/// Points in proportion to the weights, which are 1 where none is written.
fn weighted(servers: &[Address]) -> Vec<Point> {
    let weight_of = |address: &Address| address.weight.map_or(1, NonZeroU32::get);
    let total: u64 = servers.iter().map(|address| u64::from(weight_of(address))).sum();
    let mut points = Vec::new();
    for (server, address) in servers.iter().enumerate() {
        // In this order and precision, for the result decides on a point more or less.
        let share = weight_of(address) as f32 / total as f32;
        let digests = (share * POINTS_WEIGHTED / 4.0 * servers.len() as f32 + 0.000_000_000_1).floor() as u32;
        for number in 0..digests {
            let digest = Md5::digest(name(address, number));
            let (words, _) = digest.as_slice().as_chunks::<POINT_BYTES>();
            points.extend(words.iter().map(|&word| Point { at: u32::from_le_bytes(word), server }));
        }
    }
    points
}

/// What is hashed for a point: the host as it is written, with its port unless that is the usual one.
fn name(address: &Address, number: u32) -> String {
    let Address { host, port, .. } = address;
    if *port == DEFAULT_PORT { format!("{host}-{number}") } else { format!("{host}:{port}-{number}") }
}

/// Bob Jenkins' hash as libmemcached has it (libhashkit's one_at_a_time.cc), which takes a byte above 127 for a
/// negative number, as a char is on x86.
fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for &byte in bytes {
        hash = hash.wrapping_add(byte as i8 as u32);
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The first bytes of a digest, the lowest first (libhashkit's md5.cc, `hashkit_md5`).
fn md5(bytes: &[u8]) -> u32 {
    let digest = Md5::digest(bytes);
    digest.as_slice().first_chunk().map_or(0, |&word| u32::from_le_bytes(word))
}

#[cfg(test)]
mod tests;
