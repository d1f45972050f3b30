//! Replays a trace look-aside against servers side by side: a get, and on a miss a set of what was asked for.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::Result;
use crate::support::client::{Client, Values};
use crate::trace::{Request, Trace};

/// How fast, and how many requests go together.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub requests_per_second: f64,
    pub batch: usize,
}

/// What a server made of the requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub hits: u64,
    /// Sets that it did not take.
    pub refused: u64,
}

#[derive(Clone, Debug)]
pub struct Replayed {
    /// Of each server.
    pub outcomes: Vec<Outcome>,
    pub requests_per_second: f64,
    /// By how much a batch came too late, at most.
    pub latest: Duration,
}

/// Some requests that follow each other, in two groups. The second is sent when the first is answered.
///
/// The first request of each key is in the first group. So what is asked for again comes after the set that a miss calls
/// for.
#[derive(Debug, Default)]
struct Batch<'a> {
    first: Group<'a>,
    again: Group<'a>,
}

#[derive(Debug, Default)]
struct Group<'a> {
    requests: Vec<Request>,
    keys: Vec<&'a str>,
}

impl Group<'_> {
    fn clear(&mut self) {
        self.requests.clear();
        self.keys.clear();
    }
}

/// Every server is sent a batch before the next one: all have the same requests at the same time.
pub fn replay(trace: &Trace, values: &Values, clients: &mut [Client], pace: Pace) -> Result<Replayed> {
    let mut outcomes = vec![Outcome::default(); clients.len()];
    let mut misses: Vec<Vec<Request>> = vec![Vec::new(); clients.len()];
    let mut latest = Duration::ZERO;
    let mut batch = Batch::default();
    // The number of the last batch in which a key was.
    let mut batches = vec![0; trace.keys.len()];
    let start = Instant::now();
    for (number, requests) in trace.requests.chunks(pace.batch).enumerate() {
        batch.fill(trace, requests, number + 1, &mut batches);
        let due = Duration::from_secs_f64((number * pace.batch) as f64 / pace.requests_per_second);
        latest = latest.max(wait_until(start, due));
        for client in &mut *clients {
            client.put_gets(&batch.first.keys);
            client.send()?;
        }
        for ((client, outcome), misses) in clients.iter_mut().zip(&mut outcomes).zip(&mut misses) {
            read_gets(client, &batch.first, values, outcome, misses)?;
            put_sets(client, trace, values, misses);
            client.put_gets(&batch.again.keys);
            client.send()?;
        }
        for ((client, outcome), misses) in clients.iter_mut().zip(&mut outcomes).zip(&mut misses) {
            read_sets(client, outcome, misses)?;
            // A miss once more, when the set was refused or the item evicted at once.
            read_gets(client, &batch.again, values, outcome, misses)?;
            put_sets(client, trace, values, misses);
            client.send()?;
            read_sets(client, outcome, misses)?;
        }
    }
    let requests_per_second = trace.requests.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Replayed { outcomes, requests_per_second, latest })
}

impl<'a> Batch<'a> {
    fn fill(&mut self, trace: &'a Trace, requests: &[Request], number: usize, batches: &mut [usize]) {
        self.first.clear();
        self.again.clear();
        for &request in requests {
            let key = request.key as usize;
            let is_first = std::mem::replace(&mut batches[key], number) != number;
            let group = if is_first { &mut self.first } else { &mut self.again };
            group.requests.push(request);
            group.keys.push(&trace.keys[key]);
        }
    }
}

/// Returns by how much it is too late already.
fn wait_until(start: Instant, due: Duration) -> Duration {
    let early = due.saturating_sub(start.elapsed());
    if !early.is_zero() {
        thread::sleep(early);
    }
    start.elapsed().saturating_sub(due)
}

fn read_gets(
    client: &mut Client,
    group: &Group,
    values: &Values,
    outcome: &mut Outcome,
    misses: &mut Vec<Request>,
) -> Result<()> {
    let mut next = 0;
    client.read_gets(&group.keys, |place, value| {
        misses.extend_from_slice(&group.requests[next..place]);
        next = place + 1;
        outcome.hits += 1;
        values.is_value(u64::from(group.requests[place].key), value)
    })?;
    misses.extend_from_slice(&group.requests[next..]);
    Ok(())
}

fn put_sets(client: &mut Client, trace: &Trace, values: &Values, misses: &[Request]) {
    for miss in misses {
        let value = values.value(u64::from(miss.key), miss.value_bytes as usize);
        client.put_set(trace.keys[miss.key as usize].as_bytes(), value);
    }
}

fn read_sets(client: &mut Client, outcome: &mut Outcome, misses: &mut Vec<Request>) -> Result<()> {
    for _ in misses.drain(..) {
        outcome.refused += u64::from(!client.read_set()?);
    }
    Ok(())
}
