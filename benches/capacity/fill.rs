//! Fills a server, and counts what it really holds by asking for it.

use std::ops::Range;

use crate::loads::{KEY_BYTES, LONGEST_VALUE_BYTES, Phase, Sizes, key};
use crate::support::Result;
use crate::support::client::{Client, Values};
use crate::support::process::{most_resident_bytes, resident_file_bytes, settled_bytes};
use crate::support::server::Server;

/// Each waits for its replies while the server works for the others.
const CONNECTIONS: usize = 4;

/// Sets that a connection sends at once: as many as come to one of these.
const BATCH_SETS: u64 = 256;
const BATCH_BYTES: usize = 128 << 10;

/// Gets that a connection sends at once.
const BATCH_GETS: usize = 50;

/// What an item counts beyond key and value when it is reckoned how many to send: less than a server spends.
const ITEM_BYTES: usize = 16;

/// How much is sent, and how closely it is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Bytes of items in each fill.
    pub fill_bytes: u64,
    /// Keys to read back, of all that were sent.
    pub sample: u64,
}

/// What a server holds after a fill.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub sent: u64,
    /// Sets that it did not take.
    pub refused: u64,
    /// By its `stats`, with those of earlier fills.
    pub told: u64,
    /// Of this fill, by reading a sample back.
    pub found: f64,
    pub resident_bytes: u64,
    /// Of those, pages of the program and its libraries, which the system drops when it needs memory.
    pub file_bytes: u64,
    /// At any time since the server started.
    pub most_bytes: u64,
}

/// A server with what was sent to it.
#[derive(Debug)]
pub struct Filled<'a> {
    server: &'a Server,
    clients: Vec<Client>,
    values: Values,
    /// Keys that were sent have the numbers below this.
    end: u64,
}

impl<'a> Filled<'a> {
    pub fn new(server: &'a Server) -> Result<Self> {
        let clients = (0..CONNECTIONS)
            .map(|_| Client::connect(&server.name, server.address))
            .collect::<std::io::Result<_>>()?;
        Ok(Self { server, clients, values: Values::new(LONGEST_VALUE_BYTES), end: 0 })
    }

    pub fn run(&mut self, phase: &Phase, extent: Extent) -> Result<Held> {
        if phase.flushes {
            self.server.ask("flush_all", "OK")?.ok_or("flush_all is refused")?;
        }
        let (numbers, refused) = self.fill(phase, extent.fill_bytes)?;
        let sent = numbers.end - numbers.start;
        self.end = self.end.max(numbers.end);
        let resident_bytes = settled_bytes(self.server.pid())?;
        let file_bytes = resident_file_bytes(self.server.pid())?;
        let told = self.server.items()?;
        let found = self.count(numbers, phase.sizes, extent.sample)?;
        let most_bytes = most_resident_bytes(self.server.pid())?;
        Ok(Held { sent, refused, told, found, resident_bytes, file_bytes, most_bytes })
    }

    /// The numbers of the keys that were sent, and how many sets were refused.
    fn fill(&mut self, phase: &Phase, fill_bytes: u64) -> Result<(Range<u64>, u64)> {
        let end = self.end;
        let mut unsent_bytes = fill_bytes;
        let (mut sent, mut refused) = (0, 0);
        let mut batches = [0; CONNECTIONS];
        while unsent_bytes > 0 {
            for (client, batch) in self.clients.iter_mut().zip(&mut batches) {
                while unsent_bytes > 0 && *batch < BATCH_SETS && client.unsent_bytes() < BATCH_BYTES {
                    let number = if phase.newest_first { end - 1 - sent } else { sent };
                    let value = self.values.value(number, phase.sizes.value_bytes(number));
                    client.put_set(&key(number), value);
                    unsent_bytes = unsent_bytes.saturating_sub((KEY_BYTES + value.len() + ITEM_BYTES) as u64);
                    (sent, *batch) = (sent + 1, *batch + 1);
                }
                client.send()?;
            }
            for (client, batch) in self.clients.iter_mut().zip(&mut batches) {
                for _ in 0..std::mem::take(batch) {
                    refused += u64::from(!client.read_set()?);
                }
            }
        }
        let numbers = if phase.newest_first { end - sent..end } else { 0..sent };
        Ok((numbers, refused))
    }

    /// Asks for every so many of the keys, the highest numbers first. A value must be the one sent last.
    fn count(&mut self, numbers: Range<u64>, sizes: Sizes, sample: u64) -> Result<f64> {
        let sent = numbers.end - numbers.start;
        let mut numbers = numbers.rev().step_by((sent / sample).max(1) as usize);
        let (mut asked, mut hits) = (0_u64, 0_u64);
        loop {
            let batches: [Vec<u64>; CONNECTIONS] =
                std::array::from_fn(|_| numbers.by_ref().take(BATCH_GETS).collect());
            if batches[0].is_empty() {
                return Ok(hits as f64 * sent as f64 / asked as f64);
            }
            let keys = batches.each_ref().map(|batch| batch.iter().map(|&n| key(n)).collect::<Vec<_>>());
            for (client, keys) in self.clients.iter_mut().zip(&keys) {
                client.put_gets(keys);
                client.send()?;
            }
            for ((client, keys), numbers) in self.clients.iter_mut().zip(&keys).zip(&batches) {
                client.read_gets(keys, |place, value| {
                    hits += 1;
                    let number = numbers[place];
                    value.len() == sizes.value_bytes(number) && self.values.is_value(number, value)
                })?;
                asked += keys.len() as u64;
            }
        }
    }
}
