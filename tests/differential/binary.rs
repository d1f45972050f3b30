//! Random packets of the binary protocol to Filbert and to a real memcached: the answers have to be the same, but for the
//! numbers of cas tokens.

use fastrand::Rng;

use crate::support::packet::*;
use crate::support::server::{Product, Server};
use crate::support::shown::{Cut, assert_same};
use crate::support::wire::Wire;

const STREAMS: u64 = 2_000;
const BASE_SEED: u64 = 20_241_129;
const ARGS: &[&str] = &["-m", "64"];
const WITHOUT_CAS: &[&str] = &["-m", "64", "-C"];

/// Seconds from now, Unix times that are past, and those beyond 31 bits.
const EXPTIMES: &[u32] = &[0, 0, 1000, 2_592_000, 2_592_001, 1_000_000_000, 1 << 31, u32::MAX - 1, u32::MAX];

/// A number of a counter has 18 digits and keeps them: one that gets shorter may keep its old length, filled with
/// spaces.
const COUNTED: u64 = 100_000_000_000_000_000;

/// What closes the connection: lengths that no command has.
const BROKEN: &[(u8, u8, u16, u32)] = &[
    (GET, 0, 4, 3),
    (GETQ, 1, 4, 5),
    (SET, 7, 4, 20),
    (SETQ, 8, 0, 8),
    (INCREMENT, 8, 4, 12),
    (NOOP, 0, 1, 1),
    (FLUSHQ, 3, 0, 3),
    (TOUCH, 0, 4, 4),
    (GETKQ, 0, 251, 251),
    (DELETE, 0, 4, 5),
    (STAT, 4, 0, 4),
    (0x55, 9, 9, 9),
];

/// One request, and whether its token is to be the one that the item has.
#[derive(Clone, Debug)]
struct Step {
    packet: Packet,
    by_token: bool,
}

fn step(rng: &mut Rng, prefix: &str) -> Step {
    let data = format!("{prefix}d{}", rng.u8(0..3));
    let counter = format!("{prefix}c{}", rng.u8(0..2));
    let any = if rng.u8(0..4) == 0 { &counter } else { &data };
    let exptime = rng.choice(EXPTIMES).copied().expect("there are some").to_be_bytes();
    let value =
        vec![b'a' + rng.u8(0..26); if rng.u8(0..10) == 0 { rng.usize(0..20_000) } else { rng.usize(0..40) }];
    let packet = match rng.u8(0..20) {
        0..=4 => {
            let opcode = rng.choice([SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ]).expect("there are some");
            let extras = [&rng.u32(..).to_be_bytes()[..], &exptime].concat();
            Packet::store(opcode, &data, value).extras(&extras)
        }
        5..=6 => {
            let opcode = rng.choice([APPEND, APPENDQ, PREPEND, PREPENDQ]).expect("there are some");
            Packet::store(opcode, &data, value)
        }
        7..=10 => Packet::new(rng.choice([GET, GETQ, GETK, GETKQ]).expect("there are some"), any),
        11..=12 => {
            let opcode = rng.choice([TOUCH, GAT, GATQ, GATK, GATKQ]).expect("there are some");
            Packet::new(opcode, any).extras(&exptime)
        }
        13..=16 => {
            let opcode = rng.choice([INCREMENT, INCREMENTQ, DECREMENT, DECREMENTQ]).expect("there are some");
            let key = if rng.u8(0..6) == 0 { &data } else { &counter };
            Packet::sum(opcode, key, rng.u64(0..1000), 5 * COUNTED, u32::from_be_bytes(exptime))
        }
        17 => Packet::new(rng.choice([DELETE, DELETEQ]).expect("there are some"), any),
        18 => Packet::new(rng.choice([VERSION, SASL_LIST, 0x1f, 0x55, 0xff]).expect("there are some"), ""),
        _ => Packet::new(STAT, rng.choice(["nothing", "sizes"]).expect("there are some")),
    };
    let by_token = !packet.key.is_empty() && packet.opcode != STAT && rng.u8(0..8) == 0;
    // 1 is taken for a token that no item has.
    let cas = u64::from(!by_token && !packet.key.is_empty() && rng.u8(0..12) == 0);
    Step { packet: packet.opaque(rng.u32(..)).cas(cas), by_token }
}

