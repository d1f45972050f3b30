//! The operations of a link, by number: those that wait for outcomes are in front, those that wait to be sent behind
//! them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::pb;
use crate::peer::PendingOp;

/// Operations in a message at most.
const BATCH_LEN: usize = 4_096;

/// A message of this many bytes takes no further operation.
const BATCH_BYTES: usize = 1 << 20;

/// A message expires as a whole, when the first of its operations does; deadlines that differ by
/// more do not travel together.
const BATCH_SPREAD: Duration = Duration::from_millis(25);

/// Slots are at most this many times the operations: behind an operation that is unanswered until its deadline, all
/// others leave holes.
const HOLES_MAX: usize = 16;

/// Room that is kept for the next operations; a burst's is given back.
const KEPT_SLOTS: usize = 1_024;

/// Bounded, in the order of their numbers.
#[derive(Debug)]
pub struct PendingOps {
    /// An answered operation leaves a hole; the first is never one.
    slots: VecDeque<Option<PendingOp>>,
    /// The number of the first slot.
    first: u64,
    /// The number of the first operation that was not sent.
    unsent: u64,
    /// The latest deadline so far: deadlines come nearly in order.
    latest: Option<Instant>,
    /// Those that came out of order, with their numbers; some are answered already.
    early: BinaryHeap<Reverse<(Instant, u64)>>,
    bytes: usize,
    queued: usize,
    in_flight: usize,
    len_max: usize,
    bytes_max: usize,
}

/// An operation that has been taken out.
#[derive(Debug)]
pub struct Taken {
    /// Its number.
    pub id: u64,
    /// The operation.
    pub op: PendingOp,
    /// Whether it was sent.
    pub sent: bool,
}

impl PendingOps {
    /// Holds at most the given number of operations, and the given number of bytes of keys and values plus one
    /// operation.
    pub fn new(len_max: usize, bytes_max: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            unsent: 0,
            latest: None,
            early: BinaryHeap::new(),
            bytes: 0,
            queued: 0,
            in_flight: 0,
            len_max,
            bytes_max,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many wait to be sent.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many wait for their outcomes.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number that the next operation to be sent has, or will have.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Whether one more may come in.
    pub fn has_room(&self) -> bool {
        let holes_max = self.len_max.saturating_mul(HOLES_MAX);
        self.queued + self.in_flight < self.len_max
            && self.slots.len() < holes_max
            && self.bytes < self.bytes_max
    }

    /// Takes an operation in, for which there is room.
    pub fn push(&mut self, op: PendingOp) {
        match self.latest {
            Some(latest) if op.deadline < latest => {
                self.early.push(Reverse((op.deadline, self.first + self.slots.len() as u64)));
            }
            _ => self.latest = Some(op.deadline),
        }
        self.bytes += op.bytes();
        self.queued += 1;
        self.slots.push_back(Some(op));
    }

    /// Takes out the operation of this number, if it was sent and is there.
    pub fn take_sent(&mut self, id: u64) -> Option<PendingOp> {
        (id < self.unsent).then(|| self.take(id))?.map(|taken| taken.op)
    }

    /// Takes out an operation that is past its deadline.
    pub fn take_expired(&mut self, now: Instant) -> Option<Taken> {
        // Whatever is in order behind the first one is not earlier than it.
        if let Some(Some(op)) = self.slots.front()
            && op.deadline <= now
        {
            return self.take(self.first);
        }
        while let Some(&Reverse((deadline, id))) = self.early.peek()
            && deadline <= now
        {
            self.early.pop();
            if let Some(taken) = self.take(id) {
                return Some(taken);
            }
        }
        None
    }

    /// Takes out an operation that was not sent.
    pub fn take_unsent(&mut self) -> Option<PendingOp> {
        while self.unsent < self.first + self.slots.len() as u64 {
            let id = self.unsent;
            let taken = self.take(id);
            self.unsent = self.unsent.max(id + 1);
            if let Some(taken) = taken {
                return Some(taken.op);
            }
        }
        None
    }

    /// When the next operation is past its deadline, or a little earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.slots.front()?.as_ref()?.deadline;
        Some(self.early.peek().map_or(first, |early| early.0.0.min(first)))
    }

