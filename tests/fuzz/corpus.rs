//! What is sent: requests of every kind, and what becomes of them when they are broken.

use crate::support::packet::{REQUEST, STAT, header};

/// A small generator of random numbers (SplitMix64), so that a seed means the same for ever.
pub struct Random(u64);

impl Random {
    /// A generator that draws the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Lines with places to fill in: `K` a key, `B` a key in base64, `N` a number, `T` a time,
/// `F` flags of a meta command, `V` the length of a value that follows.
const LINES: &[&str] = &[
    "get K",
    "get K K K K",
    "gets K K",
    "gat T K",
    "gats T K K",
    "set K N T V",
    "set K N T V",
    "set K N T V noreply",
    "add K N T V",
    "replace K N T V",
    "append K N T V",
    "prepend K N T V noreply",
    "cas K N T V N",
    "cas K N T V N noreply",
    "delete K",
    "delete K 0 noreply",
    "incr K N",
    "decr K N noreply",
    "touch K T",
    "mg K F",
    "mg K s v f t c k h l O123 q",
    "mg B b k v F",
    "mg K N30 R10 v t",
    "ms K V F",
    "ms K V c b F",
    "ms B V b k F",
    "ms K V I CN T30",
    "ms K V MA N0",
    "md K F",
    "md K q I T30",
    "md K x",
    "ma K F",
    "ma K N0 J13 v t c",
    "ma B b MD DN v k",
    "me K",
    "me B b",
    "mn",
    "version",
    "verbosity 0",
    "flush_all",
    "flush_all T noreply",
    "cache_memlimit 8",
    "stats",
    "stats settings",
    "stats items",
    "stats slabs",
    "stats sizes",
    "stats conns",
    "stats reset",
    "stats detail on",
    "stats detail dump",
    "stats detail off",
    "stats cachedump 1 N",
    "lru_crawler metadump all",
    "lru_crawler mgdump all",
    "lru_crawler crawl all",
    "lru_crawler disable",
    "lru mode flat",
    "lru tune 10 25 0.1 2.0",
    "slabs reassign 1 2",
    "slabs automove 1",
    "shutdown",
    "refresh_certs",
    "extstore x",
    "GET / HTTP/1.1",
];

/// Rare, because nothing is answered behind them.
const LAST_LINES: &[&str] =
    &["quit", "watch", "watch fetchers mutations evictions deletions rawcmds connevents"];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "10",
    "-1",
    "2592000",
    "2592001",
    "1700000005",
    "2147483647",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "x",
];

/// Letters of the meta flags, and some that are none.
const FLAGS: &[u8] = b"bcCdDEfFhIJkKlLMNOPqrRsStTuvxX\x7f\xff";

const KEYS: &[&str] = &["a", "b", "c:d", "foo", "some:longer:key:than:the:rest"];

/// Keys in base64, one of them no base64.
const ENCODED: &[&str] = &["Zm9v", "YSBi", "YQ==", "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh", "YQ="];

/// Mutations that change a whole input.
const MUTATIONS: usize = 9;

/// Appends a line with its places filled in; a value follows when it wants one.
fn fill(out: &mut Vec<u8>, line: &str, random: &mut Random) {
    let mut value_len = None;
    for (i, word) in line.split(' ').enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        match word {
            "K" if random.one_in(30) => out.extend(vec![b'k'; 245 + random.below(10)]),
            "K" => out.extend_from_slice(random.pick(KEYS).as_bytes()),
            "B" => out.extend_from_slice(random.pick(ENCODED).as_bytes()),
            "N" | "T" if random.one_in(2) => out.extend_from_slice(random.below(30).to_string().as_bytes()),
            "N" | "T" => out.extend_from_slice(random.pick(NUMBERS).as_bytes()),
            "CN" | "DN" => {
                out.extend_from_slice(&word.as_bytes()[..1]);
                out.extend_from_slice(random.below(40).to_string().as_bytes());
            }
            "F" => {
                for _ in 0..random.below(5) {
                    out.extend_from_slice(&[b' ', random.pick(FLAGS)]);
                    if random.one_in(3) {
                        out.extend_from_slice(random.pick(NUMBERS).as_bytes());
                    }
                }
            }
            "V" => {
                let len = if random.one_in(8) { random.below(70_000) } else { random.below(40) };
                value_len = Some(len);
                out.extend_from_slice(len.to_string().as_bytes());
            }
            word => out.extend_from_slice(word.as_bytes()),
        }
    }
    out.extend_from_slice(if random.one_in(8) { b"\n" } else { b"\r\n" });
    if let Some(len) = value_len {
        let byte = random.pick(b"1 x\r\n");
        out.extend(std::iter::repeat_n(byte, len));
        out.extend_from_slice(b"\r\n");
    }
}

