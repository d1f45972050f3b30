//! Packets of the binary protocol.

use crate::support::wire::Wire;

pub const GET: u8 = 0x00;
pub const SET: u8 = 0x01;
pub const ADD: u8 = 0x02;
pub const REPLACE: u8 = 0x03;
pub const DELETE: u8 = 0x04;
pub const INCREMENT: u8 = 0x05;
pub const DECREMENT: u8 = 0x06;
pub const QUIT: u8 = 0x07;
pub const FLUSH: u8 = 0x08;
pub const GETQ: u8 = 0x09;
pub const NOOP: u8 = 0x0a;
pub const VERSION: u8 = 0x0b;
pub const GETK: u8 = 0x0c;
pub const GETKQ: u8 = 0x0d;
pub const APPEND: u8 = 0x0e;
pub const PREPEND: u8 = 0x0f;
pub const STAT: u8 = 0x10;
pub const SETQ: u8 = 0x11;
pub const ADDQ: u8 = 0x12;
pub const REPLACEQ: u8 = 0x13;
pub const DELETEQ: u8 = 0x14;
pub const INCREMENTQ: u8 = 0x15;
pub const DECREMENTQ: u8 = 0x16;
pub const FLUSHQ: u8 = 0x18;
pub const APPENDQ: u8 = 0x19;
pub const PREPENDQ: u8 = 0x1a;
pub const VERBOSITY: u8 = 0x1b;
pub const TOUCH: u8 = 0x1c;
pub const GAT: u8 = 0x1d;
pub const GATQ: u8 = 0x1e;
pub const SASL_LIST: u8 = 0x20;
pub const SASL_AUTH: u8 = 0x21;
pub const SASL_STEP: u8 = 0x22;
pub const GATK: u8 = 0x23;
pub const GATKQ: u8 = 0x24;

/// The statuses that are asked about by name; protocol_binary.h has them all.
pub const NOT_FOUND: u16 = 0x01;
pub const EXISTS: u16 = 0x02;
pub const TOO_LARGE: u16 = 0x03;
pub const INVALID: u16 = 0x04;
pub const AUTH_ERROR: u16 = 0x20;
pub const AUTH_CONTINUE: u16 = 0x21;
pub const UNKNOWN: u16 = 0x81;

/// The first byte of a request.
pub const REQUEST: u8 = 0x80;
/// The first byte of an answer.
pub const ANSWER: u8 = 0x81;

pub const HEADER_LEN: usize = 24;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    pub opcode: u8,
    pub opaque: u32,
    pub cas: u64,
    pub extras: Vec<u8>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// The header of a request, with whatever lengths.
pub fn header(opcode: u8, extras: u8, key: u16, body: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    (header[0], header[1], header[4]) = (REQUEST, opcode, extras);
    header[2..4].copy_from_slice(&key.to_be_bytes());
    header[8..12].copy_from_slice(&body.to_be_bytes());
    header
}

impl Packet {
    pub fn new(opcode: u8, key: &str) -> Packet {
        Packet { opcode, key: key.into(), ..Packet::default() }
    }

    /// One that stores a value; appends have no extras.
    pub fn store(opcode: u8, key: &str, value: impl Into<Vec<u8>>) -> Packet {
        let packet = Packet { value: value.into(), ..Packet::new(opcode, key) };
        match opcode {
            APPEND | PREPEND | APPENDQ | PREPENDQ => packet,
            _ => packet.extras(&[0; 8]),
        }
    }

    /// An `incr` or `decr`.
    pub fn sum(opcode: u8, key: &str, delta: u64, initial: u64, exptime: u32) -> Packet {
        let extras = [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &exptime.to_be_bytes()].concat();
        Packet::new(opcode, key).extras(&extras)
    }

    pub fn extras(self, extras: &[u8]) -> Packet {
        Packet { extras: extras.into(), ..self }
    }

    pub fn cas(self, cas: u64) -> Packet {
        Packet { cas, ..self }
    }