    /// The next message: takes the waiting operations of one epoch that fit, and numbers them. It is written to an
    /// empty buffer and split off from it. `expires_micros` turns the earliest of its deadlines into the peer's time.
    /// Returns the number of operations, too.
    pub fn encode(
        &mut self,
        buffer: &mut BytesMut,
        expires_micros: impl FnOnce(Instant) -> u64,
    ) -> Option<(pb::Operations, usize)> {
        let mut len = 0;
        let mut head = None;
        let waiting = (self.unsent - self.first) as usize;
        for slot in self.slots.range(waiting..) {
            if let Some(op) = slot {
                let (epoch, earliest, latest) = *head.get_or_insert((op.epoch, op.deadline, op.deadline));
                let (earliest, latest) = (earliest.min(op.deadline), latest.max(op.deadline));
                let full = len == BATCH_LEN || len > 0 && buffer.len() + op.bytes() > BATCH_BYTES;
                if full || op.epoch != epoch || latest - earliest > BATCH_SPREAD {
                    break;
                }
                head = Some((epoch, earliest, latest));
                op.operation().put_numbered(self.unsent, buffer);
                len += 1;
            }
            self.unsent += 1;
        }
        self.queued -= len;
        self.in_flight += len;
        let (epoch, earliest, _) = head?;
        let (operations, expires_micros) = (buffer.split().freeze(), expires_micros(earliest));
        Some((pb::Operations { call: None, epoch, expires_micros, operations }, len))
    }

    fn take(&mut self, id: u64) -> Option<Taken> {
        let index = usize::try_from(id.checked_sub(self.first)?).ok()?;
        let op = self.slots.get_mut(index)?.take()?;
        let sent = id < self.unsent;
        *(if sent { &mut self.in_flight } else { &mut self.queued }) -= 1;
        self.bytes -= op.bytes();
        if index == 0 {
            self.trim();
        }
        Some(Taken { id, op, sent })
    }

