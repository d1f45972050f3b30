//! The only writer of a key: one command after another, through any node.

use std::time::Duration;

use fastrand::Rng;

use crate::cluster_checker::client::{Client, Failure};
use crate::cluster_checker::workload::Load;
use crate::support::counter::Counter;
use crate::support::history::{Ending, Found, History, Moment, Read, Span, What, Write};

/// How long a command may still be on its way between nodes when the node that was asked has died: the deadline of an
/// operation is 250 ms.
const IN_FLIGHT: Duration = Duration::from_millis(500);

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `set` and `ms`.
    Set,
    /// `set`, then `delete` or `md`, and again.
    DeleteAndSet,
    /// `gets` and `cas`, and `add` when it is a miss.
    Cas,
    /// `incr`, and `set` when it is gone.
    Count,
}

/// A counter that was gone.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    pub key: usize,
    /// When it was last known to be there.
    pub after: Moment,
    /// When it was known to be gone.
    pub by: Moment,
}

/// A key's only writer.
#[derive(Debug)]
pub struct Writer {
    pub history: History,
    pub losses: Vec<Loss>,
    pub miscounts: Vec<String>,
    key: usize,
    kind: Kind,
    number: u64,
    counter: Counter,
    counted_at: Moment,
    rests_until: Moment,
}

/// The numbers of a counter tell whose it is.
const NUMBERS_EACH: u64 = 1_000_000_000_000;

impl Kind {
    pub fn of(key: usize) -> Kind {
        [Kind::Set, Kind::DeleteAndSet, Kind::Cas, Kind::Count][key % 4]
    }

    /// What a value of a key says.
    pub fn found(self, key: usize, name: &str, data: &str) -> Found {
        let number = match self {
            Kind::Count => {
                let number = data.trim_end().parse::<u64>().ok();
                number.filter(|number| number / NUMBERS_EACH == key as u64 + 1)
            }
            Kind::Set | Kind::DeleteAndSet | Kind::Cas => number_in(name, data),
        };
        number.map_or_else(|| Found::Wrong(shortened(data)), Found::Value)
    }
}

impl Writer {
    pub fn new(key: usize, run: &str) -> Writer {
        Writer {
            history: History { key: Writer::key(key, run), ..History::default() },
            losses: Vec::new(),
            miscounts: Vec::new(),
            key,
            kind: Kind::of(key),
            number: 0,
            counter: Counter::new((key as u64 + 1) * NUMBERS_EACH),
            counted_at: Moment::ZERO,
            rests_until: Moment::ZERO,
        }
    }

    /// The name of a run's key.
    pub fn key(key: usize, run: &str) -> String {
        format!("{run}-{key}")
    }

    /// Does the next thing, or rests. Returns which answers did not come in time.
    pub fn step(&mut self, client: &mut Client, load: &Load, rng: &mut Rng) -> Vec<Span> {
        if load.now() < self.rests_until {
            return Vec::new();
        }
        let mut asking = Asking { client, load, rng, silences: Vec::new() };
        match self.kind {
            Kind::Set => self.set(&mut asking),
            Kind::DeleteAndSet if self.number % 2 == 1 => self.delete(&mut asking),
            Kind::DeleteAndSet => self.set(&mut asking),
            Kind::Cas => self.cas(&mut asking),
            Kind::Count if self.counter.is_stored() => self.count(&mut asking),
            Kind::Count => self.store_counter(&mut asking),
        }
        asking.silences
    }

    fn set(&mut self, asking: &mut Asking) {
        let value = self.next_value(asking.rng);
        let (key, len) = (&self.history.key, value.len());
        let request = match asking.rng.bool() {
            true => format!("set {key} 0 {} {len}\r\n{value}\r\n", asking.rng.choice([0, 1000]).unwrap_or(0)),
            false => format!("ms {key} {len}\r\n{value}\r\n"),
        };
        let (reply, span) = asking.line(&request);
        self.record(What::Store, self.number..=self.number, ["STORED", "HD"], [], reply, span);
    }

    fn delete(&mut self, asking: &mut Asking) {
        self.number += 1;
        let request = format!("{} {}\r\n", if asking.rng.bool() { "delete" } else { "md" }, self.history.key);
        let (reply, span) = asking.line(&request);
        // A miss is as good as a delete: from now on, nothing older may be read.
        let acknowledged = ["DELETED", "HD", "NOT_FOUND", "NF"];
        self.record(What::Delete, self.number..=self.number, acknowledged, [], reply, span);
    }

    fn cas(&mut self, asking: &mut Asking) {
        let (reply, span) = asking.values(&format!("gets {}\r\n", self.history.key));
        let found = match reply {
            Err(_) => return,
            Ok(Err(said)) => return self.history.reads.push(Read { found: Found::Wrong(said), span }),
            Ok(Ok(values)) => values.into_iter().next(),
        };
        let read = match &found {
            None => Found::Miss,
            Some(value) => self.kind.found(self.key, &self.history.key, &value.data),
        };
        self.history.reads.push(Read { found: read, span });
        let value = self.next_value(asking.rng);
        let (key, len) = (&self.history.key, value.len());
        let (request, refused) = match found.and_then(|value| value.token) {
            Some(token) => (format!("cas {key} 0 0 {len} {token}\r\n{value}\r\n"), ["EXISTS", "NOT_FOUND"]),
            None => (format!("add {key} 0 0 {len}\r\n{value}\r\n"), ["NOT_STORED", ""]),
        };
        let (reply, span) = asking.line(&request);
        self.record(What::Store, self.number..=self.number, ["STORED"], refused, reply, span);
    }

