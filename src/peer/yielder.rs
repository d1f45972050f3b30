//! A stream written as an async function that hands its items out. Nothing is allocated for an
//! item, and the function goes on only when the next one is asked for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio_stream::Stream;
use tonic::Status;

/// Where the function hands its items out.
#[derive(Debug)]
pub struct Yielder<T>(Arc<Mutex<Option<T>>>);

impl<T> Yielder<T> {
    /// Returns when the next item is asked for.
    pub async fn hand_out(&mut self, item: T) {
        *self.0.lock() = Some(item);
        // The poller takes the item and polls again when it wants more: no wake-up is needed.
        poll_fn(|_| if self.0.lock().is_some() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// The stream of what a function hands out; an error is its last item.
pub fn generate<T, F: Future<Output = Result<(), Status>> + Send>(
    function: impl FnOnce(Yielder<T>) -> F,
) -> Generated<T, F> {
    let slot = Arc::new(Mutex::new(None));
    Generated { function: Some(Box::pin(function(Yielder(Arc::clone(&slot))))), slot }
}

/// See [`generate`].
#[derive(Debug)]
pub struct Generated<T, F> {
    function: Option<Pin<Box<F>>>,
    slot: Arc<Mutex<Option<T>>>,
}

impl<T, F: Future<Output = Result<(), Status>> + Send> Stream for Generated<T, F> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(function) = &mut self.function else { return Poll::Ready(None) };
        let polled = function.as_mut().poll(cx);
        if let Some(item) = self.slot.lock().take() {
            return Poll::Ready(Some(Ok(item)));
        }
        let ended = ready!(polled);
        self.function = None;
        Poll::Ready(ended.err().map(Err))
    }
}
