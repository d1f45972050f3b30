//! One shard: a table of items in the order of their last use, and every operation on one of them.

mod whole;

use lru::LruCache;

use crate::clock::Seconds;
use crate::command::{Arithmetic, Delete, Failure, Found, Get, Made, Outcome, Set, SetMode};
use crate::item::item_size;
use crate::stats::Counter;
use crate::store::entry::{Dead, FETCHED, Item, KEY_BINARY, MARKS, STALE, WIN_SENT};
use crate::store::key::{Key, KeyHash, Lookup, Sought};
use crate::store::meter;
use crate::store::number::{self, Decimal};
use crate::store::tell::{tell_deletion, tell_get, tell_refused, tell_stored};
use crate::store::{Caller, Context, Shared};

/// One shard of the store.
pub(super) struct Shard {
    items: LruCache<Key, Item, KeyHash>,
    /// No item ends before this; [`Seconds::MAX`] when none ends. A bound, not a minimum: an
    /// item that was touched or removed leaves it as it was until the next sweep.
    next_expiry: Seconds,
    /// Bytes that this shard's items and table take.
    used: i64,
    /// Most items at once since the table was last fitted to them.
    most: usize,
}

impl Shard {
    pub(super) fn new(hash: KeyHash) -> Self {
        let before = meter::balance();
        let items = LruCache::unbounded_with_hasher(hash);
        Self { items, next_expiry: Seconds::MAX, used: meter::balance() - before, most: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn used(&self) -> i64 {
        self.used
    }

    pub(super) fn next_expiry(&self) -> Seconds {
        self.next_expiry
    }

    /// Runs `change` and counts the memory it took or gave back.
    fn metered<R>(&mut self, change: impl FnOnce(&mut Self) -> R) -> R {
        let before = meter::balance();
        let result = change(self);
        self.used += meter::balance() - before;
        result
    }

    /// Drops an item that was found dead.
    fn bury(&mut self, cx: &Context<'_>, key: &Lookup<'_>, why: Dead) {
        let item = self.metered(|shard| {
            let item = shard.items.pop(key as &dyn Sought)?;
            Some((why == Dead::Expired && !item.is(FETCHED)) as u64)
        });
        cx.counters.add(Counter::ExpiredUnfetched, item.unwrap_or(0));
    }

    /// The live item under `key`, moved to the front of the LRU; a dead one is dropped.
    fn live(&mut self, cx: &Context<'_>, shared: &Shared, key: &Lookup<'_>) -> Option<&mut Item> {
        let found = self.items.peek(key as &dyn Sought);
        let dead = found.and_then(|item| item.dead(cx));
        let status = found.map_or("not_found", |_| dead.map_or("found", Dead::name));
        tell_get(cx, shared, key.bytes, status, found.map_or(0, |item| item.value.len()));
        if let Some(why) = dead {
            self.bury(cx, key, why);
            return None;
        }
        self.items.get_mut(key as &dyn Sought)
    }

    fn note_expiry(&mut self, exptime: Seconds) {
        if exptime != 0 {
            self.next_expiry = self.next_expiry.min(exptime);
        }
    }

    /// Puts a new item in; there must be none of this key.
    fn insert(&mut self, cx: &Context<'_>, key: &Lookup<'_>, mut item: Item, key_binary: bool) {
        if key_binary {
            item.stamp |= KEY_BINARY;
        }
        self.note_expiry(item.exptime);
        cx.counters.bump(Counter::TotalItems);
        self.items.push(Key::new(key.bytes), item);
        self.most = self.most.max(self.items.len());
    }

    pub(super) fn get<R>(
        &mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &Lookup<'_>,
        key_binary: bool,
        get: &Get,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        let (requests, hits, misses) = match get.touch {
            None => (Counter::CmdGet, Counter::GetHits, Counter::GetMisses),
            Some(_) => (Counter::CmdTouch, Counter::TouchHits, Counter::TouchMisses),
        };
        cx.counters.bump(requests);

        let dead = match self.items.peek_mut(key as &dyn Sought) {
            None => None,
            Some(item) => match item.dead(cx) {
                Some(why) => Some(why),
                None => {
                    cx.counters.bump(hits);
                    tell_get(cx, shared, key.bytes, "found", item.value.len());
                    let result = reply(Outcome::Found(item.hit(cx, shared, key.bytes, get)));
                    let exptime = item.exptime;
                    if get.bump {
                        item.stamp |= FETCHED;
                        // Once a second is often enough to keep the order, and saves hot keys
                        // the walk to their neighbours in the list.
                        if item.accessed != cx.now {
                            item.accessed = cx.now;
                            self.items.promote(key as &dyn Sought);
                        }
                    }
                    if get.touch.is_some() {
                        self.note_expiry(exptime);
                    }
                    return result;
                }
            },
        };
        if let Some(why) = dead {
            cx.counters.bump(if why == Dead::Expired { Counter::GetExpired } else { Counter::GetFlushed });
            self.bury(cx, key, why);
        }
        cx.counters.bump(misses);
        tell_get(cx, shared, key.bytes, dead.map_or("not_found", Dead::name), 0);
        match Made::new(get.vivify, get.touch, get.touch_last) {
            None => reply(Outcome::NotFound),
            Some(made) => self.vivify(cx, shared, key, key_binary, get, made, reply),
        }
    }

    /// A miss that creates the item: its reader wins the refill.
    #[expect(clippy::too_many_arguments, reason = "one caller, and a struct would only rename them")]
    fn vivify<R>(
        &mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &Lookup<'_>,
        key_binary: bool,
        get: &Get,
        made: Made,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        if self.refuse_for_memory(cx, shared, key.bytes.len()) {
            cx.counters.bump(Counter::StoreNoMemory);
            return reply(Outcome::Failed(Failure::OutOfMemory));
        }
        let item = Item {
            value: Box::default(),
            cas: shared.new_cas(get.new_cas),
            flags: 0,
            exptime: shared.clock.deadline(made.ends, cx.now),
            accessed: cx.now,
            stamp: cx.stamp | WIN_SENT | if get.bump { FETCHED } else { 0 },
        };
        let mut view = item.view(key.bytes, cx.now);
        view.key_binary = key_binary;
        view.fetched = false;
        let ttl_before = shared.ttl_before(made, cx.now);
        let found = Found { item: view, won: true, stale: false, win_sent: false, created: true, ttl_before };
        let result = reply(Outcome::Found(found));
        self.metered(|shard| shard.insert(cx, key, item, key_binary));
        result
    }

    pub(super) fn set<R>(
        &mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &Lookup<'_>,
        key_binary: bool,
        set: &Set<'_>,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        cx.counters.bump(Counter::CmdSet);
        let outcome = match self.try_set(cx, shared, key, key_binary, set) {
            Ok(stored) => {
                cx.counters.add(Counter::Stored, u64::from(!is_cas(set)));
                tell_stored(cx, shared, key.bytes, set.name(), (stored.exptime, stored.value.len()));
                Outcome::Stored(stored.view(key.bytes, cx.now))
            }
            Err(outcome) => {
                if matches!(outcome, Outcome::NotStored | Outcome::Exists) {
                    cx.counters.add(Counter::NotStored, u64::from(!is_cas(set)));
                }
                tell_refused(cx, shared, key.bytes, &outcome, set);
                outcome
            }
        };
        reply(outcome)
    }

    /// Stores, or says why not.
    fn try_set(
        &mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &Lookup<'_>,
        key_binary: bool,
        set: &Set<'_>,
    ) -> Result<&Item, Outcome<'static>> {
        if item_size(key.bytes.len(), set.value.len(), set.flags) > shared.item_size_max() {
            cx.counters.bump(Counter::StoreTooLarge);
            self.drop_unstored(key, set.mode);
            return Err(Outcome::Failed(Failure::TooLarge));
        }
        if self.refuse_for_memory(cx, shared, key.bytes.len() + set.value.len()) {
            cx.counters.bump(Counter::StoreNoMemory);
            self.drop_unstored(key, set.mode);
            return Err(Outcome::Failed(Failure::OutOfMemory));
        }
        let exptime = shared.clock.deadline(set.exptime, cx.now);
        let is_cas = is_cas(set);

        let Some(old) = self.live(cx, shared, key) else {
            if is_cas {
                cx.counters.bump(Counter::CasMisses);
                return Err(Outcome::NotFound);
            }
            let exptime = match (set.mode, set.vivify) {
                (SetMode::Set | SetMode::Add, _) => exptime,
                (SetMode::Append | SetMode::Prepend, Some(vivify)) => shared.clock.deadline(vivify, cx.now),
                _ => return Err(Outcome::NotStored),
            };
            let item = |cas| Item {
                value: set.value.into(),
                cas,
                flags: set.flags,
                exptime,
                accessed: cx.now,
                stamp: cx.stamp,
            };
            self.metered(|shard| shard.insert(cx, key, item(shared.new_cas(set.new_cas)), key_binary));
            // It was put there in the line above.
            return self.items.peek_mru().map(|(_, item)| item).ok_or(Outcome::NotStored);
        };
        let before = meter::balance();
        old.accessed = cx.now;

        // What needed the old item is made out of it, and dies with it: whoever makes the old one
        // dead at this moment must not find it carried over.
        let generation = if is_cas || set.mode != SetMode::Set { old.stamp & !MARKS } else { cx.stamp };
        let mut stamp = generation | if key_binary { KEY_BINARY } else { 0 };
        let mut exptime = exptime;
        if is_cas {
            let compare = set.compare.unwrap_or(0);
            if compare == 0 || compare != old.cas {
                if !(set.invalidate && compare != 0 && compare < old.cas) {
                    cx.counters.bump(Counter::CasBadval);
                    return Err(Outcome::Exists);
                }
                // An older token with I: the value is taken, but as a stale one.
                exptime = old.exptime;
                stamp |= STALE | old.stamp & WIN_SENT;
            }
            cx.counters.bump(Counter::CasHits);
        }
        match set.mode {
            SetMode::Add => return Err(Outcome::NotStored),
            SetMode::Set | SetMode::Replace => {
                old.replace_value(set.value);
                old.flags = set.flags;
                old.exptime = exptime;
            }
            SetMode::Append | SetMode::Prepend => {
                if set.compare.is_some_and(|compare| compare != 0 && compare != old.cas) {
                    return Err(Outcome::Exists);
                }
                let len = old.value.len() + set.value.len();
                if item_size(key.bytes.len(), len, old.flags) > shared.item_size_max() {
                    return Err(Outcome::NotStored);
                }
                old.value = if set.mode == SetMode::Append {
                    [&*old.value, set.value].concat().into()
                } else {
                    [set.value, &*old.value].concat().into()
                };
                exptime = old.exptime;
            }
        }
        old.stamp = stamp;
        old.cas = shared.new_cas(set.new_cas);
        cx.counters.bump(Counter::TotalItems);
        self.used += meter::balance() - before;
        self.note_expiry(exptime);
        self.items.peek_mru().map(|(_, item)| item).ok_or(Outcome::NotStored)
    }

    /// A `set` that could not be stored drops the old value, or it would be served for ever as
    /// if it were the last one written (proto_text.c, process_update_command).
    pub(super) fn drop_unstored(&mut self, key: &Lookup<'_>, mode: SetMode) {
        if mode == SetMode::Set {
            // Dropped within the meter, not behind it.
            self.metered(|shard| drop(shard.items.pop(key as &dyn Sought)));
        }
    }

    pub(super) fn delete<R>(
        &mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &Lookup<'_>,
        delete: &Delete,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        let Some(item) = self.live(cx, shared, key) else {
            cx.counters.bump(Counter::DeleteMisses);
            return reply(Outcome::NotFound);
        };
        let before = meter::balance();
        if delete.compare.is_some_and(|compare| compare != item.cas) {
            cx.counters.bump(Counter::DeleteMisses);
            return reply(Outcome::Exists);
        }
        let len = if delete.clear { 0 } else { item.value.len() };
        let touch = delete.touch.map(|touch| shared.clock.deadline(touch, cx.now));
        if delete.clear {
            item.value = Box::default();
            item.flags = 0;
            item.exptime = touch.unwrap_or(0);
            item.stamp &= !MARKS | KEY_BINARY;
            item.cas = shared.new_cas(delete.new_cas);
        }
        if delete.invalidate {
            if let Some(exptime) = touch {
                item.exptime = exptime;
            }
            item.stamp = item.stamp & !WIN_SENT | STALE;
            item.cas = shared.new_cas(delete.new_cas);
        } else if !delete.clear {
            self.items.pop(key as &dyn Sought);
        }
        self.used += meter::balance() - before;
        self.note_expiry(touch.unwrap_or(0));
        // Behind the meter: an event's line is no item's memory.
        if delete.clear {
            tell_stored(cx, shared, key.bytes, Set::PLAIN.name(), (touch.unwrap_or(0), 0));
        }
        if !delete.invalidate {
            cx.counters.bump(Counter::DeleteHits);
            tell_deletion(shared, key.bytes, delete, len);
        }
        reply(Outcome::Deleted)
    }

    pub(super) fn arithmetic<R>(
        &mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &Lookup<'_>,
        key_binary: bool,
        sum: &Arithmetic,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        let (hits, misses) = if sum.decrement {
            (Counter::DecrHits, Counter::DecrMisses)
        } else {
            (Counter::IncrHits, Counter::IncrMisses)
        };
        let Some(item) = self.live(cx, shared, key) else {
            let Some(made) = Made::new(sum.vivify, sum.touch, sum.touch_last) else {
                cx.counters.bump(misses);
                return reply(Outcome::NotFound);
            };
            let initial = Decimal::new(sum.initial);
            let set = Set {
                mode: SetMode::Add,
                value: initial.as_bytes(),
                flags: 0,
                exptime: made.ends,
                compare: None,
                new_cas: sum.new_cas,
                invalidate: false,
                vivify: None,
            };
            let outcome = match self.try_set(cx, shared, key, key_binary, &set) {
                Ok(item) => {
                    tell_stored(cx, shared, key.bytes, set.name(), (item.exptime, item.value.len()));
                    let ttl_before = shared.ttl_before(made, cx.now);
                    let found = Found::plain(item.view(key.bytes, cx.now), ttl_before);
                    Outcome::Found(Found { created: true, ..found })
                }
                Err(outcome) => {
                    tell_refused(cx, shared, key.bytes, &outcome, &set);
                    outcome
                }
            };
            return reply(outcome);
        };
        let before = meter::balance();
        let compared = sum.compare.is_none_or(|compare| compare == 0 || compare == item.cas);
        if !compared && !item.value.is_empty() {
            return reply(Outcome::Exists);
        }
        let Some(number) = number::parse(&item.value) else {
            return reply(Outcome::Failed(Failure::NonNumeric));
        };
        let number =
            if sum.decrement { number.saturating_sub(sum.delta) } else { number.wrapping_add(sum.delta) };
        let decimal = Decimal::new(number);
        let digits = decimal.as_bytes();
        // A shorter result keeps the old length, filled up with spaces, as memcached's does.
        if digits.len() <= item.value.len() {
            let (front, rest) = item.value.split_at_mut(digits.len());
            front.copy_from_slice(digits);
            rest.fill(b' ');
        } else {
            item.value = digits.into();
        }
        let ttl_before = (item.exptime != 0).then(|| item.exptime.saturating_sub(cx.now));
        if let Some(touch) = sum.touch {
            item.exptime = shared.clock.deadline(touch, cx.now);
        }
        item.cas = shared.new_cas(sum.new_cas);
        item.accessed = cx.now;
        cx.counters.bump(hits);
        let (exptime, grown) = (item.exptime, meter::balance() - before);
        let mut view = item.view(key.bytes, cx.now);
        (view.value, view.value_len) = (digits, digits.len());
        let result = reply(Outcome::Found(Found::plain(view, ttl_before)));
        self.used += grown;
        self.note_expiry(exptime);
        result
    }

    /// `me`: looks, and touches nothing.
    pub(super) fn inspect<R>(
        &mut self,
        cx: &Context<'_>,
        key: &Lookup<'_>,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        match self.items.peek(key as &dyn Sought) {
            Some(item) if item.dead(cx).is_none() => {
                let found = Found {
                    item: item.view(key.bytes, cx.now),
                    won: false,
                    stale: item.is(STALE),
                    win_sent: item.is(WIN_SENT),
                    created: false,
                    ttl_before: None,
                };
                reply(Outcome::Found(found))
            }
            _ => reply(Outcome::NotFound),
        }
    }

