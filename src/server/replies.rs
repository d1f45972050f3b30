//! Replies in the order of their requests, while some of them are on their way from other nodes.
//!
//! A request that is not answered at once gets a slot. What is answered at once behind it waits
//! in the slot, and goes out when the slot's own answer has.

use std::collections::VecDeque;

use crate::command::{Failure, Outcome};
use crate::pb;
use crate::pb::{EncodedOp, Projection};
use crate::peer::Answer;
use crate::peer::completions::Completion;
use crate::protocol::binary::Head;
use crate::protocol::binary::reply::{Binary, Form};
use crate::protocol::reply::{self, Classic, Meta, MetaVerb, Reply};
use crate::protocol::token::Tokens;
use crate::server::cluster_tasks::Task;

/// Slots of one connection. Enough for owners to work at the same time; more would only wait for
/// them longer.
const SLOTS_MAX: usize = 256;

/// Bytes of commands on their way, after which no more are sent before some were answered.
const ASKED_BYTES: usize = 1 << 20;

/// Bytes that the answers of all slots may be expected to take; when values are larger there are
/// fewer slots.
const EXPECTED_BYTES: usize = 4 << 20;

/// What a client waits for, in its order.
pub(super) struct Replies {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// Bytes before the first slot's answer, which can be sent.
    pub(super) ready: Vec<u8>,
    /// Bytes that wait behind slots.
    waiting: usize,
    /// Bytes of commands on their way.
    asked: usize,
    /// The length of a large value among those that came lately, and no less than one that may
    /// come.
    large: usize,
}

/// What is expected of the first values: until they have shown otherwise, a connection has 64
/// slots.
const LARGE_AT_FIRST: usize = EXPECTED_BYTES / 64;

/// Small values after which a large one is nearly forgotten.
const LARGE_LASTS: usize = 64;

struct Slot {
    state: State,
    /// What was answered behind it.
    after: Vec<u8>,
}

enum State {
    /// On its way.
    Asked(PendingReply),
    Answered(PendingReply, Answer),
    Text(Vec<u8>),
    /// Begins when everything before it has been answered.
    Later(Task),
}

/// A [`Reply`] that outlives the request it was read from. The key is in the operation.
pub(super) enum PendingReply {
    Value {
        cas: bool,
        last: bool,
    },
    Classic(Classic, bool),
    Meta(Box<OwnedMeta>),
    Binary(Head, Form),
    /// Whatever comes of it, these bytes: a value was not stored, and what lay under the key is to be
    /// dropped.
    Told(Vec<u8>),
}

pub(super) struct OwnedMeta {
    verb: MetaVerb,
    flags: Box<[u8]>,
    value: bool,
    known: Option<u64>,
    quiet: bool,
    value_len: usize,
}

impl From<&Reply<'_>> for PendingReply {
    fn from(reply: &Reply<'_>) -> Self {
        match *reply {
            Reply::Value { cas, last } => Self::Value { cas, last },
            Reply::Classic(verb, quiet) => Self::Classic(verb, quiet),
            Reply::Meta(Meta { verb, flags, value, known, quiet, value_len, .. }) => {
                let flags = flags.0.into();
                Self::Meta(Box::new(OwnedMeta { verb, flags, value, known, quiet, value_len }))
            }
            Reply::Binary(Binary { head, form, .. }) => Self::Binary(head, form),
        }
    }
}

impl PendingReply {
    /// How much of the item it shows.
    pub(super) fn wanted(&self) -> Projection {
        match self {
            Self::Value { .. } => Projection::Value,
            Self::Meta(meta) if meta.value => Projection::Value,
            Self::Binary(_, Form::Get { with_value: true, .. }) => Projection::Value,
            Self::Binary(head, Form::Store(_)) if head.quiet => Projection::Status,
            Self::Meta(_) | Self::Binary(..) => Projection::Item,
            Self::Classic(..) | Self::Told(_) => Projection::Status,
        }
    }

    fn borrow<'a>(&'a self, operation: &'a EncodedOp) -> Option<Reply<'a>> {
        Some(match self {
            &Self::Value { cas, last } => Reply::Value { cas, last },
            &Self::Classic(verb, quiet) => Reply::Classic(verb, quiet),
            Self::Meta(meta) => Reply::Meta(Meta {
                verb: meta.verb,
                flags: Tokens(&meta.flags),
                key: operation.key(),
                key_binary: operation.key_binary(),
                value: meta.value,
                known: meta.known,
                quiet: meta.quiet,
                value_len: meta.value_len,
            }),
            &Self::Binary(head, form) => Reply::Binary(Binary { head, form, key: operation.key() }),
            Self::Told(_) => return None,
        })
    }

