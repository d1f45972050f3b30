//! Writing a snapshot, when nobody uses the store any more.

use std::fmt;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::snapshot::file;
use crate::snapshot::format::{HEADER_BYTES, Header, Summed, write_item};
use crate::stats::Counters;
use crate::store::{Caller, Store};

/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saved {
    items: u64,
    bytes: u64,
    took: Duration,
}

/// It was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abandoned;

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items, {} bytes, in {:.1} s", self.items, self.bytes, self.took.as_secs_f64())
    }
}

/// Writes every live item, and gives the file its name when it is whole and on the disk. `now` is Unix time.
pub(super) fn save(
    store: &Store,
    path: &Path,
    now: u64,
    is_abandoned: &dyn Fn() -> bool,
) -> io::Result<Result<Saved, Abandoned>> {
    let saved = write(store, path, now, is_abandoned);
    if !matches!(saved, Ok(Ok(_))) {
        file::abandon(path);
    }
    saved
}

fn write(
    store: &Store,
    path: &Path,
    now: u64,
    is_abandoned: &dyn Fn() -> bool,
) -> io::Result<Result<Saved, Abandoned>> {
    let began = Instant::now();
    let counters = Counters::default();
    let caller = Caller::new(store.clock().now(), &counters, 0);
    let mut file = file::create(path)?;
    // In its place comes the header, when the numbers in it are known.
    file.write_all(&[0; HEADER_BYTES])?;
    let mut out = Summed::new(BufWriter::with_capacity(WRITE_BYTES, file));
    let (mut items, mut bytes) = (0, 0);
    // The next start knows nothing of a delayed flush: until then items live, and no longer.
    let flush_in = store.flush_due().map(|due| due.saturating_sub(caller.now));
    for part in 0..store.part_count() {
        if is_abandoned() {
            return Ok(Err(Abandoned));
        }
        let mut failed = None;
        store.scan(
            &caller,
            part,
            |_| true,
            |mut moving| {
                let ttl = &mut moving.item.ttl_seconds;
                *ttl = (*ttl).into_iter().chain(flush_in).min();
                if failed.is_none() {
                    match write_item(&mut out, &moving) {
                        Ok(written) => (items, bytes) = (items + 1, bytes + written),
                        Err(error) => failed = Some(error),
                    }
                }
            },
        );
        failed.map_or(Ok(()), Err)?;
    }
    let (mut out, sum) = out.finish();
    out.write_all(&sum)?;
    let mut file = out.into_inner()?;
    let header = Header { written: now, items, bytes, cas: store.highest_cas() };
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.encode())?;
    file::publish(&file, path)?;
    Ok(Ok(Saved { items, bytes, took: began.elapsed() }))
}
