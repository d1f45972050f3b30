//! The receiving end of a stream of requests for items that change nodes: answers one after another.

use std::pin::pin;
use std::sync::Arc;

use tokio::task::yield_now;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::debug;

use crate::pb;
use crate::peer::identity::Identity;
use crate::peer::receive::Executor;
use crate::peer::yielder::generate;

/// Steps that are made at once where one has found nothing. What is asked for by its key comes behind them.
const EMPTY_STEPS: usize = 9;

/// Answers the requests of a stream until it ends, or `stop` is cancelled.
pub fn serve_moves<E: Executor>(
    executor: Arc<E>,
    me: Arc<Identity>,
    stop: CancellationToken,
    incoming: impl Stream<Item = Result<pb::MoveRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Result<pb::MoveReply, Status>> + Send + Unpin + 'static {
    generate(|mut yielder| async move {
        let mut incoming = pin!(incoming);
        let first = incoming.next().await.ok_or_else(|| Status::invalid_argument("an empty stream"))??;
        let caller = me.caller(first.call)?;
        debug!(peer = caller, epoch = first.epoch, "items are asked for");
        let mut giver = executor.giver(caller, first.incarnation, first.epoch);
        while let Some(Some(request)) = stop.run_until_cancelled(incoming.next()).await {
            let request = request?;
            let mut reply = giver.give(&request);
            for _ in 0..EMPTY_STEPS {
                if request.bytes == 0 || reply.is_over || !reply.items.is_empty() {
                    break;
                }
                yield_now().await;
                reply = giver.give(&request);
            }
            yielder.hand_out(reply).await;
            // Clients of this thread come in between.
            yield_now().await;
        }
        Ok(())
    })
}
