//! Reading a snapshot back, while clients are served.

use std::fmt;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock::Seconds;
use crate::snapshot::file::{Found, Why};
use crate::snapshot::format::{HEADER_BYTES, Malformed, Summed, read_item};
use crate::stats::Counters;
use crate::store::{Arrival, Caller, Store};

/// What is read at once.
const READ_BYTES: usize = 1 << 20;

/// What became of the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Loaded {
    pub(super) stored: u64,
    /// Expired, or flushed meanwhile.
    pub(super) dead: u64,
    /// Written by clients meanwhile.
    pub(super) overwritten: u64,
    /// There was no room, or they were larger than items may be.
    pub(super) refused: u64,
    took: Duration,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, dead, overwritten, refused, took } = self;
        write!(f, "{stored} items in {:.1} s", took.as_secs_f64())?;
        for (count, why) in
            [(dead, "dead by now"), (overwritten, "written meanwhile"), (refused, "without room here")]
        {
            if *count > 0 {
                write!(f, ", {count} {why}")?;
            }
        }
        Ok(())
    }
}

/// Reads all items into the store, but those of a file that is damaged anywhere: then none. The snapshot was found at
/// `since`.
pub(super) fn load(found: &Found, store: &Store, since: Seconds, stop: &AtomicBool) -> Result<Loaded, Why> {
    let began = Instant::now();
    verify(found, stop)?;
    store.expect_items(found.header.items, found.header.bytes / found.header.items.max(1));
    let mut loaded = Loaded::default();
    let counters = Counters::default();
    let mut input = items_of(found)?;
    let mut body = Vec::new();
    for number in 0..found.header.items {
        let caller = Caller::new(store.clock().now(), &counters, 0);
        if stop.load(Ordering::Relaxed) {
            return Err(Why::Abandoned);
        }
        let age = found.age + u64::from(caller.now.saturating_sub(since));
        let moving = read_item(&mut input, &mut body, age).map_err(damaged)?;
        if moving.is_some_and(|moving| !store.has_room(moving.item.key.len(), moving.item.value_len)) {
            // It might push out another one, perhaps a client's.
            loaded.refused += found.header.items - number;
            break;
        }
        *match moving.map_or(Arrival::Dead, |moving| store.receive(&caller, &moving)) {
            Arrival::Stored => &mut loaded.stored,
            Arrival::Dead => &mut loaded.dead,
            Arrival::Present | Arrival::Overwritten => &mut loaded.overwritten,
            Arrival::Refused(_) => &mut loaded.refused,
        } += 1;
    }
    loaded.took = began.elapsed();
    Ok(loaded)
}

/// Reads all of it once, to see whether it is what was written.
fn verify(found: &Found, stop: &AtomicBool) -> Result<(), Why> {
    let mut input = Summed::new(items_of(found)?);
    let (mut copied, mut more) = (0, 1);
    while more > 0 {
        if stop.load(Ordering::Relaxed) {
            return Err(Why::Abandoned);
        }
        let left = (found.header.bytes - copied).min(READ_BYTES as u64);
        more = io::copy(&mut (&mut input).take(left), &mut io::sink())?;
        copied += more;
    }
    let (mut input, sum) = input.finish();
    let mut rest = Vec::new();
    input.by_ref().take(sum.len() as u64 + 1).read_to_end(&mut rest)?;
    if copied != found.header.bytes || rest != sum {
        return Err(Malformed::Damaged.into());
    }
    Ok(())
}

fn items_of(found: &Found) -> io::Result<BufReader<&std::fs::File>> {
    let mut file = &found.file;
    file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
    Ok(BufReader::with_capacity(READ_BYTES, file))
}

/// What cannot be an item is damage that the checksum did not show.
fn damaged(error: io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Malformed::Damaged.into(),
        _ => error.into(),
    }
}
