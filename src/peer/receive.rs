//! The receiving end of a stream of operations: sends the time of this node, then executes batch after batch.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::debug;

use crate::pb;
use crate::pb::OpRef;
use crate::peer::identity::Identity;
use crate::peer::yielder::{Yielder, generate};
use crate::store::TooManyFlushes;

/// Something is sent at least this often, so that the caller's idea of the time here stays fresh (`link::peer_clock`).
const HEARTBEAT: Duration = Duration::from_secs(2);

/// While a batch has to wait, the caller is told this often that this node is there.
const HEARTBEAT_WAITING: Duration = Duration::from_millis(50);

/// Executes what other nodes send.
pub trait Executor: Send + Sync + 'static {
    /// The epoch of this node's view.
    fn epoch(&self) -> u64;

    /// Answers operations from the front of the batch, at least one: all of them, or as many as
    /// fill a message ([`OUTCOMES_BYTES`]). Called again for the rest. What it answers carries the
    /// epoch by which it was decided; the time is filled in later.
    ///
    /// The future may wait, for this node to come to the batch's epoch. It is dropped when the
    /// stream breaks meanwhile.
    ///
    /// # Errors
    /// The outcome of the operations taken from the batch is unknown; ends the stream.
    fn execute(&self, batch: &mut Batch) -> impl Future<Output = Result<pb::Outcomes, Broken>> + Send;

    /// Executes a read, once its value has been loaded.
    ///
    /// # Errors
    /// The operation cannot be read.
    fn load(&self, request: pb::LoadRequest) -> impl Future<Output = Result<pb::Outcome, Broken>> + Send;

    /// Makes everything dead that lies here under keys with this prefix. Returns the epoch by which this node answers for its
    /// keys afterwards; 0 when it may not.
    ///
    /// # Errors
    /// Too many prefixes are being flushed.
    fn flush_prefix(&self, prefix: &[u8]) -> Result<u64, TooManyFlushes>;

    /// Hands out items to the node of this id and incarnation whose slots went there with the view of this epoch.
    fn giver(self: Arc<Self>, id: String, incarnation: u64, epoch: u64) -> Box<dyn Giver>;
}

/// Hands out items to one node.
pub trait Giver: Send {
    /// Answers a request. What the answer holds lies here no more.
    fn give(&mut self, request: &pb::MoveRequest) -> pb::MoveReply;
}

/// Outcomes leave once their values have this many bytes.
pub const OUTCOMES_BYTES: usize = 1 << 20;

/// An operation of more bytes than this has a large value, for which room is made before it is stored.
const LARGE_BYTES: usize = 64 << 10;

/// Operations that came together.
#[derive(Debug)]
pub struct Batch {
    /// The epoch of the sender's view.
    pub epoch: u64,
    /// From when on none of them may be executed any more.
    pub expires: Instant,
    /// Those that were not answered yet, as they came.
    rest: Bytes,
    /// Where they begin in it.
    from: usize,
}

impl Batch {
    fn new(epoch: u64, expires: Instant, operations: Bytes) -> Self {
        Self { epoch, expires, rest: operations, from: 0 }
    }

    /// Whether all have been answered.
    pub fn is_over(&self) -> bool {
        self.from == self.rest.len()
    }

    /// The next operation; `None` when all have been answered.
    ///
    /// # Errors
    /// It is not valid: nobody could be told its outcome.
    #[inline]
    pub fn take(&mut self) -> Result<Option<OpRef<'_>>, Broken> {
        if self.is_over() {
            return Ok(None);
        }
        let mut rest = &self.rest[self.from..];
        let opened = OpRef::take(&mut rest)?;
        self.from = self.rest.len() - rest.len();
        Ok(Some(opened))
    }

    /// Whether `is_such` accepts one of those that were not answered yet.
    pub fn any(&self, mut is_such: impl FnMut(&OpRef<'_>) -> bool) -> bool {
        let mut rest = &self.rest[self.from..];
        while !rest.is_empty()
            && let Ok(opened) = OpRef::take(&mut rest)
        {
            if is_such(&opened) {
                return true;
            }
        }
        false
    }

    /// Bytes of those that were not answered yet and have a large value.
    pub fn large_bytes(&self) -> usize {
        let mut rest = &self.rest[self.from..];
        if rest.len() <= LARGE_BYTES {
            return 0;
        }
        let lens = std::iter::from_fn(|| {
            let len = prost::decode_length_delimiter(&mut rest).ok()?;
            rest = rest.get(len..)?;
            Some(len)
        });
        lens.filter(|len| *len > LARGE_BYTES).sum()
    }
}