    fn write(&self, out: &mut Vec<u8>, answer: &Answer, seen: &mut impl FnMut(&EncodedOp, &Outcome<'_>)) {
        let Some(reply) = self.borrow(&answer.operation) else {
            if let Self::Told(bytes) = self {
                out.extend_from_slice(bytes);
            }
            return;
        };
        let outcome = match &answer.result {
            // Only who executes says what happened: an outcome that says nothing is no answer.
            Ok(message) => pb::view(message, answer.operation.key())
                .unwrap_or(Outcome::Failed(Failure::Unavailable(crate::command::Unavailable::Unanswered))),
            Err(why) => Outcome::Failed(Failure::Unavailable(*why)),
        };
        seen(&answer.operation, &outcome);
        reply::write(out, &reply, &outcome);
    }
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            ready: Vec::new(),
            waiting: 0,
            asked: 0,
            large: LARGE_AT_FIRST,
        }
    }
}

impl Replies {
    /// Whether nothing is on its way.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether so much is on its way that no more should be asked.
    #[inline]
    pub(super) fn is_full(&self, waiting_max: usize) -> bool {
        if self.is_empty() {
            return false;
        }
        let slots_max = SLOTS_MAX.min(EXPECTED_BYTES / self.large.max(1)).max(4);
        self.slots.len() >= slots_max || self.waiting >= waiting_max || self.asked >= ASKED_BYTES
    }

    /// Bytes that have come in for the client and were not sent.
    pub(super) fn held_bytes(&self) -> usize {
        self.ready.capacity() + self.waiting
    }

    /// Takes a slot for a command of so many bytes that is on its way, behind what is in `out`; its
    /// number.
    pub(super) fn ask(&mut self, out: &mut Vec<u8>, reply: PendingReply, bytes: usize) -> u64 {
        self.asked += bytes;
        self.push(out, State::Asked(reply))
    }

    /// Takes a slot for something that begins when everything before it has been answered.
    pub(super) fn later(&mut self, out: &mut Vec<u8>, task: Task) {
        self.push(out, State::Later(task));
    }

    fn push(&mut self, out: &mut Vec<u8>, state: State) -> u64 {
        match self.slots.back_mut() {
            Some(last) => {
                self.waiting += out.len();
                last.after = std::mem::take(out);
            }
            None if self.ready.is_empty() => std::mem::swap(&mut self.ready, out),
            None => self.ready.append(out),
        }
        self.slots.push_back(Slot { state, after: Vec::new() });
        self.first + self.slots.len() as u64 - 1
    }