    pub fn opaque(self, opaque: u32) -> Packet {
        Packet { opaque, ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let body = self.extras.len() + self.key.len() + self.value.len();
        let mut bytes = header(self.opcode, self.extras.len() as u8, self.key.len() as u16, body as u32);
        bytes[12..16].copy_from_slice(&self.opaque.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.cas.to_be_bytes());
        [&bytes[..], &self.extras, &self.key, &self.value].concat()
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub opcode: u8,
    pub status: u16,
    pub opaque: u32,
    pub cas: u64,
    pub extras: Vec<u8>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Answer {
    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }

    /// The flags of what was found.
    pub fn flags(&self) -> u32 {
        u32::from_be_bytes(self.extras[..].try_into().expect("4 bytes of flags"))
    }

    /// The number that an `incr` or `decr` came to.
    pub fn number(&self) -> u64 {
        u64::from_be_bytes(self.value[..].try_into().expect("8 bytes of a number"))
    }
}

/// The next answer; `None` when the server has closed.
///
/// # Panics
///
/// When what comes is no answer.
#[track_caller]
pub fn answer(wire: &mut Wire) -> Option<Answer> {
    let header = wire.bytes(HEADER_LEN).expect("the header comes in time");
    if header.is_empty() {
        return None;
    }
    assert_eq!(header.len(), HEADER_LEN, "cut off: {}", header.escape_ascii());
    assert_eq!(header[0], ANSWER, "no answer: {}", header.escape_ascii());
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let short = |at: usize| u16::from_be_bytes(header[at..at + 2].try_into().expect("2 bytes"));
    let mut body = wire.bytes(number(8) as usize).expect("the body comes in time");
    assert_eq!(body.len(), number(8) as usize, "cut off");
    let mut key = body.split_off(header[4].into());
    let value = key.split_off(short(2).into());
    Some(Answer {
        opcode: header[1],
        status: short(6),
        opaque: number(12),
        cas: u64::from_be_bytes(header[16..].try_into().expect("8 bytes")),
        extras: body,
        key,
        value,
    })
}

/// Sends a request, and returns the one answer to it.
#[track_caller]
pub fn ask(wire: &mut Wire, packet: &Packet) -> Answer {
    wire.send(&packet.bytes());
    let answer = answer(wire).expect("it is answered");
    assert_eq!((answer.opcode, answer.opaque), (packet.opcode, packet.opaque));
    answer
}

/// Sends requests and a `noop` in one write, and returns the answers before its own.
#[track_caller]
pub fn ask_all(wire: &mut Wire, packets: &[Packet]) -> Vec<Answer> {
    let mut bytes: Vec<u8> = packets.iter().flat_map(Packet::bytes).collect();
    bytes.extend(Packet::new(NOOP, "").bytes());
    wire.send(&bytes);
    std::iter::from_fn(|| answer(wire)).take_while(|answer| answer.opcode != NOOP).collect()
}

/// A group of statistics.
#[track_caller]
pub fn stats(wire: &mut Wire, group: &str) -> Vec<(String, String)> {
    wire.send(&Packet::new(STAT, group).bytes());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut stats = Vec::new();
    loop {
        let stat = answer(wire).expect("it ends with an empty one");
        assert_eq!((stat.opcode, stat.status), (STAT, 0), "{}", stat.text());
        if stat.key.is_empty() {
            return stats;
        }
        stats.push((text(&stat.key), text(&stat.value)));
    }
}

/// One statistic.
#[track_caller]
pub fn stat(wire: &mut Wire, group: &str, name: &str) -> String {
    let stats = stats(wire, group);
    stats.into_iter().find(|(key, _)| key == name).unwrap_or_else(|| panic!("no {name}")).1
}

/// A login by PLAIN.
pub fn login(user: &str, password: &str) -> Packet {
    Packet { value: format!("\0{user}\0{password}").into(), ..Packet::new(SASL_AUTH, "PLAIN") }
}
