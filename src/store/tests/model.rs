//! What a store of one node should do, written as plainly as it can be: a map, and the rules.

use std::collections::BTreeMap;

use crate::clock::Seconds;
use crate::command::{Arithmetic, Delete, Failure, Found, Get, Outcome, Set, SetMode, Verb};
use crate::item::{Exptime, ItemView, item_size};
use crate::store::tests::{SET, UNIX_START};

/// Stands for a token that the store draws; the test puts the drawn one in its place.
pub(super) const DRAWN: u64 = u64::MAX;

/// An item, and what an outcome shows of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    pub(super) flags: u32,
    pub(super) cas: u64,
    /// `None` is never.
    ends: Option<Seconds>,
    used: Seconds,
    fetched: bool,
    binary: bool,
    stale: bool,
    win_sent: bool,
}

/// An [`ItemView`] to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) value: Vec<u8>,
    pub(super) flags: u32,
    pub(super) cas: u64,
    pub(super) ttl: Option<u32>,
    pub(super) idle: u32,
    pub(super) fetched: bool,
    pub(super) binary: bool,
}

impl From<ItemView<'_>> for View {
    fn from(item: ItemView<'_>) -> Self {
        Self {
            value: item.value.to_vec(),
            flags: item.flags,
            cas: item.cas,
            ttl: item.ttl_seconds,
            idle: item.idle_seconds,
            fetched: item.fetched,
            binary: item.key_binary,
        }
    }
}

/// An [`Outcome`] to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Found { item: View, won: bool, stale: bool, win_sent: bool, created: bool, ttl_before: Option<u32> },
    Stored(View),
    NotFound,
    NotStored,
    Exists,
    Deleted,
    Failed(Failure),
}

