//! Loads: a read that finds nothing, in a group with an origin, waits for a value. There is one load for a key at a time,
//! however many ask.
//!
//! Whether a load may still be joined, and whether its value may be stored, the store says, under the lock of the key: a
//! write under the key ends the load for all who come later. Those who came before are answered with its value all the
//! same. Here is who waits for which load.

mod life;
pub mod runner;
mod validators;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cache::loads::validators::Validators;
use crate::clock::{Clock, Seconds};
use crate::command::{Arithmetic, Command, Found, Get, Outcome, Set, Verb};
use crate::groups::stats::Result as Ended;
use crate::groups::{Group, Groups};
use crate::item::Exptime;
use crate::pb;
use crate::peer::PendingOp;
use crate::store::{Caller, Generation, Load, LoadStart, Store};

/// Loads that run or wait to run, of all groups together; a read beyond that is a miss.
const LOADS_MAX: usize = 1 << 16;

/// Keys of which it is remembered that there is no value, of all groups together.
const NEGATIVES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// The loads of a node.
pub struct Loads {
    groups: RwLock<Arc<Groups>>,
    /// Whether some group has an origin, or bounds how long items live.
    is_active: AtomicBool,
    /// Whether some group bounds how long items live.
    has_caps: AtomicBool,
    /// No loaded value is loaded anew while it is kept for more seconds than these, whatever its group.
    due_seconds: AtomicU32,
    running: Mutex<AllRunning>,
    /// Keys without a value, and until when that is believed. May be locked while an item is.
    negatives: Mutex<LruCache<Box<[u8]>, Negative>>,
    /// Whether there are any of them; changed while they are locked.
    has_negatives: AtomicBool,
    /// What origins know the values by that lie here.
    validators: Validators,
    started: mpsc::UnboundedSender<Started>,
}

/// That there is no value.
#[derive(Debug, Clone, Copy)]
struct Negative {
    until: Instant,
    /// The store's generation when it was asked for: with another one, it may have changed.
    generation: Generation,
}

/// Loads by their numbers.
#[derive(Debug, Default)]
struct AllRunning {
    next: u64,
    loads: HashMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    group: Arc<Group>,
    /// In the order of their deadlines.
    waiting: VecDeque<PendingOp>,
}

/// A load that is to be run. There are so many at most (`LOADS_MAX`).
#[derive(Debug)]
pub struct Started {
    group: Arc<Group>,
    key: Box<[u8]>,
    key_binary: bool,
    load: Load,
    /// Whether it began behind a reply: nobody need wait for it.
    is_refresh: bool,
}

/// What becomes of a command by what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Answer,
    /// It is answered, and the item with this CAS token is loaded anew.
    Refresh(u64),
    /// It waits for a load, which replaces the item with this CAS token, if there is one.
    Load(Option<u64>),
}

/// Of a group that was asked for in vain.
fn not_found() -> pb::Outcome {
    pb::outcome(0, &Outcome::NotFound)
}

impl Loads {
    /// Loads in these groups. Whoever has the other end runs them ([`runner`]).
    pub fn new(groups: Groups) -> (Arc<Self>, mpsc::UnboundedReceiver<Started>) {
        let (started, receiver) = mpsc::unbounded_channel();
        let loads = Self {
            groups: RwLock::default(),
            is_active: AtomicBool::default(),
            has_caps: AtomicBool::default(),
            due_seconds: AtomicU32::default(),
            running: Mutex::default(),
            negatives: Mutex::new(LruCache::new(NEGATIVES_MAX)),
            has_negatives: AtomicBool::default(),
            validators: Validators::default(),
            started,
        };
        loads.set_groups(groups);
        (Arc::new(loads), receiver)
    }

    /// Of a node without groups.
    pub fn none() -> Arc<Self> {
        Self::new(Groups::default()).0
    }

    /// The present groups.
    pub fn groups(&self) -> Arc<Groups> {
        self.groups.read().clone()
    }

    /// Other groups from now on. Loads that run go on as they began.
    pub fn set_groups(&self, groups: Groups) {
        let has_caps = groups.iter().any(|group| group.options.max_ttl.is_some());
        let is_active = has_caps || groups.iter().any(|group| group.origin.is_some());
        let due_seconds = groups.iter().map(|group| group.due_seconds()).max().unwrap_or_default();
        let before = std::mem::replace(&mut *self.groups.write(), Arc::new(groups));
        // When the lock is free again: it closes connections.
        drop(before);
        self.forget_negatives();
        self.has_caps.store(has_caps, Ordering::Relaxed);
        self.due_seconds.store(due_seconds, Ordering::Relaxed);
        self.is_active.store(is_active, Ordering::Release);
    }

    /// These, if any group has an origin or bounds how long items live: nothing else asks them.
    #[inline]
    pub(super) fn active(&self) -> Option<&Self> {
        self.is_active.load(Ordering::Relaxed).then_some(self)
    }

    /// Whether it is remembered that there is no value under a key.
    pub fn is_negative(&self, store: &Store, key: &[u8]) -> bool {
        let negative = self.negatives.lock().peek(key).copied();
        negative.is_some_and(|Negative { until, generation }| {
            until > Instant::now() && generation == store.generation(store.clock().now())
        })
    }

