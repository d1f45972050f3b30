//! `stats detail`: gets, hits, sets and deletes by the prefix of the key.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::command::{Command, Verb};

/// Prefixes that are told apart; keys of any further one are counted together, or a client
/// could fill the memory with names.
const PREFIXES_MAX: usize = 10_000;

/// What stands for the prefixes beyond the limit.
const OTHERS: &[u8] = b"(others)";

/// What is counted of one prefix.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was asked for, and found or not.
    Get {
        /// Whether it was found.
        hit: bool,
    },
    /// It was written.
    Set,
    /// It was deleted.
    Delete,
}

/// Counts by prefix, while that is turned on.
#[derive(Debug)]
pub struct Prefixes {
    enabled: AtomicBool,
    delimiter: u8,
    counts: Mutex<HashMap<Box<[u8]>, Counts>>,
}

impl Prefixes {
    /// Counts a command under its key's prefix, and whether it hit.
    pub fn count_command(&self, command: &Command<'_>, hit: bool) {
        match command.verb {
            Verb::Get(get) if get.touch.is_none() => self.count(command.key, Event::Get { hit }),
            Verb::Set(_) => self.count(command.key, Event::Set),
            Verb::Delete(_) => self.count(command.key, Event::Delete),
            _ => {}
        }
    }

    /// Off, or on when a delimiter was asked for (`-D`); `:` otherwise divides keys.
    pub fn new(delimiter: Option<u8>) -> Self {
        Self {
            enabled: AtomicBool::new(delimiter.is_some()),
            delimiter: delimiter.unwrap_or(b':'),
            counts: Mutex::default(),
        }
    }

    /// Whether anything is counted.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// `stats detail on`, `off`.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// What divides a prefix from the rest of its key.
    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// `stats reset`: forgets everything counted.
    pub fn clear(&self) {
        self.counts.lock().clear();
    }

    /// Counts an event; a key without a delimiter counts nowhere, as in memcached.
    #[cold]
    pub fn count(&self, key: &[u8], event: Event) {
        let Some(end) = memchr::memchr(self.delimiter, key) else { return };
        let mut counts = self.counts.lock();
        let prefix = &key[..end];
        let full = counts.len() >= PREFIXES_MAX && !counts.contains_key(prefix);
        let counts = counts.entry(if full { OTHERS } else { prefix }.into()).or_default();
        match event {
            Event::Get { hit } => {
                counts.gets += 1;
                counts.hits += u64::from(hit);
            }
            Event::Set => counts.sets += 1,
            Event::Delete => counts.deletes += 1,
        }
    }

    /// `stats detail dump`: a line for each prefix.
    pub fn dump(&self) -> Vec<u8> {
        let mut dump = Vec::new();
        for (prefix, counts) in self.counts.lock().iter() {
            let Counts { gets, hits, sets, deletes } = counts;
            dump.extend_from_slice(b"PREFIX ");
            dump.extend_from_slice(prefix);
            let mut numbers = String::new();
            // Writing to a String cannot fail.
            _ = write!(numbers, " get {gets} hit {hits} set {sets} del {deletes}\r\n");
            dump.extend_from_slice(numbers.as_bytes());
        }
        dump.extend_from_slice(b"END\r\n");
        dump
    }
}
