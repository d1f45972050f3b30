//! What one key's writer did and what everybody read, and the rule that it must keep.
//!
//! Each key has one writer, which gives its writes increasing numbers, one after another. The rule:
//!
//! **A read returns a miss, or a value at least as new as the newest write acknowledged before the read began.**
//!
//! A value that somebody has read counts like one that was acknowledged: it cannot be followed by an older one. A write
//! that failed may have happened or not, but not after its failure was reported. A delete is a write whose value is a
//! miss: after it, only newer values may be read.
//!
//! A key may have an origin, whose values are numbered by the same count. A value that was loaded from there must be one
//! that the origin has had, and at least as new as the newest acknowledged write: a delete has the number of the value that
//! the origin had by then. And once the origin has had a newer one for `outlives`, it is not shown any more.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

/// When something happened, since the beginning of the run.
pub type Moment = Duration;

/// One write, as its writer saw it.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its number, or those of which it may have written one: a counter's writer does not always know.
    pub numbers: RangeInclusive<u64>,
    pub what: What,
    pub ending: Ending,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Store,
    Delete,
    /// The origin has this value, from now on.
    Offer,
    /// The origin has no value, from now on.
    Withdraw,
}

/// What the writer knows of its write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// It happened.
    Acknowledged,
    /// It did not happen.
    Refused,
    /// It may have happened.
    Unknown,
}

/// One read of anybody.
#[derive(Clone, Debug)]
pub struct Read {
    pub found: Found,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Miss,
    /// The number in the value.
    Value(u64),
    /// The number in a value of the origin.
    Loaded(u64),
    /// Something that no node may say: an error, or a value that is not this key's.
    Wrong(String),
}

/// When a command was sent and when its answer was there, and who was asked.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub began: Moment,
    pub ended: Moment,
    pub node: usize,
}

/// All that is known of one key; the writes in their order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub key: String,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    /// How long a value that was loaded may be shown when the origin has a newer one; `None` is for ever.
    pub outlives: Option<Duration>,
    /// Up to this number, values may have got another life from clients.
    pub touched: u64,
}

impl History {
    /// Checks every read against the rule.
    ///
    /// # Errors
    ///
    /// What the first offending reads did, each in a sentence, and the whole history.
    pub fn check(&self) -> Result<(), String> {
        let floors = Floors::of(self);
        let offences: Vec<_> =
            self.reads.iter().filter_map(|read| Some((read, self.offence(read, &floors)?))).collect();
        if offences.is_empty() {
            return Ok(());
        }
        let mut text = format!("{} reads of {} broke the rule:\n", offences.len(), self.key);
        for (read, offence) in offences.iter().take(10) {
            let _ = writeln!(text, "  {} {offence}", shown(read.span));
        }
        Err(text)
    }

    fn offence(&self, read: &Read, floors: &Floors) -> Option<String> {
        let (number, what) = match &read.found {
            Found::Miss => return None,
            Found::Wrong(said) => return Some(format!("said {said}")),
            Found::Value(number) => (*number, What::Store),
            Found::Loaded(number) => (*number, What::Offer),
        };
        let written = |write: &Write| {
            write.what == what
                && write.ending != Ending::Refused
                && write.numbers.contains(&number)
                && write.span.began < read.span.ended
        };
        if !self.writes_that_may_have(number).any(written) {
            return Some(format!("returned {number}, which nobody had written"));
        }
        if let Some(floor) = floors.acknowledged_before(read.span.began).filter(|&floor| floor > number) {
            return Some(format!("returned {number}, though {floor} was acknowledged before"));
        }
        if let Some(seen) = floors.read_before(read.span.began).filter(|&seen| seen > number) {
            return Some(format!("returned {number}, though {seen} was read before"));
        }
        let outlived = read.span.began.checked_sub(self.outlives?)?;
        let newer = floors.offered_before(outlived).filter(|&newer| newer > number.max(self.touched))?;
        (what == What::Offer).then(|| format!("returned {number}, though {newer} had been there for long"))
    }