impl From<Outcome<'_>> for Seen {
    fn from(outcome: Outcome<'_>) -> Self {
        match outcome {
            Outcome::Found(Found { item, won, stale, win_sent, created, ttl_before }) => {
                Self::Found { item: item.into(), won, stale, win_sent, created, ttl_before }
            }
            Outcome::Stored(item) => Self::Stored(item.into()),
            Outcome::NotFound => Self::NotFound,
            Outcome::NotStored => Self::NotStored,
            Outcome::Exists => Self::Exists,
            Outcome::Deleted => Self::Deleted,
            Outcome::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl Seen {
    /// The token that it shows.
    pub(super) fn cas(&mut self) -> Option<&mut u64> {
        match self {
            Self::Found { item, .. } | Self::Stored(item) => Some(&mut item.cas),
            _ => None,
        }
    }
}

/// The model. Its clock is moved by whoever drives it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Seconds,
    /// What the clock shows at [`UNIX_START`].
    start: Seconds,
    item_size_max: usize,
    pub(super) items: BTreeMap<Vec<u8>, Item>,
    flush_at: Option<Seconds>,
}

impl Model {
    pub(super) fn new(now: Seconds, item_size_max: usize) -> Self {
        Self { now, start: now, item_size_max, ..Self::default() }
    }

    /// Seconds as the store counts them: 1 for what is past, `None` for never.
    fn ends(&self, exptime: Exptime) -> Option<Seconds> {
        match exptime {
            Exptime::Never => None,
            Exptime::In(seconds) => Some(self.now + seconds),
            Exptime::At(unix) if unix < UNIX_START => Some(1),
            Exptime::At(unix) => Some(self.start + (unix - UNIX_START) as u32),
        }
    }

    /// Lets go of what has ended.
    fn pass(&mut self) {
        let now = self.now;
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.items.clear();
        }
        self.items.retain(|_, item| item.ends.is_none_or(|ends| ends > now));
    }

    fn view(&self, item: &Item) -> View {
        View {
            value: item.value.clone(),
            flags: item.flags,
            cas: item.cas,
            ttl: item.ends.map(|ends| ends.saturating_sub(self.now)),
            idle: self.now - item.used,
            fetched: item.fetched,
            binary: item.binary,
        }
    }

    fn found(&self, item: &Item, won: bool, ttl_before: Option<u32>) -> Seen {
        let Item { stale, win_sent, .. } = *item;
        Seen::Found { item: self.view(item), won, stale, win_sent, created: false, ttl_before }
    }

    /// An item as it is shown to who made it.
    fn made(&self, item: &Item, won: bool, ends_before: Option<Seconds>) -> Seen {
        let item = self.view(item);
        let ttl_before = ends_before.map(|ends| ends.saturating_sub(self.now));
        Seen::Found { item, won, stale: false, win_sent: false, created: true, ttl_before }
    }

    /// When an item ends that is made with these, and when it did before the second was looked at.
    fn ends_made(
        &self,
        vivify: Exptime,
        touch: Option<Exptime>,
        touch_last: bool,
    ) -> (Option<Seconds>, Option<Seconds>) {
        let vivify = self.ends(vivify);
        let Some(touch) = touch.map(|touch| self.ends(touch)) else { return (vivify, None) };
        if touch_last { (touch, vivify) } else { (vivify, touch) }
    }

    pub(super) fn flush(&mut self, delay: Exptime) {
        self.pass();
        match self.ends(delay).filter(|&at| at > self.now) {
            None => {
                self.flush_at = None;
                self.items.clear();
            }
            at => self.flush_at = at,
        }
    }

    pub(super) fn run(&mut self, key: &[u8], binary: bool, verb: &Verb<'_>) -> Seen {
        self.pass();
        match verb {
            Verb::Get(get) => self.get(key, binary, get),
            Verb::Set(set) => self.set(key, binary, set),
            Verb::Delete(delete) => self.delete(key, delete),
            Verb::Arithmetic(sum) => self.arithmetic(key, binary, sum),
            Verb::Inspect => match self.items.get(key) {
                Some(item) => self.found(item, false, None),
                None => Seen::NotFound,
            },
        }
    }

    fn create(&mut self, key: &[u8], binary: bool, set: &Set<'_>, ends: Option<Seconds>) -> Seen {
        let item = Item {
            value: set.value.to_vec(),
            flags: set.flags,
            cas: set.new_cas.unwrap_or(DRAWN),
            ends,
            used: self.now,
            fetched: false,
            binary,
            stale: false,
            win_sent: false,
        };
        let seen = Seen::Stored(self.view(&item));
        self.items.insert(key.to_vec(), item);
        seen
    }

    fn get(&mut self, key: &[u8], binary: bool, get: &Get) -> Seen {
        let Some(mut item) = self.items.get(key).cloned() else {
            let Some(vivify) = get.vivify else { return Seen::NotFound };
            let (ends, before) = self.ends_made(vivify, get.touch, get.touch_last);
            self.create(key, binary, &Set { new_cas: get.new_cas, ..SET }, ends);
            let seen = self.made(&self.items[key], true, before);
            // Who made it has asked for it, and is the one to fill it.
            self.items.entry(key.to_vec()).and_modify(|item| {
                item.win_sent = true;
                item.fetched = get.bump;
            });
            return seen;
        };
        let before = item.ends;
        if let Some(touch) = get.touch {
            item.ends = self.ends(touch);
        }
        let judged = if get.recache_first { before } else { item.ends };
        let limit = get.recache.and_then(|limit| self.ends(limit));
        let ends_soon = judged.zip(limit).is_some_and(|(ends, limit)| ends < limit);
        // One client wins: the first to see it stale, or near its end.
        let won = get.wins && !item.win_sent && (item.stale || ends_soon);
        let seen = self.found(&item, won, before.map(|ends| ends - self.now));
        item.win_sent |= won;
        if get.bump {
            item.fetched = true;
            item.used = self.now;
        }
        self.items.insert(key.to_vec(), item);
        seen
    }

    fn set(&mut self, key: &[u8], binary: bool, set: &Set<'_>) -> Seen {
        let ends = self.ends(set.exptime);
        if item_size(key.len(), set.value.len(), set.flags) > self.item_size_max {
            if set.mode == SetMode::Set {
                self.items.remove(key);
            }
            return Seen::Failed(Failure::TooLarge);
        }
        let adds_to = matches!(set.mode, SetMode::Append | SetMode::Prepend);
        let compares = set.compare.is_some() && matches!(set.mode, SetMode::Set | SetMode::Replace);
        let Some(old) = self.items.get_mut(key) else {
            return match (set.mode, set.vivify) {
                _ if compares => Seen::NotFound,
                (SetMode::Set | SetMode::Add, _) => self.create(key, binary, set, ends),
                (SetMode::Append | SetMode::Prepend, Some(vivify)) => {
                    let ends = self.ends(vivify);
                    self.create(key, binary, set, ends)
                }
                _ => Seen::NotStored,
            };
        };
        // Every write looks at the item, though it may not come to pass.
        old.used = self.now;
        let compare = set.compare.unwrap_or(0);
        let mut item = Item { binary, fetched: false, stale: false, win_sent: false, ..old.clone() };
        if compares && (compare == 0 || compare != old.cas) {
            let older = compare != 0 && compare < old.cas;
            if !(set.invalidate && older) {
                return Seen::Exists;
            }
            item.stale = true;
            item.win_sent = old.win_sent;
        } else if !adds_to {
            item.ends = ends;
        }
        match set.mode {
            SetMode::Add => return Seen::NotStored,
            SetMode::Set | SetMode::Replace => {
                item.value = set.value.to_vec();
                item.flags = set.flags;
            }
            SetMode::Append | SetMode::Prepend => {
                if compare != 0 && compare != old.cas {
                    return Seen::Exists;
                }
                if set.mode == SetMode::Append {
                    item.value.extend_from_slice(set.value);
                } else {
                    item.value.splice(0..0, set.value.iter().copied());
                }
                if item_size(key.len(), item.value.len(), item.flags) > self.item_size_max {
                    return Seen::NotStored;
                }
            }
        }
        item.cas = set.new_cas.unwrap_or(DRAWN);
        let seen = Seen::Stored(self.view(&item));
        self.items.insert(key.to_vec(), item);
        seen
    }

    fn delete(&mut self, key: &[u8], delete: &Delete) -> Seen {
        let touch = delete.touch.map(|touch| self.ends(touch));
        let Some(item) = self.items.get_mut(key) else { return Seen::NotFound };
        if delete.compare.is_some_and(|compare| compare != item.cas) {
            return Seen::Exists;
        }
        if !delete.clear && !delete.invalidate {
            self.items.remove(key);
            return Seen::Deleted;
        }
        if delete.clear {
            (item.value, item.flags, item.ends) = (Vec::new(), 0, None);
            (item.fetched, item.stale, item.win_sent) = (false, false, false);
        }
        if delete.invalidate {
            (item.stale, item.win_sent) = (true, false);
        }
        if let Some(ends) = touch {
            item.ends = ends;
        }
        item.cas = delete.new_cas.unwrap_or(DRAWN);
        Seen::Deleted
    }

    fn arithmetic(&mut self, key: &[u8], binary: bool, sum: &Arithmetic) -> Seen {
        let Some(mut item) = self.items.get(key).cloned() else {
            let Some(vivify) = sum.vivify else { return Seen::NotFound };
            let initial = sum.initial.to_string();
            let (ends, before) = self.ends_made(vivify, sum.touch, sum.touch_last);
            let set = Set { value: initial.as_bytes(), new_cas: sum.new_cas, ..SET };
            self.create(key, binary, &set, ends);
            return self.made(&self.items[key], false, before);
        };
        // The token is looked at first, but an empty value is no number to any token.
        let compared = sum.compare.is_none_or(|compare| compare == 0 || compare == item.cas);
        if !compared && !item.value.is_empty() {
            return Seen::Exists;
        }
        let text = String::from_utf8_lossy(&item.value).into_owned();
        let Some(Ok(number)) = text.split_ascii_whitespace().next().map(str::parse::<u64>) else {
            return Seen::Failed(Failure::NonNumeric);
        };
        let number =
            if sum.decrement { number.saturating_sub(sum.delta) } else { number.wrapping_add(sum.delta) };
        let before = item.ends.map(|ends| ends - self.now);
        if let Some(touch) = sum.touch {
            item.ends = self.ends(touch);
        }
        item.cas = sum.new_cas.unwrap_or(DRAWN);
        item.used = self.now;
        // The answer has the digits alone; what is kept does not become shorter.
        item.value = number.to_string().into_bytes();
        let seen = self.found(&Item { stale: false, win_sent: false, ..item.clone() }, false, before);
        item.value.resize(item.value.len().max(text.len()), b' ');
        self.items.insert(key.to_vec(), item);
        seen
    }
}
