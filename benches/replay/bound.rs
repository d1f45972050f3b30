//! The hit ratio that no cache of a size can exceed, whatever it knows of the future.

use std::collections::BTreeSet;

use crate::trace::Trace;

/// The next request of the same key does not come.
const NEVER: usize = usize::MAX;

/// A cache without a byte beyond keys and values, that knows all requests to come and need not keep what it is given.
///
/// For objects of one size this is Belady's MIN, which such a cache reaches. For others it is PFOO-L of Berger, Beckmann
/// and Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes" (SIGMETRICS 2018): the cache may
/// have more bytes at one time when it has fewer at another, so that the real optimum is below it.
pub fn hit_ratio(trace: &Trace, cache_bytes: u64) -> f64 {
    let next = next_uses(trace);
    let first = trace.bytes(trace.requests[0]);
    let is_one_size = trace.requests.iter().all(|&request| trace.bytes(request) == first);
    let hits = if is_one_size {
        hits_of_one_size(trace, &next, (cache_bytes / first.max(1)) as usize)
    } else {
        hits_of_sizes(trace, &next, cache_bytes)
    };
    hits as f64 / trace.requests.len() as f64
}

/// For each request, the place of the next one of its key.
fn next_uses(trace: &Trace) -> Vec<usize> {
    let mut coming = vec![NEVER; trace.keys.len()];
    let mut next = vec![NEVER; trace.requests.len()];
    for (place, request) in trace.requests.iter().enumerate().rev() {
        next[place] = std::mem::replace(&mut coming[request.key as usize], place);
    }
    next
}

/// Keeps the objects that are asked for again soonest.
fn hits_of_one_size(trace: &Trace, next: &[usize], room: usize) -> u64 {
    // By the place of their next use, which no two objects share.
    let mut held: BTreeSet<usize> = BTreeSet::new();
    let mut hits = 0;
    for (place, &next) in next.iter().enumerate().take(trace.requests.len()) {
        hits += u64::from(held.remove(&place));
        if next != NEVER {
            held.insert(next);
        }
        if held.len() > room {
            held.pop_last();
        }
    }
    hits
}

/// To be a hit, an object must be kept from one request to its next: takes the cheapest, in bytes times requests, until
/// all the cache's bytes are taken at all times together.
fn hits_of_sizes(trace: &Trace, next: &[usize], cache_bytes: u64) -> u64 {
    let uses = trace.requests.iter().zip(next).enumerate().filter(|&(_, (_, &next))| next != NEVER);
    let mut costs: Vec<u128> = uses
        .map(|(place, (&request, &next))| u128::from(trace.bytes(request)) * (next - place) as u128)
        .collect();
    costs.sort_unstable();
    let mut left = u128::from(cache_bytes) * trace.requests.len() as u128;
    let affordable = costs.iter().take_while(|&&cost| {
        let is_affordable = cost <= left;
        left = left.saturating_sub(cost);
        is_affordable
    });
    affordable.count() as u64
}