/// Sends a stream and returns what was answered, in words; a connection that closes shows in them.
fn converse(wire: &mut Wire, seed: u64, prefix: &str) -> String {
    let mut rng = Rng::with_seed(seed);
    let steps: Vec<_> = (0..rng.usize(1..60)).map(|_| step(&mut rng, prefix)).collect();
    let mut told = String::new();
    let mut batch = Vec::new();
    for Step { mut packet, by_token } in steps {
        if by_token {
            tell(&mut told, ask_all(wire, &std::mem::take(&mut batch)));
            let key = String::from_utf8_lossy(&packet.key).into_owned();
            let found = ask(wire, &Packet::new(GET, &key));
            packet.cas = found.cas;
            tell(&mut told, vec![found]);
        }
        batch.push(packet);
        // A sum on a number that a reply on its way still shows makes memcached copy it, with another length.
        if rng.u8(0..6) == 0 {
            tell(&mut told, ask_all(wire, &std::mem::take(&mut batch)));
        }
    }
    tell(&mut told, ask_all(wire, &batch));
    if rng.bool() {
        let (opcode, extras, key, body) = *rng.choice(BROKEN).expect("there are some");
        let bytes = [&header(opcode, extras, key, body)[..], &[0; 300]].concat();
        wire.send(&bytes);
        tell(&mut told, std::iter::from_fn(|| answer(wire)).collect());
        told.push_str("[closed]\n");
    }
    told
}

fn tell(told: &mut String, answers: Vec<Answer>) {
    use std::fmt::Write;

    for Answer { opcode, status, opaque, cas, extras, key, value } in answers {
        // Of another version.
        let value = if opcode == VERSION { "version".into() } else { value.escape_ascii().to_string() };
        let has_token = cas != 0;
        let (extras, key) = (extras.escape_ascii(), key.escape_ascii());
        // Each stream has its own keys, of which the last two bytes are the same in all.
        let key = key.to_string();
        let key = &key[key.len().saturating_sub(2)..];
        let _ = writeln!(
            told,
            "{opcode:02x} {status:02x} {opaque:08x} token {has_token} {extras} {key} {}",
            Cut(value)
        );
    }
}

fn compare(product: Product, args: &[&str]) {
    let seeds = match std::env::var("FILBERT_SEED") {
        Ok(seed) => vec![seed.parse().expect("FILBERT_SEED is a number")],
        Err(_) => (BASE_SEED..BASE_SEED + STREAMS).collect(),
    };
    let (left, right) = (Server::memcached(args), Server::start(product, args));
    for server in [&left, &right] {
        // Tokens that no item of a stream has.
        ask(&mut server.connect(), &Packet::store(SET, "warm", "1"));
        ask(&mut server.connect(), &Packet::store(SET, "warm", "2"));
    }
    for seed in seeds {
        let prefix = format!("b{seed}");
        let expected = converse(&mut left.connect(), seed, &prefix);
        let got = converse(&mut right.connect(), seed, &prefix);
        if got != expected {
            println!("FILBERT_SEED={seed} replays this");
            assert_same(got, expected);
        }
    }
}

#[test]
fn filbert_answers_random_packets_as_memcached_does() {
    compare(Product::Filbert, ARGS);
}

#[test]
fn filbert_answers_random_packets_as_memcached_does_without_cas() {
    compare(Product::Filbert, WITHOUT_CAS);
}

/// Shows that streams are deterministic.
#[test]
fn memcached_answers_random_packets_as_itself() {
    compare(Product::Memcached, ARGS);
}
