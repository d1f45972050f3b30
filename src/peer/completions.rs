//! Where what one connection waits for lies until it looks.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::command::Unavailable;
use crate::pb;
use crate::pb::EncodedOp;

/// What came of a [`PendingOp`](crate::peer::PendingOp).
#[derive(Debug)]
pub struct Answer {
    /// What was asked.
    pub operation: EncodedOp,
    /// What its owner answered, or why it could not be asked.
    pub result: Result<pb::Outcome, Unavailable>,
}

/// What has come in for one connection, by the numbers it gave.
#[derive(Debug, Default)]
pub struct CompletionQueue(Mutex<Inside>);

/// What comes in.
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

    /// Hands in what the connection waits for.
    pub fn complete(self, completion: Completion) {
        self.queue.post(self.number, completion);
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To a connection.
    Queue(Completer),
    /// To whoever waits for this one alone.
    Call(oneshot::Sender<Answer>),
}

impl ReplyTo {
    pub(super) fn answer(self, answer: Answer) {
        match self {
            Self::Queue(completer) => completer.complete(Completion::Answer(answer)),
            // Who waited may have gone.
            Self::Call(sender) => _ = sender.send(answer),
        }
    }
}

impl CompletionQueue {
    /// Puts something in, under the number that its receiver gave.
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

    /// Moves what has come in behind what is in `into`; pending when that is nothing.
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
