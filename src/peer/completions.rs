//! Outcomes for one connection, kept until it looks.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::command::Unavailable;
use crate::pb;
use crate::pb::EncodedOp;

/// The outcome of a [`PendingOp`](crate::peer::PendingOp).
#[derive(Debug)]
pub struct Answer {
    /// The command.
    pub operation: EncodedOp,
    /// The owner's answer, or why the owner could not be asked.
    pub result: Result<pb::Outcome, Unavailable>,
}

/// Outcomes for one connection, by the numbers it gave.
#[derive(Debug, Default)]
pub struct CompletionQueue(Mutex<Inside>);

/// An outcome.
#[derive(Debug)]
pub enum Completion {
    /// The answer to a command.
    Answer(Answer),
    /// Bytes for the client, as they are.
    Text(Vec<u8>),
}

#[derive(Debug, Default)]
struct Inside {
    completed: Vec<(u64, Completion)>,
    waker: Option<Waker>,
}

/// Fills one slot of a connection, once.
#[derive(Debug)]
pub struct Completer {
    queue: Arc<CompletionQueue>,
    number: u64,
}

impl Completer {
    /// For the slot of this number.
    pub fn new(queue: Arc<CompletionQueue>, number: u64) -> Self {
        Self { queue, number }
    }

    /// The slot's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Fills the slot.
    pub fn complete(self, completion: Completion) {
        self.queue.post(self.number, completion);
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To a connection.
    Queue(Completer),
    /// To a task that waits for this one alone.
    Call(oneshot::Sender<Answer>),
}

impl ReplyTo {
    pub(super) fn answer(self, answer: Answer) {
        match self {
            Self::Queue(completer) => completer.complete(Completion::Answer(answer)),
            // The waiting task may have gone.
            Self::Call(sender) => _ = sender.send(answer),
        }
    }
}

impl CompletionQueue {
    /// Puts an outcome in, under the number that its receiver gave.
    pub fn post(&self, number: u64, completion: Completion) {
        let waker = {
            let mut inside = self.0.lock();
            inside.completed.push((number, completion));
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves new outcomes behind the content of `into`; pending when there are none.
    pub fn poll_take(&self, cx: &mut Context<'_>, into: &mut Vec<(u64, Completion)>) -> Poll<()> {
        let mut inside = self.0.lock();
        if inside.completed.is_empty() {
            match &mut inside.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                waker => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        into.append(&mut inside.completed);
        Poll::Ready(())
    }
}
