//! A connection's replies in the order of their requests, whether they are ready at once or come later.
//!
//! A reply that is ready at once is written to [`Pipeline::out`]. A request that is not answered at once gets a slot;
//! the code that can answer it fills the slot through a [`Completer`]. Replies behind it wait in the slot, and go out
//! after the slot's own reply.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant as StdInstant;

use crate::command::Outcome;
use crate::pb::EncodedOp;
use crate::peer::Answer;
use crate::peer::completions::{Completer, Completion, CompletionQueue};
use crate::protocol::output::Output;
use crate::server::memcached::pending_reply::PendingReply;
use crate::stats::{Counters, Ending, Kind, Route};

/// Slots of one connection. Enough for owners to work at the same time; more would only wait for
/// them longer.
const SLOTS_MAX: usize = 256;

/// Bytes of commands on their way, after which no more are sent before some were answered.
const ASKED_BYTES: usize = 1 << 20;

/// Bytes that the answers of all slots may be expected to take; when values are larger there are
/// fewer slots.
const EXPECTED_BYTES: usize = 4 << 20;

/// Bytes of replies that may wait behind slots; beyond that nothing more is asked for.
const WAITING_MAX: usize = 256 << 10;

/// The expected length of the first values: until values have shown their length, a connection has 64 slots.
const LARGE_AT_FIRST: usize = EXPECTED_BYTES / 64;

/// Small values after which a large one is nearly forgotten.
const LARGE_LASTS: usize = 64;

/// Begins something that is answered later.
type Begin = Box<dyn FnOnce(Completer) + Send>;

/// The replies that a client waits for, in its order.
pub(super) struct Pipeline {
    /// Replies that are ready, behind everything that is not.
    pub(super) out: Output,
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// Bytes before the first slot's reply, which can be sent.
    ready: Output,
    /// Bytes that wait behind slots.
    waiting: usize,
    /// Bytes of commands on their way.
    asked: usize,
    /// The length of a large value among the recent ones, and no less than one that may come.
    large: usize,
    /// The version of the routing by which commands are on their way.
    version: u64,
    /// Nothing is executed until every slot is filled.
    barrier: bool,
    /// Where completions come in; made for the first slot.
    completions: Option<Arc<CompletionQueue>>,
    completed: Vec<(u64, Completion)>,
    /// A command that is on its way.
    timed: Option<Timed>,
}

struct Slot {
    state: State,
    /// Replies behind it.
    after: Output,
}

enum State {
    /// A command is on its way.
    Asked(PendingReply),
    Answered(PendingReply, Answer),
    /// Something else has begun.
    Begun,
    Text(Vec<u8>),
    /// Begins when everything before it has been answered.
    Later(Begin),
}

/// A command on its way whose duration is counted.
pub(super) struct Timed {
    /// The number of its slot.
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) began: StdInstant,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            out: Output::default(),
            slots: VecDeque::new(),
            first: 0,
            ready: Output::default(),
            waiting: 0,
            asked: 0,
            large: LARGE_AT_FIRST,
            version: 0,
            barrier: false,
            completions: None,
            completed: Vec::new(),
            timed: None,
        }
    }
}