    /// Forgets of which keys there is no value.
    pub fn forget_negatives(&self) {
        let mut negatives = self.negatives.lock();
        negatives.clear();
        self.has_negatives.store(false, Ordering::Release);
    }

    /// What becomes of a command by what it found. Called while the item is locked.
    #[inline]
    pub(super) fn judge(&self, store: &Store, command: &Command<'_>, outcome: &Outcome<'_>) -> Verdict {
        match (&command.verb, outcome) {
            (Verb::Get(get), Outcome::NotFound) if get.loads => self.judge_miss(store, command.key),
            (Verb::Get(get), Outcome::Found(found)) if get.loads && found.item.loaded => {
                let is_due = |left| left <= self.due_seconds.load(Ordering::Relaxed);
                match found.item.ttl_seconds {
                    Some(left) if is_due(left) => self.judge_loaded(command.key, found.item.cas, left),
                    _ => Verdict::Answer,
                }
            }
            _ => Verdict::Answer,
        }
    }

    #[cold]
    fn judge_miss(&self, store: &Store, key: &[u8]) -> Verdict {
        let groups = self.groups();
        let Some(group) = groups.find_loadable(key) else {
            return Verdict::Answer;
        };
        if !group.options.negative_ttl.is_zero() && self.is_negative(store, key) {
            group.stats.negative_hits.fetch_add(1, Ordering::Relaxed);
            return Verdict::Answer;
        }
        Verdict::Load(None)
    }

    /// What becomes of a read that gives what it finds another time to live, by what lies there before: a value past its time
    /// must not be given a new life.
    pub(super) fn judge_touch(&self, key: &[u8], found: &Found<'_>) -> Verdict {
        let groups = self.groups();
        let (Some(group), Some(left)) = (groups.find(key), found.item.ttl_seconds) else {
            return Verdict::Answer;
        };
        let is_stale = Duration::from_secs(left.into()) <= group.options.stale_span();
        if found.item.loaded && is_stale { Verdict::Load(Some(found.item.cas)) } else { Verdict::Answer }
    }

    #[cold]
    fn judge_loaded(&self, key: &[u8], cas: u64, left_seconds: u32) -> Verdict {
        let groups = self.groups.read();
        let Some(group) = groups.find(key) else { return Verdict::Answer };
        let options = &group.options;
        let (left, stale_span) = (Duration::from_secs(left_seconds.into()), options.stale_span());
        if left > stale_span {
            let is_due = left - stale_span <= group.refresh_span && !group.is_broken();
            return if is_due { Verdict::Refresh(cas) } else { Verdict::Answer };
        }
        if stale_span - left < options.stale_while_revalidate {
            group.stats.stale.fetch_add(1, Ordering::Relaxed);
            return if group.is_broken() { Verdict::Answer } else { Verdict::Refresh(cas) };
        }
        Verdict::Load(Some(cas))
    }

    /// Lets a read wait for the load of its key, which begins if there is none. Gives the read back when there is an item
    /// by now.
    pub(super) fn join(
        &self,
        store: &Store,
        caller: &Caller<'_>,
        mut op: PendingOp,
        replaces: Option<u64>,
    ) -> Option<PendingOp> {
        let groups = self.groups();
        let Some(group) = groups.find_loadable(op.operation().key()) else {
            op.answer(Ok(not_found()));
            return None;
        };
        let mut all = self.running.lock();
        let number = match store.begin_load(caller, op.operation().key(), all.next, replaces) {
            LoadStart::Present => return Some(op),
            LoadStart::Running(number) => number,
            LoadStart::Begun(load) => {
                let (key, key_binary) = (op.operation().key().into(), op.operation().key_binary());
                let started = Started { group: group.clone(), key, key_binary, load, is_refresh: false };
                if !self.start(&mut all, store, caller, started) {
                    drop(all);
                    op.answer(Ok(not_found()));
                    return None;
                }
                load.number
            }
        };
        if let Some(running) = all.loads.get_mut(&number) {
            // Of the group as it was when the load began: those who wait stand in the order of their deadlines.
            op.deadline = Instant::now() + running.group.options.wait;
            running.group.stats.waiting.fetch_add(1, Ordering::Relaxed);
            running.waiting.push_back(op);
        }
        None
    }

    /// Loads anew what has this CAS token, unless that is being done; nobody waits for it.
    pub(super) fn refresh(&self, store: &Store, caller: &Caller<'_>, key: &[u8], replaces: u64) {
        let groups = self.groups();
        let Some(group) = groups.find_loadable(key) else { return };
        let mut all = self.running.lock();
        if let LoadStart::Begun(load) = store.begin_load(caller, key, all.next, Some(replaces)) {
            let started =
                Started { group: group.clone(), key: key.into(), key_binary: false, load, is_refresh: true };
            self.start(&mut all, store, caller, started);
        }
    }

