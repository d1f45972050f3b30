//! Items that come to a node with its slots: while a slot is warming, what lies under its keys may still be at its source.
//!
//! A command on such a key is executed at once when something lies under the key here. Otherwise it waits until the item was
//! taken over, if there is one. So whatever lies here lies at the source no more, and what comes later never takes the place
//! of what a client has written, nor of what it has deleted (docs/design/moves.md).

pub(super) mod giver;
pub mod mover;
pub mod options;
mod pace;
mod session;
pub mod stats;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::handovers::Taker;
use crate::cache::moves::stats::Stats;
use crate::cluster::view::{SLOTS, slot};
use crate::command::{Unavailable, Verb};
use crate::pb;
use crate::peer::PendingOp;
use crate::store::{Caller, Store};

/// Commands that may wait until something was taken over, in the whole node.
const WAITING_MAX: usize = 1 << 14;

/// What all threads of a node know of its moves.
pub struct Moves {
    /// How many commands wait, by the slots of their keys. Whoever sees 0 may execute: one that is still on its way to the
    /// mover has been counted.
    waiting: Box<[AtomicU32]>,
    queue: mpsc::Sender<Waiting>,
    /// Who takes items from here: how many streams each has, and since when.
    takers: Mutex<Vec<(Taker, usize, Instant)>>,
    stats: Stats,
}

/// A command that waits until what lies under its key was taken over.
#[derive(Debug)]
pub struct Waiting {
    op: PendingOp,
    slot: u16,
}

/// Of a key, to remember it by.
fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

impl Waiting {
    /// Whether it changes nothing, but for what it reads.
    fn is_read(&self) -> bool {
        let operation = self.op.operation().open();
        operation.is_ok_and(|operation| {
            pb::command(&operation).is_ok_and(|command| matches!(command.verb, Verb::Get(_) | Verb::Inspect))
        })
    }

    fn hash(&self) -> u64 {
        hash(self.op.operation().key())
    }
}

impl Moves {
    /// Whoever has the other end takes over what commands wait for ([`mover::run`]).
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Waiting>) {
        let (queue, receiver) = mpsc::channel(WAITING_MAX);
        let waiting = (0..SLOTS).map(|_| AtomicU32::default()).collect();
        (Arc::new(Self { waiting, queue, takers: Mutex::default(), stats: Stats::default() }), receiver)
    }

    /// What has been moved.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// These take items from here from now on.
    fn expect<'a>(&self, takers: impl Iterator<Item = &'a Taker>) {
        let mut known = self.takers.lock();
        let before = std::mem::take(&mut *known);
        for taker in takers {
            let there = before.iter().find(|(other, ..)| other == taker).cloned();
            known.push(there.unwrap_or_else(|| (taker.clone(), 0, Instant::now())));
        }
    }

    /// A taker has one more stream, or one less.
    fn note_stream(&self, taker: &Taker, opened: bool) {
        let mut known = self.takers.lock();
        if let Some((_, streams, since)) = known.iter_mut().find(|(other, ..)| other == taker) {
            *streams = if opened { *streams + 1 } else { streams.saturating_sub(1) };
            *since = Instant::now();
        }
    }

    /// Those that have had no stream for so long.
    fn gone(&self, now: Instant, patience: Duration) -> Vec<Taker> {
        let known = self.takers.lock();
        let is_gone =
            |streams: usize, since: Instant| streams == 0 && now.saturating_duration_since(since) >= patience;
        known
            .iter()
            .filter(|(_, streams, since)| is_gone(*streams, *since))
            .map(|(it, ..)| it.clone())
            .collect()
    }

    /// Whether nothing lies under a key elsewhere: something lies there here. Commands on its slot that wait come first.
    pub(super) fn is_settled(&self, store: &Store, caller: &Caller<'_>, key: &[u8]) -> bool {
        self.waiting[usize::from(slot(key))].load(Ordering::Acquire) == 0 && store.is_live(caller, key)
    }

    /// Lets a command wait until what lies under its key was taken over.
    pub(super) fn take_over(&self, op: PendingOp) {
        let slot = slot(op.operation().key());
        self.waiting[usize::from(slot)].fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.queue.try_send(Waiting { op, slot }) {
            let (mpsc::error::TrySendError::Full(waiting) | mpsc::error::TrySendError::Closed(waiting)) =
                error;
            self.ended(slot);
            waiting.op.answer(Err(Unavailable::Overloaded));
        }
    }

    /// A command on this slot waits no more.
    fn ended(&self, slot: u16) {
        self.waiting[usize::from(slot)].fetch_sub(1, Ordering::AcqRel);
    }
}
