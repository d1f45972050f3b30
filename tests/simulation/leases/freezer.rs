//! Stops the tasks of a process, as SIGSTOP does: what they wait for happens, and they do not see it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::watch;

/// Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Freezer {
    frozen: Arc<watch::Sender<bool>>,
    waiting: Arc<Mutex<Vec<Waker>>>,
}

impl Freezer {
    pub fn new() -> Self {
        Self { frozen: Arc::new(watch::Sender::new(false)), waiting: Arc::default() }
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
        self.waiting.lock().drain(..).for_each(Waker::wake);
    }

    pub fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    /// Returns when it is not frozen.
    pub async fn thawed(&self) {
        // The sender lives as long as this handle.
        _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    /// A task that stands still while this is frozen.
    pub fn hold<F: Future>(&self, task: F) -> Held<F> {
        Held { freezer: self.clone(), task: Box::pin(task) }
    }
}

pub struct Held<F> {
    freezer: Freezer,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Held<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.freezer.is_frozen() {
            self.freezer.waiting.lock().push(context.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}