    /// Has a load run that has begun in the store. False when there are too many.
    fn start(&self, all: &mut AllRunning, store: &Store, caller: &Caller<'_>, started: Started) -> bool {
        let group = started.group.clone();
        let number = started.load.number;
        if all.loads.len() >= LOADS_MAX {
            store.end_load(caller, &started.key, &started.load, false);
            group.stats.ended(Ended::Dropped);
            return false;
        }
        all.next += 1;
        // Whoever runs them has gone only when the node stops.
        if let Err(mpsc::error::SendError(started)) = self.started.send(started) {
            store.end_load(caller, &started.key, &started.load, false);
            return false;
        }
        all.loads.insert(number, Running { group, waiting: VecDeque::new() });
        true
    }

    /// Takes those out who have waited for a load for too long. When the next one will have, or might.
    fn take_expired(&self, number: u64) -> (Vec<PendingOp>, Option<Instant>) {
        let mut all = self.running.lock();
        let Some(running) = all.loads.get_mut(&number) else { return (Vec::new(), None) };
        let now = Instant::now();
        let in_time = running.waiting.partition_point(|op| op.deadline <= now);
        let expired: Vec<_> = running.waiting.drain(..in_time).collect();
        running.group.stats.waiting.fetch_sub(expired.len() as u64, Ordering::Relaxed);
        (expired, running.waiting.front().map(|op| op.deadline))
    }

    /// Whether somebody waits for a load.
    fn is_awaited(&self, number: u64) -> bool {
        self.running.lock().loads.get(&number).is_some_and(|running| !running.waiting.is_empty())
    }

    /// A load is over, of which the store knows no more. Returns who waits for it.
    fn take(&self, number: u64) -> VecDeque<PendingOp> {
        let Some(running) = self.running.lock().loads.remove(&number) else { return VecDeque::new() };
        running.group.stats.waiting.fetch_sub(running.waiting.len() as u64, Ordering::Relaxed);
        running.waiting
    }

    /// Nothing is loaded any more: whoever waits is answered with a miss.
    fn give_up(&self) {
        let loads = std::mem::take(&mut self.running.lock().loads);
        drop(loads);
    }

    /// It is known for some time that there is no value.
    fn note_absent(&self, key: &[u8], group: &Group, generation: Generation) {
        let ttl = group.options.negative_ttl;
        if !ttl.is_zero() {
            let negative = Negative { until: Instant::now() + ttl, generation };
            let mut negatives = self.negatives.lock();
            negatives.put(key.into(), negative);
            self.has_negatives.store(true, Ordering::Release);
        }
    }

    /// Forgets that there is no value under the key of a write: whoever deletes a key has it loaded anew. To be called
    /// before the write is answered.
    #[inline]
    pub(super) fn note_write(&self, command: &Command<'_>) {
        if self.has_negatives.load(Ordering::Acquire)
            && matches!(command.verb, Verb::Set(_) | Verb::Delete(_) | Verb::Arithmetic(_))
        {
            self.forget_negative(command.key);
        }
    }

    #[cold]
    fn forget_negative(&self, key: &[u8]) {
        let mut negatives = self.negatives.lock();
        negatives.pop(key);
        self.has_negatives.store(!negatives.is_empty(), Ordering::Release);
    }

    /// A command whose item lives no longer than its group allows; `None` where it is as it should be.
    #[inline]
    pub(super) fn cap<'c>(&self, command: &Command<'c>, clock: &Clock, now: Seconds) -> Option<Command<'c>> {
        if self.has_caps.load(Ordering::Relaxed) { self.capped(command, clock, now) } else { None }
    }

    #[cold]
    fn capped<'c>(&self, command: &Command<'c>, clock: &Clock, now: Seconds) -> Option<Command<'c>> {
        let has_exptime = match command.verb {
            Verb::Set(_) => true,
            Verb::Get(get) => get.touch.is_some() || get.vivify.is_some(),
            Verb::Arithmetic(sum) => sum.touch.is_some() || sum.vivify.is_some(),
            Verb::Delete(_) | Verb::Inspect => false,
        };
        if !has_exptime {
            return None;
        }
        let groups = self.groups.read();
        let most = groups.find(command.key)?.options.max_ttl?;
        let most = u32::try_from(most.as_secs().max(1)).unwrap_or(u32::MAX);
        let cap = |exptime: Exptime| match clock.deadline(exptime, now) {
            0 => Exptime::In(most),
            ends if ends.saturating_sub(now) > most => Exptime::In(most),
            _ => exptime,
        };
        let verb = match command.verb {
            Verb::Set(set) => {
                Verb::Set(Set { exptime: cap(set.exptime), vivify: set.vivify.map(cap), ..set })
            }
            Verb::Get(get) => {
                Verb::Get(Get { touch: get.touch.map(cap), vivify: get.vivify.map(cap), ..get })
            }
            Verb::Arithmetic(sum) => {
                Verb::Arithmetic(Arithmetic { touch: sum.touch.map(cap), vivify: sum.vivify.map(cap), ..sum })
            }
            Verb::Delete(_) | Verb::Inspect => return None,
        };
        Some(Command { verb, ..*command })
    }
}