    /// The few writes among which the one of a number must be.
    fn writes_that_may_have(&self, number: u64) -> impl Iterator<Item = &Write> {
        let first = self.writes.partition_point(|write| *write.numbers.end() < number);
        self.writes[first..].iter().take_while(move |write| *write.numbers.start() <= number)
    }

    /// Everything that happened to the key, and what else did, in the order of time.
    pub fn shown(&self, events: &[(Moment, String)]) -> String {
        let mut lines: Vec<(Moment, String)> =
            events.iter().map(|(at, what)| (*at, format!("{:9.4} ---- {what}", at.as_secs_f64()))).collect();
        lines.extend(self.writes.iter().map(|write| {
            let what = match write.what {
                What::Store => "set",
                What::Delete => "delete",
                What::Offer => "origin has",
                What::Withdraw => "origin has none",
            };
            let (low, high) = write.numbers.clone().into_inner();
            let number = if low == high { format!("{low}") } else { format!("{low} to {high}") };
            (write.span.began, format!("{} {what} {number}: {:?}", shown(write.span), write.ending))
        }));
        lines.extend(self.reads.iter().map(|read| {
            (read.span.began, format!("{}                    read {:?}", shown(read.span), read.found))
        }));
        lines.sort_by_key(|(at, _)| *at);
        let mut text = format!("history of {}:\n", self.key);
        for (_, line) in lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn shown(span: Span) -> String {
    format!("{:9.4} {:9.4} node-{}", span.began.as_secs_f64(), span.ended.as_secs_f64(), span.node + 1)
}

/// What a read may not go below, by the time it began.
struct Floors {
    acknowledged: Vec<(Moment, u64)>,
    /// What clients had written: what was loaded may have been shown and not stored.
    read: Vec<(Moment, u64)>,
    offered: Vec<(Moment, u64)>,
}

impl Floors {
    fn of(history: &History) -> Floors {
        let acknowledged = history.writes.iter().filter(|write| write.ending == Ending::Acknowledged);
        let (offered, acknowledged): (Vec<_>, Vec<_>) =
            acknowledged.partition(|write| matches!(write.what, What::Offer | What::Withdraw));
        let ended = |write: &Write| (write.span.ended, *write.numbers.end());
        let (offered, acknowledged) =
            [offered, acknowledged].map(|writes| writes.into_iter().map(ended).collect()).into();
        let read = history.reads.iter().filter_map(|read| match read.found {
            Found::Value(number) => Some((read.span.ended, number)),
            Found::Loaded(_) | Found::Miss | Found::Wrong(_) => None,
        });
        Floors { acknowledged: rising(acknowledged), read: rising(read.collect()), offered: rising(offered) }
    }

    fn acknowledged_before(&self, moment: Moment) -> Option<u64> {
        latest(&self.acknowledged, moment)
    }

    fn offered_before(&self, moment: Moment) -> Option<u64> {
        latest(&self.offered, moment)
    }

    fn read_before(&self, moment: Moment) -> Option<u64> {
        latest(&self.read, moment)
    }
}

/// Sorted by time, and each with the highest number up to then.
fn rising(mut numbers: Vec<(Moment, u64)>) -> Vec<(Moment, u64)> {
    numbers.sort_by_key(|(at, _)| *at);
    let mut highest = 0;
    for (_, number) in &mut numbers {
        highest = highest.max(*number);
        *number = highest;
    }
    numbers
}

fn latest(numbers: &[(Moment, u64)], moment: Moment) -> Option<u64> {
    let before = numbers.partition_point(|(at, _)| *at < moment);
    before.checked_sub(1).map(|last| numbers[last].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::history::Ending::{Acknowledged, Refused, Unknown};

    fn span(began: u64, ended: u64) -> Span {
        Span { began: Moment::from_millis(began), ended: Moment::from_millis(ended), node: 0 }
    }

    /// A history of writes (number, when it began and ended, ending), deletes among them by their number, and reads.
    fn history(
        writes: &[(u64, u64, u64, Ending)],
        deletes: &[u64],
        reads: &[(Option<u64>, u64, u64)],
    ) -> History {
        let write = |&(number, began, ended, ending): &(u64, u64, u64, Ending)| Write {
            numbers: number..=number,
            what: if deletes.contains(&number) { What::Delete } else { What::Store },
            ending,
            span: span(began, ended),
        };
        let read = |&(found, began, ended): &(Option<u64>, u64, u64)| Read {
            found: found.map_or(Found::Miss, Found::Value),
            span: span(began, ended),
        };
        History {
            key: "k".to_owned(),
            writes: writes.iter().map(write).collect(),
            reads: reads.iter().map(read).collect(),
            ..History::default()
        }
    }

    #[track_caller]
    fn legal(history: History) {
        assert_eq!(history.check(), Ok(()));
    }

    #[track_caller]
    fn broken(history: History, by: &str) {
        let said = history.check().expect_err("the rule was broken");
        assert!(said.contains(by), "{said}");
    }

    #[test]
    fn the_newest_value_and_a_miss_are_legal() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Acknowledged)];
        legal(history(&writes, &[], &[(Some(2), 4, 5), (None, 4, 5), (Some(2), 6, 7), (None, 8, 9)]));
    }

