//! The bytes of a load: keys, values that follow from their keys, requests, and the replies that are due.

use std::sync::Arc;

use crate::support::load::{Keys, Order};

/// Values are slices of one random text of this many bytes beyond a value's length. A prime, so that keys a power of
/// ten apart do not share a value; small, so that it stays in the generator's first-level cache.
const PATTERN_OFFSETS: usize = 4093;

/// Digits of the key that a value begins with: no two keys below 10^8 have the same value.
const KEY_DIGITS_IN_VALUE: usize = 8;

/// The reply to a set that found no memory (memcached.c, "out of memory storing object"): with a full memory, memcached
/// gives it when sets come faster than its background thread moves items to where they can be evicted.
const REFUSED: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";

/// How many sets come before how many gets, over and over, as in memtier's `--ratio`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub sets: u32,
    pub gets: u32,
}

impl Mix {
    pub const GET: Self = Self { sets: 0, gets: 1 };
    pub const SET: Self = Self { sets: 1, gets: 0 };
    pub const SET_1_GET_10: Self = Self { sets: 1, gets: 10 };
}

/// The commands a load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `get KEY` and `set KEY 0 0 LENGTH`.
    Classic,
    /// `mg KEY v` and `ms KEY LENGTH`.
    Meta,
    /// Get and set of the binary protocol.
    Binary,
}

/// Where the token stands in a packet's header: the one thing in a reply that is not known before.
const TOKEN: std::ops::Range<usize> = 16..24;

