//! What `watch` shows: events told to the connections that asked for their kind, and to nobody
//! else. While nobody watches, asking costs one relaxed load.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Watchers at once (memcached logger.h, `WATCHER_LIMIT`).
const WATCHER_LIMIT: usize = 20;

/// Lines that wait for one watcher; further lines are counted and skipped.
const WATCHER_QUEUE: usize = 4096;

/// Kinds of events, as bits of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// `item_get`.
    pub const FETCHERS: Self = Self(1);
    /// `item_store`.
    pub const MUTATIONS: Self = Self(1 << 1);
    /// `eviction`.
    pub const EVICTIONS: Self = Self(1 << 2);
    /// `conn_new`, `conn_close`.
    pub const CONNEVENTS: Self = Self(1 << 3);
    /// `deleted`.
    pub const DELETIONS: Self = Self(1 << 4);
    /// Every command line as it came.
    pub const RAWCMDS: Self = Self(1 << 5);
    /// Sweeps.
    pub const SYSEVENTS: Self = Self(1 << 6);

    /// The kind of this name of the `watch` command.
    pub fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"fetchers" => Self::FETCHERS,
            b"mutations" => Self::MUTATIONS,
            b"evictions" => Self::EVICTIONS,
            b"connevents" => Self::CONNEVENTS,
            b"deletions" => Self::DELETIONS,
            b"rawcmds" => Self::RAWCMDS,
            b"sysevents" => Self::SYSEVENTS,
            // Known to memcached, and never sent without its proxy.
            b"proxyreqs" | b"proxyevents" | b"proxyuser" => Self::NONE,
            _ => return None,
        })
    }

    /// Both sets together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where events are told and watched; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Hub>);

#[derive(Debug, Default)]
struct Hub {
    /// The kinds that somebody watches.
    watched: AtomicU32,
    next_id: AtomicU64,
    watchers: Mutex<Vec<Watcher>>,
    sent: AtomicU64,
    skipped: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    kinds: Kinds,
    lines: mpsc::Sender<Bytes>,
    skipped: u64,
}

impl Events {
    /// Whether somebody watches this kind.
    #[inline]
    pub fn watched(&self, kind: Kinds) -> bool {
        self.0.watched.load(Ordering::Relaxed) & kind.0 != 0
    }

    /// Watches these kinds from now on, until the receiver is dropped; `None` when there are
    /// too many watchers.
    pub fn watch(&self, kinds: Kinds) -> Option<mpsc::Receiver<Bytes>> {
        let mut watchers = self.0.watchers.lock();
        watchers.retain(|watcher| !watcher.lines.is_closed());
        if watchers.len() >= WATCHER_LIMIT {
            return None;
        }
        let (lines, receiver) = mpsc::channel(WATCHER_QUEUE);
        watchers.push(Watcher { kinds, lines, skipped: 0 });
        self.refresh(&watchers);
        Some(receiver)
    }

    /// Tells the watchers of `kind`; `describe` writes what follows `gid=`. Call only after
    /// [`Events::watched`] said yes.
    #[cold]
    pub fn tell(&self, kind: Kinds, describe: impl FnOnce(&mut String)) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut line = format!("ts={}.{} gid={id} ", since.as_secs(), since.subsec_micros());
        describe(&mut line);
        line.push('\n');
        let line = Bytes::from(line);

        let mut watchers = self.0.watchers.lock();
        let mut gone = false;
        for watcher in watchers.iter_mut().filter(|watcher| watcher.kinds.0 & kind.0 != 0) {
            if watcher.skipped > 0
                && watcher.lines.try_send(format!("skipped={}\n", watcher.skipped).into()).is_ok()
            {
                watcher.skipped = 0;
            }
            match watcher.lines.try_send(line.clone()) {
                Ok(()) => _ = self.0.sent.fetch_add(1, Ordering::Relaxed),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.skipped += 1;
                    self.0.skipped.fetch_add(1, Ordering::Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => gone = true,
            }
        }
        if gone {
            watchers.retain(|watcher| !watcher.lines.is_closed());
            self.refresh(&watchers);
        }
    }

    /// Watchers there are.
    pub fn watchers(&self) -> usize {
        self.0.watchers.lock().iter().filter(|watcher| !watcher.lines.is_closed()).count()
    }

    /// Lines sent to watchers, and lines skipped because a watcher was slow.
    pub fn sent_and_skipped(&self) -> (u64, u64) {
        (self.0.sent.load(Ordering::Relaxed), self.0.skipped.load(Ordering::Relaxed))
    }

    fn refresh(&self, watchers: &[Watcher]) {
        let kinds = watchers.iter().fold(Kinds::NONE, |all, watcher| all.with(watcher.kinds));
        self.0.watched.store(kinds.0, Ordering::Relaxed);
    }
}

/// Writes `key` as memcached shows keys in dumps and events: anything but unreserved
/// characters as `%XX` (util.c, `uriencode`).
pub fn write_uri_encoded(line: &mut String, key: &[u8]) {
    for &byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            line.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            _ = write!(line, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_watcher_is_told_how_much_it_missed() {
        let events = Events::default();
        assert!(!events.watched(Kinds::FETCHERS));
        let mut lines = events.watch(Kinds::FETCHERS).unwrap();
        assert!(events.watched(Kinds::FETCHERS) && !events.watched(Kinds::EVICTIONS));
        for _ in 0..WATCHER_QUEUE + 5 {
            events.tell(Kinds::FETCHERS, |line| line.push_str("type=item_get"));
        }
        while lines.try_recv().is_ok() {}
        events.tell(Kinds::FETCHERS, |line| line.push_str("type=item_get"));
        assert_eq!(lines.try_recv().unwrap(), "skipped=5\n");
        drop(lines);
        events.tell(Kinds::FETCHERS, |_| ());
        assert!(!events.watched(Kinds::FETCHERS), "a gone watcher costs nothing");
    }

    #[test]
    fn keys_are_uri_encoded() {
        let mut line = String::new();
        write_uri_encoded(&mut line, b"a b/\xff-_.~");
        assert_eq!(line, "a%20b%2F%FF-_.~");
    }
}
