//! What is wrong with what clients saw, beyond the rule that a history itself checks.

use crate::simulation::world::Flush;
use crate::support::history::{Ending, Found, History, Read, What, Write};

/// Everything that is wrong with one key.
pub fn of(history: &History, lineages: &[&Vec<u64>], flushes: &[Flush]) -> Vec<String> {
    let mut wrong: Vec<String> = history.check().err().into_iter().collect();
    wrong.extend(late(history));
    let flushes = flushes.iter().filter(|flush| history.key.starts_with(&flush.prefix));
    wrong.extend(flushes.filter_map(|flush| unflushed(history, flush)));
    wrong.extend(lineages.iter().filter_map(|numbers| misgrown(history, numbers)));
    wrong
}

/// The reads of one key.
pub fn reads_of(reads: &[(usize, Read)], key: usize, history: &mut History) {
    let reads = reads.iter().filter(|(of, _)| *of == key);
    history.reads.extend(reads.map(|(_, read)| read.clone()));
    history.reads.sort_by_key(|read| read.span.began);
}

/// A write that failed, had not happened when that was said, and happened later: somebody read an older value in
/// between.
fn late(history: &History) -> Option<String> {
    history
        .writes
        .iter()
        .filter(|write| write.ending == Ending::Unknown && write.what == What::Store)
        .find_map(|write| {
            let number = *write.numbers.start();
            let is =
                |found: &Found, test: &dyn Fn(u64) -> bool| matches!(found, Found::Value(of) if test(*of));
            let mut after = history.reads.iter().filter(|read| read.span.began > write.span.ended);
            let older = after.find(|read| is(&read.found, &|of| of < number))?;
            // Of a counter, the same number may be another one's.
            let read = (write.numbers.start() == write.numbers.end())
                .then(|| history.reads.iter().find(|read| is(&read.found, &|of| of == number)))??;
            let may_have = |other: &&Write| other.what == What::Store && other.numbers.contains(&number);
            let only = history.writes.iter().filter(may_have).count() == 1;
            only.then(|| {
                format!(
                    "{}: {number} had failed at {:.3}, was not there at {:.3}, and was read at {:.3}",
                    history.key,
                    write.span.ended.as_secs_f64(),
                    older.span.began.as_secs_f64(),
                    read.span.began.as_secs_f64(),
                )
            })
        })
}

/// A value of before a flush that was read when the flush was confirmed. One of the origin is of before when it had another
/// one by then.
fn unflushed(history: &History, flush: &Flush) -> Option<String> {
    let was_before = |write: &Write| write.span.ended < flush.began;
    history.reads.iter().filter(|read| read.span.began > flush.confirmed).find_map(|read| {
        let mut writes = history.writes.iter();
        let (number, is_old) = match read.found {
            Found::Value(number) => {
                let may_have = |write: &&Write| write.what == What::Store && write.numbers.contains(&number);
                (number, writes.filter(may_have).all(was_before))
            }
            Found::Loaded(number) => {
                let is_next = |write: &&Write| {
                    matches!(write.what, What::Offer | What::Withdraw) && *write.numbers.start() > number
                };
                (number, writes.find(is_next).is_some_and(was_before))
            }
            Found::Miss | Found::Wrong(_) => return None,
        };
        is_old.then(|| {
            let at = read.span.began.as_secs_f64();
            format!("{}: {number} was read at {at:.3}, after {flush:?}", history.key)
        })
    })
}

/// A value that was set and appended to, in which something is twice or missing.
fn misgrown(history: &History, numbers: &[u64]) -> Option<String> {
    let (first, last) = (numbers.first()?, numbers.last()?);
    let is_sorted = numbers.is_sorted_by(|one, next| one < next);
    let missing = history.writes.iter().find(|write| {
        let number = write.numbers.start();
        write.ending == Ending::Acknowledged && first < number && number < last && !numbers.contains(number)
    });
    let refused = history
        .writes
        .iter()
        .find(|write| write.ending == Ending::Refused && numbers.contains(write.numbers.start()));
    (!is_sorted || missing.is_some() || refused.is_some())
        .then(|| format!("{}: {numbers:?} was read, missing {missing:?}, refused {refused:?}", history.key))
}
