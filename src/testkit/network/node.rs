//! What a node of the network in memory answers.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::pb;
use crate::peer::giving::serve_moves;
use crate::peer::identity::Identity;
use crate::peer::receive::{Executor, serve_stream};
use crate::peer::transport::{Calling, Error};

pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers a stream of messages.
pub(super) type Serve<T, R> = Arc<dyn Fn(Messages<T>) -> Messages<R> + Send + Sync>;

/// What a node answers.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) serve: Serve<pb::Operations, pb::Outcomes>,
    pub(super) move_items: Serve<pb::MoveRequest, pb::MoveReply>,
    pub(super) load: Arc<dyn Fn(pb::LoadRequest) -> Calling<pb::Outcome> + Send + Sync>,
    pub(super) flush_prefix:
        Arc<dyn Fn(pb::FlushPrefixRequest) -> Calling<pb::FlushPrefixReply> + Send + Sync>,
    /// Cancelled when the node is killed.
    pub(super) end: CancellationToken,
}

impl Node {
    /// One that executes by this.
    pub(super) fn new<E: Executor>(me: Identity, executor: Arc<E>) -> Self {
        let (me, end) = (Arc::new(me), CancellationToken::new());
        Self {
            serve: Arc::new({
                let (executor, me, stop) = (executor.clone(), me.clone(), end.clone());
                move |incoming| Box::pin(serve_stream(executor.clone(), me.clone(), stop.clone(), incoming))
            }),
            move_items: Arc::new({
                let (executor, me, stop) = (executor.clone(), me.clone(), end.clone());
                move |incoming| Box::pin(serve_moves(executor.clone(), me.clone(), stop.clone(), incoming))
            }),
            load: Arc::new({
                let (executor, me) = (executor.clone(), me.clone());
                move |request| Box::pin(load(executor.clone(), me.clone(), request))
            }),
            flush_prefix: Arc::new(move |request| {
                Box::pin(std::future::ready(flush_prefix(&*executor, &me, request)))
            }),
            end,
        }
    }
}

/// A node's answer to a call, to load a value.
async fn load<E: Executor>(
    executor: Arc<E>,
    me: Arc<Identity>,
    request: pb::LoadRequest,
) -> Result<pb::Outcome, Error> {
    me.caller(request.call.clone())?;
    executor.load(request).await.map_err(|broken| Error::Ended(broken.to_string()))
}

/// A node's answer to a call, to flush the keys with a prefix.
fn flush_prefix<E: Executor>(
    executor: &E,
    me: &Identity,
    request: pb::FlushPrefixRequest,
) -> Result<pb::FlushPrefixReply, Error> {
    me.caller(request.call)?;
    let epoch = executor.flush_prefix(&request.prefix).map_err(|why| Error::Ended(format!("{why:?}")))?;
    Ok(pb::FlushPrefixReply { epoch })
}