/// The header of a packet of the binary protocol.
fn packet(magic: u8, opcode: u8, status: u16, extras: usize, key_bytes: usize, body: usize) -> Vec<u8> {
    let mut header = vec![0; TOKEN.end];
    (header[0], header[1], header[4]) = (magic, opcode, extras as u8);
    header[2..4].copy_from_slice(&(key_bytes as u16).to_be_bytes());
    header[6..8].copy_from_slice(&status.to_be_bytes());
    header[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    header
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Place among the keys.
    key: u32,
    pub is_set: bool,
}

/// The wire's words around keys and values (doc/protocol.txt).
#[derive(Debug)]
struct Wording {
    get: Vec<u8>,
    get_tail: &'static [u8],
    set: Vec<u8>,
    set_tail: Vec<u8>,
    /// What follows a value that is sent.
    set_end: &'static [u8],
    stored: Vec<u8>,
    /// A hit is this, the key if the dialect repeats it, `hit_tail`, the value, `hit_end`.
    hit: Vec<u8>,
    hit_repeats_key: bool,
    hit_tail: Vec<u8>,
    hit_end: &'static [u8],
    miss: Vec<u8>,
    refused: Vec<u8>,
}

impl Dialect {
    fn wording(self, key_bytes: usize, value_bytes: usize) -> Wording {
        match self {
            Self::Classic => Wording {
                get: b"get ".to_vec(),
                get_tail: b"\r\n",
                set: b"set ".to_vec(),
                set_tail: format!(" 0 0 {value_bytes}\r\n").into_bytes(),
                set_end: b"\r\n",
                stored: b"STORED\r\n".to_vec(),
                hit: b"VALUE ".to_vec(),
                hit_repeats_key: true,
                hit_tail: format!(" 0 {value_bytes}\r\n").into_bytes(),
                hit_end: b"\r\nEND\r\n",
                miss: b"END\r\n".to_vec(),
                refused: REFUSED.to_vec(),
            },
            Self::Meta => Wording {
                get: b"mg ".to_vec(),
                get_tail: b" v\r\n",
                set: b"ms ".to_vec(),
                set_tail: format!(" {value_bytes}\r\n").into_bytes(),
                set_end: b"\r\n",
                stored: b"HD\r\n".to_vec(),
                hit: b"VA ".to_vec(),
                hit_repeats_key: false,
                hit_tail: format!("{value_bytes}\r\n").into_bytes(),
                hit_end: b"\r\n",
                miss: b"EN\r\n".to_vec(),
                refused: REFUSED.to_vec(),
            },
            Self::Binary => {
                const GET: u8 = 0x00;
                const SET: u8 = 0x01;
                let answer = |opcode, status, extras, body| packet(0x81, opcode, status, extras, 0, body);
                let error = |opcode, status, text: &str| {
                    [&answer(opcode, status, 0, text.len())[..], text.as_bytes()].concat()
                };
                Wording {
                    get: packet(0x80, GET, 0, 0, key_bytes, key_bytes),
                    get_tail: b"",
                    // Flags and expiry time are 0.
                    set: [&packet(0x80, SET, 0, 8, key_bytes, 8 + key_bytes + value_bytes)[..], &[0; 8]]
                        .concat(),
                    set_tail: Vec::new(),
                    set_end: b"",
                    stored: answer(SET, 0, 0, 0),
                    hit: [&answer(GET, 0, 4, 4 + value_bytes)[..], &[0; 4]].concat(),
                    hit_repeats_key: false,
                    hit_tail: Vec::new(),
                    hit_end: b"",
                    miss: error(GET, 0x01, "Not found"),
                    refused: error(SET, 0x82, "Out of memory allocating item"),
                }
            }
        }
    }
}

/// Keys, values and their forms on the wire.
#[derive(Debug)]
pub struct Workload {
    keys: Arc<Keys>,
    value_bytes: usize,
    pattern: Vec<u8>,
    dialect: Dialect,
    wording: Wording,
}

impl Workload {
    pub fn new(dialect: Dialect, keys: Arc<Keys>, value_bytes: usize) -> Self {
        let mut random = Random::new();
        let wording = dialect.wording(keys.key_bytes(), value_bytes);
        Self {
            keys,
            value_bytes,
            // Any byte may occur, line ends too: a server must go by the length.
            pattern: (0..PATTERN_OFFSETS + value_bytes).map(|_| random.next() as u8).collect(),
            dialect,
            wording,
        }
    }

    /// No reply is longer than this, unless it is wrong.
    pub fn longest_reply_bytes(&self) -> usize {
        let Wording { stored, hit, hit_tail, hit_end, refused, .. } = &self.wording;
        let hit_bytes = hit.len() + self.keys.key_bytes() + hit_tail.len() + self.value_bytes + hit_end.len();
        hit_bytes.max(stored.len()).max(refused.len())
    }

    pub fn append_request(&self, request: Request, output: &mut Vec<u8>) {
        if request.is_set {
            output.extend_from_slice(&self.wording.set);
            output.extend_from_slice(self.key(request));
            output.extend_from_slice(&self.wording.set_tail);
            self.append_value(request, output);
            output.extend_from_slice(self.wording.set_end);
        } else {
            output.extend_from_slice(&self.wording.get);
            output.extend_from_slice(self.key(request));
            output.extend_from_slice(self.wording.get_tail);
        }
    }

    /// The reply that is due: the value, or that it was stored.
    pub fn append_reply(&self, request: Request, output: &mut Vec<u8>) {
        if request.is_set {
            output.extend_from_slice(&self.wording.stored);
            return;
        }
        output.extend_from_slice(&self.wording.hit);
        if self.wording.hit_repeats_key {
            output.extend_from_slice(self.key(request));
        }
        output.extend_from_slice(&self.wording.hit_tail);
        self.append_value(request, output);
        output.extend_from_slice(self.wording.hit_end);
    }

    /// The reply that says the server does not hold the item: a get's miss, or a set refused for want of memory.
    pub fn unheld(&self, request: Request) -> &[u8] {
        if request.is_set { &self.wording.refused } else { &self.wording.miss }
    }

    /// Blanks out what of the reply at the beginning of `input` is not known before.
    pub fn blank(&self, input: &mut [u8]) {
        if self.dialect == Dialect::Binary {
            input.iter_mut().take(TOKEN.end).skip(TOKEN.start).for_each(|byte| *byte = 0);
        }
    }

    /// The request as an error message names it.
    pub fn name(&self, request: Request) -> String {
        let command = if request.is_set { "set" } else { "get" };
        format!("{command} {}", self.key(request).escape_ascii())
    }

    fn append_value(&self, request: Request, output: &mut Vec<u8>) {
        let key = self.key(request);
        let from_key = KEY_DIGITS_IN_VALUE.min(key.len()).min(self.value_bytes);
        output.extend_from_slice(&key[key.len() - from_key..]);
        let start = request.key as usize % PATTERN_OFFSETS;
        output.extend_from_slice(&self.pattern[start..start + self.value_bytes - from_key]);
    }

    fn key(&self, request: Request) -> &[u8] {
        self.keys.key(request.key)
    }
}

/// Which request comes next, over all connections.
#[derive(Debug)]
pub struct Schedule {
    mix: Mix,
    /// Place within the mix's cycle: sets first.
    place: u32,
    order: Order,
    keyspace: u32,
    next_key: u32,
    random: Random,
}

impl Schedule {
    pub fn new(mix: Mix, order: Order, keyspace: u32) -> Self {
        Self { mix, place: 0, order, keyspace, next_key: 0, random: Random::new() }
    }

    pub fn next_request(&mut self) -> Request {
        let is_set = self.place < self.mix.sets;
        self.place += 1;
        if self.place >= self.mix.sets + self.mix.gets {
            self.place = 0;
        }
        let key = match self.order {
            Order::Random => self.random.below(self.keyspace),
            Order::Sequential => {
                let key = self.next_key;
                self.next_key = if key + 1 == self.keyspace { 0 } else { key + 1 };
                key
            }
        };
        Request { key, is_set }
    }
}

/// The step of SplitMix64.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The mixer of SplitMix64: a permutation of all numbers.
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// SplitMix64 from a fixed seed: every run asks for the same keys.
#[derive(Debug)]
struct Random {
    state: u64,
}

impl Random {
    fn new() -> Self {
        Self { state: 0x5eed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mixed(self.state)
    }

    fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }
}