impl Pipeline {
    /// Whether every reply is ready.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether requests have to wait for what is on its way.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        !self.is_empty() && (self.barrier || self.is_full())
    }

    /// Whether so much is on its way that nothing more should be asked for.
    fn is_full(&self) -> bool {
        let slots_max = SLOTS_MAX.min(EXPECTED_BYTES / self.large.max(1)).max(4);
        self.slots.len() >= slots_max || self.waiting >= WAITING_MAX || self.asked >= ASKED_BYTES
    }

    /// Whether requests may be executed by the routing of this version. False while something is on its way by another
    /// version: otherwise a key's later command could overtake an earlier one.
    #[inline]
    pub(super) fn admits(&self, version: u64) -> bool {
        self.is_empty() || !self.is_held() && self.version == version
    }

    /// Takes a slot for a command of the given length that is on its way by the routing of this version.
    pub(super) fn defer(&mut self, reply: PendingReply, bytes: usize, version: u64) -> Completer {
        self.asked += bytes;
        self.version = version;
        self.push(State::Asked(reply));
        self.completer(self.first + self.slots.len() as u64 - 1)
    }

    /// Takes a slot for something that begins once everything before it has been answered; what comes after it waits for
    /// its end.
    pub(super) fn after_all(&mut self, begin: impl FnOnce(Completer) + Send + 'static) {
        self.push(State::Later(Box::new(begin)));
        self.barrier = true;
    }

    fn completer(&mut self, number: u64) -> Completer {
        Completer::new(self.completions.get_or_insert_default().clone(), number)
    }

    fn push(&mut self, state: State) {
        match self.slots.back_mut() {
            Some(last) => {
                self.waiting += self.out.len();
                last.after = std::mem::take(&mut self.out);
            }
            None if self.ready.is_empty() => std::mem::swap(&mut self.ready, &mut self.out),
            None => self.ready.append(&mut self.out),
        }
        self.slots.push_back(Slot { state, after: Output::default() });
    }

    /// Counts how long a command takes that was just sent, unless another one is being timed.
    pub(super) fn time(&mut self, timed: Timed) {
        self.timed.get_or_insert(timed);
    }

    /// The bytes that can be sent.
    #[inline]
    pub(super) fn sendable(&mut self) -> &mut Output {
        if self.is_empty() { &mut self.out } else { &mut self.ready }
    }

    /// Bytes that the connection holds for its client.
    pub(super) fn held_bytes(&self) -> usize {
        self.out.held_bytes() + self.ready.held_bytes() + self.waiting
    }

    /// Forgets all replies, those that are on their way included.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes incoming completions and makes replies sendable, showing each forwarded command and its outcome to `seen`.
    /// Pending when it must be asked again after more completions; ready when every reply is ready.
    #[inline]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        counters: &Counters,
        seen: impl FnMut(&EncodedOp, &Outcome<'_>),
    ) -> Poll<()> {
        if self.is_empty() { Poll::Ready(()) } else { self.poll_slots(cx, counters, seen) }
    }

    fn poll_slots(
        &mut self,
        cx: &mut Context<'_>,
        counters: &Counters,
        mut seen: impl FnMut(&EncodedOp, &Outcome<'_>),
    ) -> Poll<()> {
        loop {
            if let Some(begin) = self.flush(&mut seen) {
                begin(self.completer(self.first));
            }
            if self.is_empty() {
                self.barrier = false;
                return Poll::Ready(());
            }
            let Some(completions) = &self.completions else { return Poll::Pending };
            std::task::ready!(completions.poll_take(cx, &mut self.completed));
            let mut completed = std::mem::take(&mut self.completed);
            for (number, completion) in completed.drain(..) {
                if let Some(timed) = self.timed.take_if(|timed| timed.number == number) {
                    let ending = if has_failed(&completion) { Ending::Failed } else { Ending::Ok };
                    counters.time(timed.kind, Route::Forwarded, ending, timed.began.elapsed());
                }
                self.fill(number, completion);
            }
            self.completed = completed;
        }
    }

    /// Takes what has come in for a slot.
    fn fill(&mut self, number: u64, completion: Completion) {
        let Some(slot) = number.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize)) else {
            return;
        };
        slot.state = match (std::mem::replace(&mut slot.state, State::Begun), completion) {
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

    /// Makes replies sendable up to the first gap. When the slot at the front has not begun yet, it is returned.
    fn flush(&mut self, mut seen: impl FnMut(&EncodedOp, &Outcome<'_>)) -> Option<Begin> {
        while let Some(slot) = self.slots.front_mut() {
            match std::mem::replace(&mut slot.state, State::Begun) {
                State::Answered(reply, answer) => reply.write(&mut self.ready, &answer, &mut seen),
                State::Text(text) => self.ready.writer().extend_from_slice(&text),
                State::Later(begin) => return Some(begin),
                state @ (State::Asked(_) | State::Begun) => {
                    slot.state = state;
                    return None;
                }
            }
            self.waiting -= slot.after.len();
            self.ready.append(&mut slot.after);
            self.slots.pop_front();
            self.first += 1;
        }
        // From here on the state is the same as if nothing had been on its way.
        if !self.ready.is_empty() {
            self.ready.append(&mut self.out);
            std::mem::swap(&mut self.ready, &mut self.out);
        }
        None
    }
}

/// Whether an answer says that a command was not executed.
fn has_failed(completion: &Completion) -> bool {
    use crate::pb::outcome::Kind;

    let Completion::Answer(answer) = completion else { return false };
    let Ok(outcome) = &answer.result else { return true };
    matches!(
        outcome.kind(),
        Kind::Unspecified
            | Kind::NonNumeric
            | Kind::TooLarge
            | Kind::OutOfMemory
            | Kind::WrongOwner
            | Kind::Unavailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Unavailable;
    use crate::pb;
    use crate::peer::tests::{encoded, set_of};
    use crate::protocol::reply::Classic;

    fn answer() -> Completion {
        Completion::Answer(Answer {
            operation: EncodedOp::default(),
            result: Ok(pb::Outcome { kind: pb::outcome::Kind::NotStored.into(), ..pb::Outcome::default() }),
        })
    }

    fn ask(pipeline: &mut Pipeline) -> u64 {
        pipeline.defer(PendingReply::Classic(Classic::Store, false), 0, 0).number()
    }

    fn flush(pipeline: &mut Pipeline) {
        assert!(pipeline.flush(|_, _| ()).is_none(), "nothing is to begin");
    }

    #[test]
    fn nothing_goes_by_the_next_routing_while_something_is_on_its_way_by_the_last() {
        let mut pipeline = Pipeline::default();
        assert!(pipeline.admits(1), "nothing is on its way");
        let number = pipeline.defer(PendingReply::Classic(Classic::Store, false), 0, 1).number();
        assert!(pipeline.admits(1) && !pipeline.admits(2));
        pipeline.fill(number, answer());
        flush(&mut pipeline);
        assert!(pipeline.admits(2));
    }

    #[test]
    fn answers_go_out_in_the_order_of_the_requests() {
        let mut pipeline = Pipeline::default();
        pipeline.out.writer().extend_from_slice(b"1");
        let first = ask(&mut pipeline);
        pipeline.out.writer().extend_from_slice(b"2");
        let second = ask(&mut pipeline);
        pipeline.out.writer().extend_from_slice(b"3");
        assert_eq!(pipeline.ready.contiguous(0), Some(&b"1"[..]));

        pipeline.fill(second, answer());
        flush(&mut pipeline);
        assert_eq!(pipeline.ready.contiguous(0), Some(&b"1"[..]), "the first one is still on its way");
        pipeline.fill(first, answer());
        flush(&mut pipeline);
        assert!(pipeline.is_empty() && pipeline.ready.is_empty());
        assert_eq!(pipeline.out.contiguous(0), Some(&b"1NOT_STORED\r\n2NOT_STORED\r\n3"[..]));
        assert_eq!(pipeline.waiting, 0);

        // A second answer under a number that has gone belongs to no request.
        pipeline.fill(first, answer());
        let third = ask(&mut pipeline);
        assert_eq!(third, second + 1);
    }

    #[test]
    fn what_comes_after_all_begins_when_everything_before_it_is_there() {
        let mut pipeline = Pipeline::default();
        let (begun, begins) = std::sync::mpsc::channel();
        let first = ask(&mut pipeline);
        pipeline.after_all(move |completer| begun.send(completer).expect("the test is there"));
        pipeline.out.writer().extend_from_slice(b"after");
        assert!(pipeline.is_held());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let counters = Counters::default();
        let mut poll = |pipeline: &mut Pipeline| pipeline.poll(&mut cx, &counters, |_, _| ());
        assert!(poll(&mut pipeline).is_pending());
        assert!(begins.try_recv().is_err());
        pipeline.fill(first, answer());
        assert!(poll(&mut pipeline).is_pending());
        let completer = begins.try_recv().expect("it has begun");
        assert!(poll(&mut pipeline).is_pending() && begins.try_recv().is_err(), "it begins once");
        completer.complete(Completion::Text(b"END\r\n".to_vec()));
        assert!(poll(&mut pipeline).is_ready() && !pipeline.is_held());
        assert_eq!(pipeline.out.contiguous(0), Some(&b"NOT_STORED\r\nEND\r\nafter"[..]));
    }

    #[test]
    fn what_failed_is_a_miss_to_a_reader_and_an_error_to_a_writer() {
        let failed = || {
            Completion::Answer(Answer {
                operation: EncodedOp::default(),
                result: Err(Unavailable::Unreachable),
            })
        };
        let mut pipeline = Pipeline::default();
        let get = pipeline.defer(PendingReply::Value { cas: false, last: true }, 0, 0).number();
        let set = ask(&mut pipeline);
        pipeline.fill(get, failed());
        pipeline.fill(set, failed());
        flush(&mut pipeline);
        assert_eq!(
            pipeline.out.contiguous(0),
            Some(&b"END\r\nSERVER_ERROR the owner of this key is unreachable\r\n"[..])
        );
    }

    #[test]
    fn large_commands_leave_fewer_slots() {
        let mut pipeline = Pipeline::default();
        let value = vec![0; ASKED_BYTES];
        let operation = encoded(b"key", set_of(&value));
        let reply = PendingReply::Classic(Classic::Store, false);
        let number = pipeline.defer(reply, operation.payload_bytes(), 0).number();
        assert!(pipeline.is_full());
        let answer = Answer { operation, result: Err(Unavailable::Unanswered) };
        pipeline.fill(number, Completion::Answer(answer));
        assert!(!pipeline.is_full());
    }

    #[test]
    fn large_values_leave_fewer_slots() {
        let mut pipeline = Pipeline::default();
        let number = pipeline.defer(PendingReply::Value { cas: false, last: true }, 0, 0).number();
        let item = pb::Item { value: vec![0; 1 << 20].into(), ..pb::Item::default() };
        let result = Ok(pb::Outcome { item: Some(item), ..pb::Outcome::default() });
        pipeline.fill(number, Completion::Answer(Answer { operation: EncodedOp::default(), result }));
        flush(&mut pipeline);
        for _ in 0..4 {
            assert!(!pipeline.is_full());
            ask(&mut pipeline);
        }
        assert!(pipeline.is_full());
    }
}