    /// Drops the holes in front.
    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
        if self.slots.is_empty() {
            self.slots.shrink_to(KEPT_SLOTS);
            // Its content was answered.
            self.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::Verb;
    use crate::peer::completions::ReplyTo;
    use crate::peer::tests::{encoded, set_of};

    #[derive(Debug, Clone)]
    enum Step {
        /// An operation of that epoch with the given milliseconds left.
        Push(u32, u64),
        Encode,
        /// Takes out one of those that were sent.
        Take(prop::sample::Index),
        Wait(u32),
        TakeUnsent,
    }

    fn step() -> impl Strategy<Value = Step> {
        let left = prop_oneof![5 => Just(100_u32), 1 => 1..100_u32];
        prop_oneof![
            8 => (left, 1..3_u64).prop_map(|(left, epoch)| Step::Push(left, epoch)),
            3 => Just(Step::Encode),
            4 => any::<prop::sample::Index>().prop_map(Step::Take),
            2 => (0..40_u32).prop_map(Step::Wait),
            1 => Just(Step::TakeUnsent),
        ]
    }

    fn op(number: u64, epoch: u64, deadline: Instant) -> PendingOp {
        op_of(number, Verb::Inspect, epoch, deadline)
    }

    fn op_of(number: u64, verb: Verb<'_>, epoch: u64, deadline: Instant) -> PendingOp {
        let operation = encoded(number.to_string().as_bytes(), verb);
        let (sender, _) = tokio::sync::oneshot::channel();
        PendingOp::new(operation, epoch, deadline, ReplyTo::Call(sender))
    }

    /// The operation of each number as it should be.
    #[derive(Debug, Clone, Copy)]
    struct Model {
        number: u64,
        epoch: u64,
        deadline: Instant,
        sent: bool,
    }

    proptest! {
        #[test]
        fn jobs_are_sent_answered_and_expire_as_in_a_model(steps in prop::collection::vec(step(), 1..80)) {
            let mut now = Instant::now();
            let mut ops = PendingOps::new(32, 1 << 20);
            let mut model = Vec::<Model>::new();
            let mut count = 0;
            for step in steps {
                match step {
                    Step::Push(left, epoch) if ops.has_room() => {
                        let deadline = now + Duration::from_millis(left.into());
                        ops.push(op(count, epoch, deadline));
                        model.push(Model { number: count, epoch, deadline, sent: false });
                        count += 1;
                    }
                    Step::Push(..) => prop_assert!(ops.queued() + ops.in_flight() >= 32),
                    Step::Encode => {
                        let mut earliest = None;
                        let encoded = ops.encode(&mut BytesMut::new(), |deadline| {
                            earliest = Some(deadline);
                            7
                        });
                        let (message, len) = encoded.unwrap_or_default();
                        let mut rest = &message.operations[..];
                        let take = || (!rest.is_empty()).then(|| pb::OpRef::take(&mut rest).expect("whole"));
                        let operations: Vec<_> = std::iter::from_fn(take).collect();
                        prop_assert_eq!(operations.len(), len);
                        let waiting: Vec<_> = model.iter_mut().filter(|op| !op.sent).collect();
                        prop_assert_eq!(len == 0, waiting.is_empty());
                        let mut times = Vec::new();
                        for (op, operation) in waiting.into_iter().zip(&operations) {
                            prop_assert_eq!(operation.key.to_vec(), op.number.to_string().into_bytes());
                            prop_assert_eq!((operation.id, message.epoch), (op.number, op.epoch));
                            times.push(op.deadline);
                            op.sent = true;
                        }
                        prop_assert_eq!(earliest, times.iter().min().copied());
                        if let Some(&latest) = times.iter().max() {
                            prop_assert!(latest - times[0] <= BATCH_SPREAD);
                            prop_assert_eq!(message.expires_micros, 7);
                        }
                    }
                    Step::Take(index) if !model.is_empty() => {
                        let index = index.index(model.len());
                        let Model { number, sent, .. } = model[index];
                        prop_assert_eq!(ops.take_sent(number).is_some(), sent);
                        prop_assert!(ops.take_sent(number).is_none(), "taken once");
                        if sent {
                            model.remove(index);
                        }
                    }
                    Step::Take(_) => prop_assert!(ops.is_empty()),
                    Step::Wait(ms) => {
                        now += Duration::from_millis(ms.into());
                        let mut expired = Vec::new();
                        while let Some(Taken { id, sent, .. }) = ops.take_expired(now) {
                            expired.push((id, sent));
                        }
                        expired.sort_unstable();
                        let over = model.iter().filter(|op| op.deadline <= now);
                        prop_assert_eq!(expired, over.map(|op| (op.number, op.sent)).collect::<Vec<_>>());
                        model.retain(|op| op.deadline > now);
                    }
                    Step::TakeUnsent => {
                        let unsent: Vec<_> = std::iter::from_fn(|| ops.take_unsent()).collect();
                        prop_assert_eq!(unsent.len(), model.iter().filter(|op| !op.sent).count());
                        model.retain(|op| op.sent);
                    }
                }
                prop_assert_eq!(ops.is_empty(), model.is_empty());
                prop_assert_eq!(ops.in_flight(), model.iter().filter(|op| op.sent).count());
                prop_assert_eq!(ops.queued(), model.iter().filter(|op| !op.sent).count());
                let next = model.iter().map(|op| op.deadline).min();
                match ops.next_deadline() {
                    None => prop_assert!(next.is_none()),
                    // Early ones that are answered already may still be remembered.
                    Some(at) => prop_assert!(next.is_some_and(|next| at <= next)),
                }
            }
        }
    }

    #[test]
    fn messages_are_bounded() {
        let deadline = Instant::now();
        let mut ops = PendingOps::new(usize::MAX, usize::MAX);
        let encode = |ops: &mut PendingOps| {
            let encoded = ops.encode(&mut BytesMut::new(), |_| 0);
            encoded.map_or((0, 0), |(message, len)| (len, message.operations.len()))
        };
        (0..10_000).for_each(|number| ops.push(op(number, 1, deadline)));
        let lens: Vec<_> = (0..4).map(|_| encode(&mut ops).0).collect();
        assert_eq!(lens, [4_096, 4_096, 1_808, 0]);

        let set = |bytes: usize| {
            let value = vec![0; bytes];
            op_of(0, set_of(&value), 1, deadline)
        };
        [600, 400, 400, 5_000, 10].into_iter().for_each(|kib| ops.push(set(kib << 10)));
        let lens: Vec<_> = (0..4).map(|_| encode(&mut ops)).collect();
        assert_eq!(lens.iter().map(|(len, _)| *len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert!(lens[2].1 > 5_000 << 10, "a large value goes alone");
    }
}