    /// Whether a cache that may not evict has no room for this many more bytes, even after
    /// dropping what is dead here.
    #[inline]
    fn refuse_for_memory(&mut self, cx: &Context<'_>, shared: &Shared, bytes: usize) -> bool {
        !shared.evict && shared.over_budget(bytes as i64) && !self.find_room(cx, shared, bytes)
    }

    /// Drops what is dead; whether there is room for this many bytes then.
    #[cold]
    fn find_room(&mut self, cx: &Context<'_>, shared: &Shared, bytes: usize) -> bool {
        let used = self.used;
        // Flushed items lie behind all others: they are not used any more.
        let survey = &shared.survey(&Caller::new(cx.now, cx.counters, cx.connection));
        let flushed =
            self.items.peek_lru().is_some_and(|(key, item)| survey.dead(key.bytes(), item).is_some());
        if flushed || self.next_expiry <= cx.now {
            let swept = self.sweep(survey);
            cx.counters.add(Counter::Reclaimed, swept.dropped);
        }
        // What was freed here is told to the store once the whole operation is over.
        !shared.over_budget(bytes as i64 + self.used - used)
    }
}

/// A compare turns set and replace into cas (proto_text.c, process_mset_command).
fn is_cas(set: &Set<'_>) -> bool {
    set.compare.is_some() && matches!(set.mode, SetMode::Set | SetMode::Replace)
}