    fn store_counter(&mut self, asking: &mut Asking) {
        let base = self.counter.next_base();
        let value = base.to_string();
        let request = format!("set {} 0 0 {}\r\n{value}\r\n", self.history.key, value.len());
        let (reply, span) = asking.line(&request);
        let ending = self.record(What::Store, base..=base, ["STORED"], [], reply, span);
        if ending == Ending::Acknowledged {
            self.counter.stored();
            self.counted_at = span.ended;
        }
    }

    fn count(&mut self, asking: &mut Asking) {
        let (reply, span) = asking.line(&format!("incr {} 1\r\n", self.history.key));
        let number = reply.as_ref().ok().and_then(|line| line.parse::<u64>().ok());
        if let Some(number) = number {
            match self.counter.counted(number) {
                Ok(()) => self.counted_at = span.ended,
                Err(said) => {
                    self.miscounts.push(format!("{said} at {:.4}", span.ended.as_secs_f64()));
                    self.counter.gone();
                }
            }
            let (what, ending) = (What::Store, Ending::Acknowledged);
            return self.history.writes.push(Write { numbers: number..=number, what, ending, span });
        }
        match reply {
            Ok(line) if line == "NOT_FOUND" => {
                self.losses.push(Loss { key: self.key, after: self.counted_at, by: span.ended });
                self.counter.gone();
            }
            Err(Failure::NotConnected) => {}
            reply => {
                if let Some(numbers) = self.counter.perhaps_counted() {
                    self.record(What::Store, numbers, [], [], reply, span);
                }
            }
        }
    }

    /// Notes what became of a write.
    fn record<const A: usize, const R: usize>(
        &mut self,
        what: What,
        numbers: std::ops::RangeInclusive<u64>,
        acknowledged: [&str; A],
        refused: [&str; R],
        reply: Result<String, Failure>,
        span: Span,
    ) -> Ending {
        let ending = match reply {
            Ok(line) if acknowledged.contains(&line.as_str()) => Ending::Acknowledged,
            Ok(line) if refused.contains(&line.as_str()) => Ending::Refused,
            // From now on it must not happen: the next write may follow at once.
            Ok(line) if line.starts_with("SERVER_ERROR ") => Ending::Unknown,
            Ok(line) => {
                self.history.reads.push(Read { found: Found::Wrong(line), span });
                Ending::Unknown
            }
            Err(Failure::NotConnected) => Ending::Refused,
            Err(Failure::Closed | Failure::Silent) => {
                self.rests_until = span.ended + IN_FLIGHT;
                Ending::Unknown
            }
        };
        self.history.writes.push(Write { numbers, what, ending, span });
        ending
    }

    /// A value with the next number; of any length, and seldom a long one.
    fn next_value(&mut self, rng: &mut Rng) -> String {
        self.number += 1;
        let len = match rng.u8(..) {
            0..200 => rng.usize(..80),
            200..250 => rng.usize(..5_000),
            _ => rng.usize(..100_000),
        };
        value(&self.history.key, self.number, len)
    }
}

fn value(key: &str, number: u64, len: usize) -> String {
    let fill = char::from(b'a' + (number % 26) as u8);
    format!("{key}/{number}/{}", String::from(fill).repeat(len))
}

/// The number in a value that is this key's and whole.
fn number_in(key: &str, data: &str) -> Option<u64> {
    let (number, rest) = data.strip_prefix(key)?.strip_prefix('/')?.split_once('/')?;
    let number = number.parse().ok()?;
    (value(key, number, rest.len()) == data).then_some(number)
}

fn shortened(data: &str) -> String {
    format!("the value {:?} of {} bytes", data.chars().take(100).collect::<String>(), data.len())
}

/// Asks nodes at random, and notes when.
struct Asking<'a, 'b> {
    client: &'a mut Client<'b>,
    load: &'a Load,
    rng: &'a mut Rng,
    silences: Vec<Span>,
}

impl Asking<'_, '_> {
    fn line(&mut self, request: &str) -> (Result<String, Failure>, Span) {
        self.timed(|client, node| client.line(node, request))
    }

    fn values(&mut self, request: &str) -> (Values, Span) {
        self.timed(|client, node| client.values(node, request))
    }

    fn timed<T>(
        &mut self,
        ask: impl FnOnce(&mut Client, usize) -> Result<T, Failure>,
    ) -> (Result<T, Failure>, Span) {
        let node = self.load.choose(self.client, self.rng);
        let began = self.load.now();
        let reply = ask(self.client, node);
        let span = Span { began, ended: self.load.now(), node };
        if matches!(reply, Err(Failure::Silent)) {
            self.silences.push(span);
        }
        (reply, span)
    }
}

type Values = Result<Result<Vec<crate::cluster_checker::client::Value>, String>, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_key_and_number_and_whether_it_is_whole() {
        let data = value("run-3", 17, 5);
        assert_eq!(data, "run-3/17/rrrrr");
        assert_eq!(Kind::Set.found(0, "run-3", &data), Found::Value(17));
        for wrong in ["run-3/17/rrrrs", "run-3/18/rrrrr", "run-4/17/rrrrr", "run-3/17", "", "run-3/x/"] {
            assert!(matches!(Kind::Set.found(0, "run-3", wrong), Found::Wrong(_)), "{wrong}");
        }
    }

    #[test]
    fn a_counters_number_tells_its_key() {
        let mut counter = Writer::new(3, "run").counter;
        let number = counter.next_base().to_string();
        assert!(matches!(Kind::Count.found(3, "run-3", &number), Found::Value(_)));
        assert!(matches!(Kind::Count.found(7, "run-7", &number), Found::Wrong(_)));
    }
}