/// Operations taken from a batch cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl From<pb::Malformed> for Broken {
    fn from(error: pb::Malformed) -> Self {
        Self(error.to_string())
    }
}

/// Executes the operations of a stream, one batch after another, and hands out their outcomes. When `stop` is
/// cancelled, operations that have arrived are still answered.
pub fn serve_stream<E: Executor>(
    executor: Arc<E>,
    me: Arc<Identity>,
    stop: CancellationToken,
    incoming: impl Stream<Item = Result<pb::Operations, Status>> + Send + 'static,
) -> impl Stream<Item = Result<pb::Outcomes, Status>> + Send + Unpin + 'static {
    generate(|yielder| async move {
        let mut server = Server { executor, yielder, base: Instant::now(), last: Instant::now() };
        server.serve(&me, &stop, incoming).await
    })
}

struct Server<E> {
    executor: Arc<E>,
    yielder: Yielder<pb::Outcomes>,
    /// When the clock of this stream showed 0.
    base: Instant,
    /// When something was sent last.
    last: Instant,
}

impl<E: Executor> Server<E> {
    async fn serve(
        &mut self,
        me: &Identity,
        stop: &CancellationToken,
        incoming: impl Stream<Item = Result<pb::Operations, Status>>,
    ) -> Result<(), Status> {
        let mut incoming = pin!(incoming);
        let first = incoming.next().await.ok_or_else(|| Status::invalid_argument("an empty stream"))??;
        let caller = me.caller(first.call)?;
        debug!(peer = caller, "operations may come");
        self.send_time().await;

        let mut heartbeat = pin!(sleep(HEARTBEAT));
        let mut stopped = pin!(stop.cancelled());
        loop {
            let message = tokio::select! {
                biased;
                message = incoming.next() => message,
                () = &mut stopped => return Ok(()),
                () = &mut heartbeat => {
                    if self.last.elapsed() >= HEARTBEAT {
                        self.send_time().await;
                    }
                    heartbeat.as_mut().reset(self.last + HEARTBEAT);
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            self.answer(message?).await?;
        }
    }

    async fn answer(&mut self, message: pb::Operations) -> Result<(), Status> {
        let expires = self.base.checked_add(Duration::from_micros(message.expires_micros));
        let expires = expires.ok_or_else(|| Status::invalid_argument("a time that is out of reach"))?;
        let mut batch = Batch::new(message.epoch, expires, message.operations);
        while !batch.is_over() {
            let before = batch.from;
            let executor = Arc::clone(&self.executor);
            let outcomes = {
                let mut execution = pin!(executor.execute(&mut batch));
                loop {
                    tokio::select! {
                        biased;
                        outcomes = &mut execution => break outcomes,
                        // In a block, so that no timer is made for what is executed at once.
                        () = async { sleep(HEARTBEAT_WAITING).await } => self.send_time().await,
                    }
                }
            };
            let outcomes = outcomes.map_err(|broken| Status::aborted(broken.to_string()))?;
            if batch.from == before {
                return Err(Status::internal("operations were not answered"));
            }
            self.send(outcomes).await;
        }
        Ok(())
    }

    async fn send_time(&mut self) {
        let epoch = self.executor.epoch();
        self.send(pb::Outcomes { epoch, ..pb::Outcomes::default() }).await;
    }

    async fn send(&mut self, mut outcomes: pb::Outcomes) {
        self.last = Instant::now();
        let now = self.last.saturating_duration_since(self.base);
        outcomes.now_micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.yielder.hand_out(outcomes).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use prost::encoding::encode_varint;

    use super::*;

    #[test]
    fn only_operations_with_a_large_value_count() {
        let large_bytes = |lens: &[usize]| {
            let mut operations = BytesMut::new();
            for &len in lens {
                encode_varint(len as u64, &mut operations);
                operations.put_bytes(0, len);
            }
            Batch::new(1, Instant::now(), operations.freeze()).large_bytes()
        };
        assert_eq!(large_bytes(&[]), 0);
        assert_eq!(large_bytes(&[LARGE_BYTES]), 0);
        assert_eq!(large_bytes(&[1_000; 200]), 0);
        assert_eq!(large_bytes(&[10, LARGE_BYTES + 1, 10, 1 << 20]), LARGE_BYTES + 1 + (1 << 20));
    }
}
