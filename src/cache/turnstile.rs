//! Where commands wait, in their order, until it is sure where they belong: those whose owner
//! said that it is another one, and those for slots that others may still answer for.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::board::Board;
use crate::cache::routing::{Place, Routing};
use crate::command::Unavailable;
use crate::peer::link::Returned;

/// Lets commands through, one after the other, each at the latest at its deadline.
pub(super) async fn run(
    cache: Weak<Cache>,
    board: Arc<Board>,
    mut queue: mpsc::Receiver<Returned>,
) {
    while let Some(Returned { mut job, epoch }) = queue.recv().await {
        loop {
            let Some(routing) = wait(&board, &job.operation().key, epoch, job.deadline).await else {
                let why = if job.rerouted { Unavailable::Moved } else { Unavailable::Unreachable };
                job.answer(Err(why));
                break;
            };
            let Some(cache) = cache.upgrade() else { return };
            job.epoch = routing.epoch;
            match routing.place(&job.operation().key) {
                // The routing may have changed in between; then it goes round once more.
                Place::Here { .. } | Place::Soon => match cache.execute_here(job) {
                    None => break,
                    Some(back) => job = back,
                },
                place => {
                    cache.send(&routing, place, job);
                    break;
                }
            }
        }
    }
}

/// A routing of at least this epoch in which it is sure where the key belongs.
async fn wait(
    board: &Board,
    key: &[u8],
    epoch: u64,
    deadline: Instant,
) -> Option<Arc<Routing>> {
    let sure = |routing: &Routing| routing.epoch >= epoch && routing.place(key) != Place::Soon;
    timeout_at(deadline, board.wait_for(sure)).await.ok()
}