    /// Takes what has come in for a slot.
    pub(super) fn fill(&mut self, number: u64, completion: Completion) {
        let Some(slot) = number.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize)) else {
            return;
        };
        slot.state = match (std::mem::replace(&mut slot.state, State::Text(Vec::new())), completion) {
            (State::Asked(reply), Completion::Answer(answer)) => {
                let len = answer.result.as_ref().ok().and_then(|message| message.item.as_ref());
                let len = len.map_or(0, |item| item.value.len());
                self.large = len.max(self.large - self.large / LARGE_LASTS);
                self.asked = self.asked.saturating_sub(answer.operation.payload_bytes());
                State::Answered(reply, answer)
            }
            (_, Completion::Text(text)) => State::Text(text),
            (state, Completion::Answer(_)) => state,
        };
    }

    /// Writes out what has been answered without a gap, showing each command and what came of it
    /// to `seen`. When a task is at the front, it is to be begun under the number that comes with
    /// it.
    pub(super) fn flush(
        &mut self,
        out: &mut Vec<u8>,
        mut seen: impl FnMut(&EncodedOp, &Outcome<'_>),
    ) -> Option<(u64, Task)> {
        while let Some(slot) = self.slots.front_mut() {
            match std::mem::replace(&mut slot.state, State::Text(Vec::new())) {
                State::Answered(reply, answer) => reply.write(&mut self.ready, &answer, &mut seen),
                State::Text(text) => self.ready.extend_from_slice(&text),
                State::Asked(reply) => {
                    slot.state = State::Asked(reply);
                    return None;
                }
                State::Later(task) => {
                    slot.state = State::Asked(PendingReply::Classic(Classic::Store, true));
                    return Some((self.first, task));
                }
            }
            self.waiting -= slot.after.len();
            self.ready.append(&mut slot.after);
            self.slots.pop_front();
            self.first += 1;
        }
        // Nothing is on its way: from here on all is as if nothing ever had been.
        if !self.ready.is_empty() {
            self.ready.append(out);
            std::mem::swap(&mut self.ready, out);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Unavailable;
    use crate::peer::tests::{encoded, set_of};

    fn answer() -> Completion {
        Completion::Answer(Answer {
            operation: EncodedOp::default(),
            result: Ok(pb::Outcome { kind: pb::outcome::Kind::NotStored.into(), ..pb::Outcome::default() }),
        })
    }

    fn ask(replies: &mut Replies, out: &mut Vec<u8>) -> u64 {
        replies.ask(out, PendingReply::Classic(Classic::Store, false), 0)
    }

    fn flush(replies: &mut Replies, out: &mut Vec<u8>) -> Option<u64> {
        replies.flush(out, |_, _| ()).map(|(number, _)| number)
    }

    #[test]
    fn answers_go_out_in_the_order_of_the_requests() {
        let mut replies = Replies::default();
        let mut out = b"1".to_vec();
        let first = ask(&mut replies, &mut out);
        out.extend_from_slice(b"2");
        let second = ask(&mut replies, &mut out);
        out.extend_from_slice(b"3");
        assert_eq!(replies.ready, b"1");

        replies.fill(second, answer());
        assert_eq!(flush(&mut replies, &mut out), None);
        assert_eq!(replies.ready, b"1", "the first one is still on its way");
        replies.fill(first, answer());
        flush(&mut replies, &mut out);
        assert!(replies.is_empty() && replies.ready.is_empty());
        assert_eq!(out, b"1NOT_STORED\r\n2NOT_STORED\r\n3");
        assert_eq!(replies.waiting, 0);

        // A second answer under a number that has gone is nobody's.
        replies.fill(first, answer());
        let third = ask(&mut replies, &mut out);
        assert_eq!(third, second + 1);
    }

    #[test]
    fn a_task_waits_for_what_came_before_it() {
        let mut replies = Replies::default();
        let mut out = Vec::new();
        let first = ask(&mut replies, &mut out);
        replies.later(&mut out, Task::Stats);
        assert_eq!(flush(&mut replies, &mut out), None);
        replies.fill(first, answer());
        let task = flush(&mut replies, &mut out);
        assert_eq!(task, Some(first + 1));
        assert_eq!(flush(&mut replies, &mut out), None, "it is begun once");
        replies.fill(first + 1, Completion::Text(b"END\r\n".to_vec()));
        flush(&mut replies, &mut out);
        assert_eq!(out, b"NOT_STORED\r\nEND\r\n");
    }

    #[test]
    fn what_failed_is_a_miss_to_a_reader_and_an_error_to_a_writer() {
        let failed = || {
            Completion::Answer(Answer {
                operation: EncodedOp::default(),
                result: Err(Unavailable::Unreachable),
            })
        };
        let mut replies = Replies::default();
        let mut out = Vec::new();
        let get = replies.ask(&mut out, PendingReply::Value { cas: false, last: true }, 0);
        let set = ask(&mut replies, &mut out);
        replies.fill(get, failed());
        replies.fill(set, failed());
        flush(&mut replies, &mut out);
        assert_eq!(out, b"END\r\nSERVER_ERROR the owner of this key is unreachable\r\n");
    }

    #[test]
    fn large_commands_leave_fewer_slots() {
        let mut replies = Replies::default();
        let mut out = Vec::new();
        let value = vec![0; ASKED_BYTES];
        let operation = encoded(b"key", set_of(&value));
        let number =
            replies.ask(&mut out, PendingReply::Classic(Classic::Store, false), operation.payload_bytes());
        assert!(replies.is_full(usize::MAX));
        let answer = Answer { operation, result: Err(Unavailable::Unanswered) };
        replies.fill(number, Completion::Answer(answer));
        assert!(!replies.is_full(usize::MAX));
    }

    #[test]
    fn large_values_leave_fewer_slots() {
        let mut replies = Replies::default();
        let mut out = Vec::new();
        let number = replies.ask(&mut out, PendingReply::Value { cas: false, last: true }, 0);
        let item = pb::Item { value: vec![0; 1 << 20].into(), ..pb::Item::default() };
        let result = Ok(pb::Outcome { item: Some(item), ..pb::Outcome::default() });
        replies.fill(number, Completion::Answer(Answer { operation: EncodedOp::default(), result }));
        flush(&mut replies, &mut out);
        for _ in 0..4 {
            assert!(!replies.is_full(usize::MAX));
            ask(&mut replies, &mut out);
        }
        assert!(replies.is_full(usize::MAX));
    }
}
