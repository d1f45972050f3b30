//! The bytes of a snapshot: a header with a checksum of its own, the items, and a checksum of these.
//!
//! Numbers are little-endian. An item is its head ([`HEAD_BYTES`]), its key and its value.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::item::{ItemView, KEY_MAX};
use crate::store::{Generation, MovingItem};

/// How each snapshot begins.
const MAGIC: [u8; 8] = *b"filbert\n";

/// Of this format.
const VERSION: u32 = 1;

/// Magic, version, when it was written (Unix time), how many items there are, how many bytes they take, the highest CAS
/// token, and the checksum of all this.
pub(super) const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 8 + 8;

/// Length of the key, marks, client flags, CAS token, seconds to live ([`FOR_EVER`]), seconds since it was used, length of
/// the value.
const HEAD_BYTES: usize = 1 + 1 + 4 + 8 + 4 + 4 + 4;

/// Seconds to live of an item that does not expire.
const FOR_EVER: u32 = u32::MAX;

const STALE: u8 = 1;
const WIN_SENT: u8 = 1 << 1;
const FETCHED: u8 = 1 << 2;
const KEY_BINARY: u8 = 1 << 3;
const LOADED: u8 = 1 << 4;

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Unix time.
    pub(super) written: u64,
    pub(super) items: u64,
    /// Bytes behind the header, but for their checksum.
    pub(super) bytes: u64,
    /// Tokens up to here were given.
    pub(super) cas: u64,
}

/// Why bytes are no snapshot of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it is no snapshot")]
    Magic,
    #[error("its format is version {0}, and not {VERSION}")]
    Version(u32),
    #[error("it is damaged")]
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let numbers = [self.written, self.items, self.bytes, self.cas].map(u64::to_le_bytes).concat();
        let front = [&MAGIC[..], &VERSION.to_le_bytes(), &numbers].concat();
        bytes[..front.len()].copy_from_slice(&front);
        bytes[front.len()..].copy_from_slice(&xxh3_64(&front).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        if bytes[..8] != MAGIC {
            return Err(Malformed::Magic);
        }
        let version = u32::from_le_bytes(bytes[8..12].try_into().unwrap_or_default());
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        if number(HEADER_BYTES - 8) != xxh3_64(&bytes[..HEADER_BYTES - 8]) {
            return Err(Malformed::Damaged);
        }
        Ok(Self { written: number(12), items: number(20), bytes: number(28), cas: number(36) })
    }
}

/// Writes an item; how many bytes it took.
pub(super) fn write_item(out: &mut impl Write, moving: &MovingItem<'_>) -> io::Result<u64> {
    let item = &moving.item;
    let marks = [
        (moving.stale, STALE),
        (moving.win_sent, WIN_SENT),
        (item.fetched, FETCHED),
        (item.key_binary, KEY_BINARY),
        (item.loaded, LOADED),
    ];
    let marks = marks.iter().filter(|(is, _)| *is).fold(0, |marks, (_, mark)| marks | mark);
    let ttl = item.ttl_seconds.map_or(FOR_EVER, |ttl| ttl.min(FOR_EVER - 1));
    let lengths = |len: usize| u32::try_from(len).map_err(io::Error::other);
    let mut head = [0; HEAD_BYTES];
    (head[0], head[1]) = (u8::try_from(item.key.len()).map_err(io::Error::other)?, marks);
    head[2..6].copy_from_slice(&item.flags.to_le_bytes());
    head[6..14].copy_from_slice(&item.cas.to_le_bytes());
    head[14..18].copy_from_slice(&ttl.to_le_bytes());
    head[18..22].copy_from_slice(&item.idle_seconds.to_le_bytes());
    head[22..26].copy_from_slice(&lengths(item.value.len())?.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(item.key)?;
    out.write_all(item.value)?;
    Ok((HEAD_BYTES + item.key.len() + item.value.len()) as u64)
}

/// Reads an item into `body`, as it is `age` seconds after it was written; `None` when it has expired by then.
pub(super) fn read_item<'a>(
    input: &mut impl Read,
    body: &'a mut Vec<u8>,
    age: u64,
) -> io::Result<Option<MovingItem<'a>>> {
    let mut head = [0; HEAD_BYTES];
    input.read_exact(&mut head)?;
    let short = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
    let (key_len, value_len) = (usize::from(head[0]), short(22) as usize);
    if !(1..=KEY_MAX).contains(&key_len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    body.clear();
    let len = (key_len + value_len) as u64;
    if input.by_ref().take(len).read_to_end(body)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let age = u32::try_from(age).unwrap_or(u32::MAX);
    let ttl = short(14);
    if ttl != FOR_EVER && ttl <= age {
        return Ok(None);
    }
    let (key, value) = body.split_at(key_len);
    let has = |mark| head[1] & mark != 0;
    let item = ItemView {
        key,
        value,
        shared: None,
        value_len,
        flags: short(2),
        cas: u64::from_le_bytes(head[6..14].try_into().unwrap_or_default()),
        ttl_seconds: (ttl != FOR_EVER).then(|| ttl - age),
        idle_seconds: short(18).saturating_add(age),
        fetched: has(FETCHED),
        key_binary: has(KEY_BINARY),
        loaded: has(LOADED),
    };
    // Of the store's first generation: a flush that comes meanwhile makes it dead.
    let generation = Generation::default();
    Ok(Some(MovingItem { item, stale: has(STALE), win_sent: has(WIN_SENT), uses: 0, generation }))
}

/// Passes bytes on and sums them up.
pub(super) struct Summed<T> {
    inner: T,
    sum: Xxh3,
}

impl<T> Summed<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, sum: Xxh3::new() }
    }

    /// Where the bytes go or come from, and their checksum.
    pub(super) fn finish(self) -> (T, [u8; 8]) {
        (self.inner, self.sum.digest().to_le_bytes())
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}