fn mutate(input: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(input.len().max(1)).min(input.len());
    let len = random.below(20).min(input.len() - at);
    match random.below(MUTATIONS) {
        0 if at < input.len() => input[at] = random.below(256) as u8,
        1 if at < input.len() => input[at] ^= 1 << random.below(8),
        2 => drop(input.drain(at..at + len)),
        3 => {
            let copy = input[at..at + len].to_vec();
            input.splice(at..at, copy);
        }
        4 => drop(input.splice(at..at, random.pick(NUMBERS).bytes())),
        5 => input.insert(at, random.pick(b"\r\n \0\t")),
        6 => {
            // A line's end goes.
            if let Some(end) = input[at..].iter().position(|&byte| byte == b'\n') {
                input.remove(at + end);
            }
        }
        7 if random.one_in(20) => {
            drop(input.splice(at..at, vec![random.pick(b" k\n"); random.below(100_000)]))
        }
        _ => input.truncate(input.len() - len.min(3)),
    }
}

/// The opcodes of the binary protocol, some that are none, and what lengths of extras they take.
const OPCODES: u8 = 0x28;
const EXTRAS: &[usize] = &[0, 4, 8, 20];

/// Extras that suit a command of the binary protocol.
fn extras_len(opcode: u8) -> usize {
    match opcode {
        0x01..=0x03 | 0x11..=0x13 => 8,
        0x05 | 0x06 | 0x15 | 0x16 => 20,
        0x1b..=0x1e | 0x23 | 0x24 => 4,
        _ => 0,
    }
}

/// Appends a packet of the binary protocol, whose lengths now and then lie.
fn packet(out: &mut Vec<u8>, random: &mut Random) {
    let opcode = random.below(OPCODES.into()) as u8;
    let extras = if random.one_in(12) { random.pick(EXTRAS) } else { extras_len(opcode) };
    let has_key = !matches!(opcode, 0x07 | 0x08 | 0x0a | 0x0b | 0x17 | 0x18 | 0x1b | 0x20);
    let key = match random.below(40) {
        0 => vec![b'k'; 245 + random.below(10)],
        1 => b"a b\r\nc".to_vec(),
        2 => b"PLAIN".to_vec(),
        3 => b"settings".to_vec(),
        _ if has_key => random.pick(KEYS).into(),
        _ => Vec::new(),
    };
    let takes_value = matches!(opcode, 0x01..=0x03 | 0x0e | 0x0f | 0x11..=0x13 | 0x19..=0x1a | 0x21 | 0x22);
    let len = if random.one_in(8) { random.below(70_000) } else { random.below(40) };
    let len = if takes_value || random.one_in(30) { len } else { 0 };
    let mut body = extras + key.len() + len;
    if random.one_in(40) {
        body = random.pick(&[0, 1, body + 1, 1 << 20, u32::MAX as usize]);
    }
    let mut header = header(opcode, extras as u8, key.len() as u16, body as u32);
    header[12..16].copy_from_slice(&(random.below(1 << 30) as u32).to_be_bytes());
    header[23] = if random.one_in(6) { random.below(40) as u8 } else { 0 };
    out.extend_from_slice(&header);
    let extra = random.pick(&[0, 0, 0, 1, 9, 0xff]);
    out.extend(std::iter::repeat_n(extra, extras));
    out.extend_from_slice(&key);
    out.extend(std::iter::repeat_n(random.pick(b"1 x\r\n"), len));
}

/// What a client of either protocol sends, whole or broken.
pub fn input(random: &mut Random) -> Vec<u8> {
    if random.one_in(3) {
        return packets(random);
    }
    lines(random)
}

fn packets(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..if random.one_in(20) { 400 } else { 1 + random.below(60) } {
        packet(&mut input, random);
    }
    for _ in 0..random.pick(&[0, 0, 0, 1, 4]) {
        mutate(&mut input, random);
    }
    input
}

fn lines(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    let lines = if random.one_in(20) { 400 } else { 1 + random.below(40) };
    for _ in 0..lines {
        fill(&mut input, random.pick(LINES), random);
    }
    if random.one_in(20) {
        // A multiget beyond any buffer, of keys that are not there: the answers would be too many.
        input.extend_from_slice(b"get");
        input.extend(b" p q".repeat(random.below(40_000)));
        input.extend_from_slice(b"\r\n");
    }
    if random.one_in(10) {
        fill(&mut input, random.pick(LAST_LINES), random);
    }
    for _ in 0..random.pick(&[0, 0, 1, 4, 30]) {
        mutate(&mut input, random);
    }
    input
}

/// Whether the answers are the same every time: no figures of the moment, no order of a hash,
/// and no line so long that it matters whether its end has come.
pub fn is_repeatable(input: &[u8]) -> bool {
    if input.first() == Some(&REQUEST) {
        // Statistics are figures of the moment.
        return !input.windows(2).any(|start| start == [REQUEST, STAT]);
    }
    let momentary = [&b"stats"[..], b"watch", b"lru_crawler", b"cache_memlimit"];
    let long = input.split(|&byte| byte == b'\n').any(|line| line.len() > 2000);
    !long && !momentary.iter().any(|name| input.windows(name.len()).any(|part| part == *name))
}
