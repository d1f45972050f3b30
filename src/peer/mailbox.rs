//! Where the answers to one connection's commands wait until it looks.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::peer::Answer;

/// Answers that have come in for one connection, by the numbers it gave.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    answers: Vec<(u64, Answer)>,
    waker: Option<Waker>,
}

/// Where an answer goes.
#[derive(Debug)]
pub enum Ticket {
    /// To a connection, under this number.
    Mail(Arc<Mailbox>, u64),
    /// To whoever waits for this one alone.
    Call(oneshot::Sender<Answer>),
}

impl Ticket {
    pub(super) fn answer(self, answer: Answer) {
        match self {
            Self::Mail(mailbox, number) => {
                let waker = {
                    let mut inside = mailbox.0.lock();
                    inside.answers.push((number, answer));
                    inside.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            // Who waited may have gone.
            Self::Call(sender) => _ = sender.send(answer),
        }
    }
}

impl Mailbox {
    /// Moves what has come in behind what is in `answers`; pending when that is nothing.
    pub fn poll_take(&self, cx: &mut Context<'_>, answers: &mut Vec<(u64, Answer)>) -> Poll<()> {
        let mut inside = self.0.lock();
        if inside.answers.is_empty() {
            match &mut inside.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                waker => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        answers.append(&mut inside.answers);
        Poll::Ready(())
    }
}
