//! The memory of the whole process but for pages of its file: what the system gives it stays near `-m`, whatever is stored.
//!
//! The bound is `-m`, a tenth of it for what lies between the items, and 5 MiB for everything else.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::server::Server;
use crate::support::wire::Wire;

const MEMORY_MIB: u64 = 64;
const BOUND_KIB: u64 = (MEMORY_MIB + MEMORY_MIB / 10 + 5) * 1024;
/// Bytes of values that overwrite the cache more than twice, whatever their size.
const OVERWRITE_BYTES: u64 = 160 << 20;
/// What an item takes beside its value, about: keys of up to 10 bytes, the item's header and its slot.
const ITEM_BYTES: u64 = 25;
/// Requests that go out together; small enough to stay within the sockets' buffers with their replies.
const BATCH_BYTES: usize = 256 * 1024;
/// How often the process is looked at.
const SAMPLE: Duration = Duration::from_millis(10);

#[test]
fn stays_in_bounds_with_values_of_50_bytes() {
    stays_in_bounds(1, &[|_| 50]);
}

#[test]
fn stays_in_bounds_with_values_of_1_kb() {
    stays_in_bounds(1, &[|_| 1_000]);
}

#[test]
fn stays_in_bounds_with_values_of_all_sizes() {
    stays_in_bounds(1, &[log_uniform]);
}

#[test]
fn stays_in_bounds_when_values_grow_from_50_bytes_to_1_kb() {
    stays_in_bounds(1, &[|_| 50, |_| 1_000]);
}

#[test]
fn stays_in_bounds_with_several_clients_on_4_threads() {
    stays_in_bounds(8, &[log_uniform, |_| 50]);
}

/// 8 bytes to 16 KB, each doubling as likely as the next.
fn log_uniform(random: &mut fastrand::Rng) -> usize {
    let power = 3.0 + random.f64() * 11.0;
    power.exp2() as usize
}

/// Overwrites the cache once for each way to choose sizes, from this number of clients, and watches the process.
fn stays_in_bounds(clients: u64, phases: &[fn(&mut fastrand::Rng) -> usize]) {
    let server = Server::filbert(&["-m", &MEMORY_MIB.to_string(), "-t", "4"]);
    let done = AtomicBool::new(false);
    let most_kib = AtomicU64::new(0);
    let watch = || {
        while !done.load(Ordering::Relaxed) {
            most_kib.fetch_max(server.anonymous_kib(), Ordering::Relaxed);
            thread::sleep(SAMPLE);
        }
    };
    thread::scope(|scope| {
        scope.spawn(watch);
        for (phase, size) in phases.iter().enumerate() {
            let fillers: Vec<_> = (0..clients)
                .map(|client| {
                    let server = &server;
                    let prefix = format!("{phase}{client}");
                    let random = fastrand::Rng::with_seed(client);
                    scope.spawn(move || {
                        fill(server.connect(), &prefix, random, *size, OVERWRITE_BYTES / clients)
                    })
                })
                .collect();
            let ended = fillers.into_iter().map(|filler| filler.join()).collect::<Vec<_>>();
            // Told before a failure is passed on, or the watch would never end.
            let failed = ended.into_iter().find_map(Result::err);
            if let Some(panic) = failed {
                done.store(true, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    most_kib.fetch_max(server.anonymous_kib(), Ordering::Relaxed);

    let most_kib = most_kib.into_inner();
    let mut wire = server.connect();
    let (bytes, evictions) = (wire.stat("bytes"), wire.stat("evictions"));
    assert!(evictions > wire.stat("curr_items"), "only {evictions} items were evicted");
    assert!(bytes > (MEMORY_MIB << 20) / 10 * 8, "only {bytes} bytes are stored");
    assert!(most_kib <= BOUND_KIB, "{most_kib} KiB in memory; the bound is {BOUND_KIB} KiB");
}

/// Stores values until this number of bytes has been stored.
fn fill(
    mut wire: Wire,
    prefix: &str,
    mut random: fastrand::Rng,
    size: fn(&mut fastrand::Rng) -> usize,
    bytes: u64,
) {
    let values = "v".repeat(16 * 1024);
    let mut stored = 0;
    let mut batch = String::new();
    for n in 0.. {
        let len = size(&mut random);
        let _ = write!(batch, "set {prefix}:{n} 0 0 {len} noreply\r\n{}\r\n", &values[..len]);
        stored += len as u64 + ITEM_BYTES;
        if batch.len() >= BATCH_BYTES || stored >= bytes {
            batch.push_str("mn\r\n");
            wire.ask(&batch, "MN\r\n");
            batch.clear();
            if stored >= bytes {
                return;
            }
        }
    }
}
