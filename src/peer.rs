//! Calls to other nodes.
//!
//! A [`PendingOp`] is a command on its way to its owner. Its sender holds the other end of its [`ReplyTo`], and
//! receives exactly one answer, whatever happens.
//!
//! [`link`] sends the operations of one thread to one member, over a [`transport`]: [`grpc`]
//! between processes. [`receive`] is the other end.
//!
//! All time in this room is tokio's, so that it can be paused and simulated.

mod calls;
pub mod completions;
pub mod giving;
pub mod grpc;
pub mod identity;
pub mod link;
pub mod options;
pub mod pings;
pub mod receive;
pub mod tls;
pub mod transport;
pub(crate) mod yielder;

use tokio::time::Instant;

use crate::command::Unavailable;
use crate::pb;
use crate::pb::EncodedOp;
pub use crate::peer::completions::Answer;
use crate::peer::completions::ReplyTo;

/// A command on its way to its owner. It is answered exactly once; a dropped one answers that no owner replied.
#[derive(Debug)]
pub struct PendingOp {
    operation: EncodedOp,
    /// The epoch of the view by which it was sent on its way.
    pub epoch: u64,
    /// When its sender gives up; it must not be executed later.
    pub deadline: Instant,
    /// Whether a peer has sent it: it is not sent on, and its sender asks again when its value has to be loaded.
    pub for_peer: bool,
    /// The owner had changed and said so: the command is not sent on a second time.
    pub rerouted: bool,
    reply_to: Option<ReplyTo>,
}

impl PendingOp {
    /// A command that sets out.
    pub fn new(operation: EncodedOp, epoch: u64, deadline: Instant, reply_to: ReplyTo) -> Self {
        Self { operation, epoch, deadline, for_peer: false, rerouted: false, reply_to: Some(reply_to) }
    }

    /// The command.
    pub fn operation(&self) -> &EncodedOp {
        &self.operation
    }

    /// Its share of the bytes that may wait: its key and its value.
    pub fn bytes(&self) -> usize {
        self.operation.payload_bytes()
    }

    /// Tells the outcome to the waiting side.
    pub fn answer(mut self, result: Result<pb::Outcome, Unavailable>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<pb::Outcome, Unavailable>) {
        if let Some(reply_to) = self.reply_to.take() {
            reply_to.answer(Answer { operation: std::mem::take(&mut self.operation), result });
        }
    }
}

impl Drop for PendingOp {
    fn drop(&mut self) {
        self.finish(Err(Unavailable::Unanswered));
    }
}

#[cfg(test)]
pub(crate) mod tests;