    #[test]
    fn an_overwritten_value_is_not() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Acknowledged)];
        broken(history(&writes, &[], &[(Some(1), 4, 5)]), "returned 1, though 2 was acknowledged");
        broken(
            history(&writes, &[], &[(None, 4, 5), (Some(1), 6, 7)]),
            "returned 1, though 2 was acknowledged",
        );
    }

    #[test]
    fn while_a_write_is_under_way_both_values_are_legal() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 9, Acknowledged)];
        legal(history(&writes, &[], &[(Some(1), 3, 4), (Some(2), 5, 6)]));
        // It began before the acknowledgement, and may have been answered by then.
        legal(history(&writes, &[], &[(Some(1), 8, 20)]));
    }

    #[test]
    fn what_was_read_once_is_not_followed_by_something_older() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 9, Unknown)];
        broken(
            history(&writes, &[], &[(Some(2), 3, 4), (Some(1), 5, 6)]),
            "returned 1, though 2 was read before",
        );
        legal(history(&writes, &[], &[(Some(2), 3, 6), (Some(1), 4, 5)]));
        // Each reader's reads are one after another, but not all readers' in the order of their ends.
        legal(history(&writes, &[], &[(Some(2), 3, 20), (Some(1), 4, 5), (Some(1), 6, 7)]));
    }

    #[test]
    fn a_write_that_failed_may_have_happened_or_not() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Unknown)];
        legal(history(&writes, &[], &[(Some(1), 4, 5), (Some(2), 6, 7)]));
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Unknown), (3, 4, 5, Acknowledged)];
        broken(history(&writes, &[], &[(Some(2), 6, 7)]), "returned 2, though 3 was acknowledged");
    }

    #[test]
    fn a_refused_write_must_not_be_seen() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Refused)];
        broken(history(&writes, &[], &[(Some(2), 4, 5)]), "returned 2, which nobody had written");
        legal(history(&writes, &[], &[(Some(1), 4, 5)]));
    }

    #[test]
    fn nothing_comes_before_it_was_written() {
        let writes = [(1, 10, 11, Acknowledged)];
        broken(history(&writes, &[], &[(Some(1), 5, 6)]), "which nobody had written");
        broken(history(&writes, &[], &[(Some(7), 20, 21)]), "which nobody had written");
        legal(history(&writes, &[], &[(Some(1), 5, 12)]));
    }

    #[test]
    fn a_deleted_value_does_not_come_back() {
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Acknowledged)];
        broken(history(&writes, &[2], &[(Some(1), 4, 5)]), "returned 1, though 2 was acknowledged");
        legal(history(&writes, &[2], &[(None, 4, 5)]));
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Acknowledged), (3, 4, 9, Unknown)];
        legal(history(&writes, &[2], &[(Some(3), 5, 6)]));
        let writes = [(1, 0, 1, Acknowledged), (2, 2, 3, Unknown)];
        legal(history(&writes, &[2], &[(Some(1), 4, 5)]));
        broken(history(&writes, &[2], &[(Some(2), 4, 5)]), "which nobody had written");
    }

    #[test]
    fn another_keys_value_and_an_error_are_wrong() {
        let mut history = history(&[(1, 0, 1, Acknowledged)], &[], &[]);
        history.reads.push(Read { found: Found::Wrong("SERVER_ERROR".to_owned()), span: span(2, 3) });
        broken(history, "said SERVER_ERROR");
    }

    /// A history in which the origin has had 1, 2 and 3, and 2 and 3 were deleted here. What was read was loaded.
    fn loaded(reads: &[(u64, u64, u64)]) -> History {
        let write = |(number, what, began, ended)| Write {
            numbers: number..=number,
            what,
            ending: Acknowledged,
            span: span(began, ended),
        };
        let writes = [
            (1, What::Offer, 0, 0),
            (2, What::Offer, 10, 10),
            (2, What::Delete, 11, 12),
            (3, What::Withdraw, 20, 20),
            (3, What::Delete, 21, 30),
            (4, What::Offer, 40, 40),
        ];
        let read = |&(number, began, ended)| Read { found: Found::Loaded(number), span: span(began, ended) };
        History {
            writes: writes.into_iter().map(write).collect(),
            reads: reads.iter().map(read).collect(),
            outlives: Some(Duration::from_millis(100)),
            ..History::default()
        }
    }

    #[test]
    fn a_loaded_value_is_one_that_the_origin_has_and_no_older_than_a_delete() {
        legal(loaded(&[(1, 1, 2), (1, 11, 15), (2, 11, 15), (2, 25, 40), (4, 35, 45)]));
        // What was shown and not stored may be followed by something older.
        legal(loaded(&[(2, 11, 11), (1, 12, 15)]));
        broken(loaded(&[(1, 13, 15)]), "returned 1, though 2 was acknowledged before");
        broken(loaded(&[(2, 31, 32)]), "returned 2, though 3 was acknowledged before");
        broken(loaded(&[(3, 25, 32)]), "returned 3, which nobody had written");
        broken(loaded(&[(4, 31, 32)]), "returned 4, which nobody had written");
    }

    #[test]
    fn a_loaded_value_is_not_shown_for_ever() {
        let mut history = loaded(&[]);
        history.writes.push(Write { numbers: 5..=5, ..history.writes[5].clone() });
        let read = |began| Read { found: Found::Loaded(4), span: span(began, began + 1) };
        history.reads.push(read(139));
        legal(history.clone());
        history.reads.push(read(141));
        broken(history.clone(), "returned 4, though 5 had been there for long");
        history.touched = 5;
        legal(history);
    }

    #[test]
    fn a_counters_writer_may_not_know_its_number() {
        let mut history = history(&[(10, 0, 1, Acknowledged)], &[], &[(Some(12), 9, 10)]);
        let unknown = |began, numbers| Write {
            numbers,
            what: What::Store,
            ending: Unknown,
            span: span(began, began + 1),
        };
        history.writes.push(unknown(2, 11..=11));
        history.writes.push(unknown(4, 11..=12));
        legal(history.clone());
        history.reads.push(Read { found: Found::Value(11), span: span(11, 12) });
        broken(history, "returned 11, though 12 was read before");
    }

    #[test]
    fn a_history_shows_everything_in_order() {
        let history = history(&[(1, 0, 1, Acknowledged)], &[], &[(Some(1), 3, 4)]);
        let shown = history.shown(&[(Moment::from_millis(2), "kill -9 node-1".to_owned())]);
        let order = ["set 1: Acknowledged", "kill -9 node-1", "read Value(1)"];
        let at = order.map(|text| shown.find(text).unwrap_or_else(|| panic!("{text} in {shown}")));
        assert!(at.is_sorted(), "{shown}");
    }
}
