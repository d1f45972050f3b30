//! How other nodes are reached: a stream to each, and calls.

use std::future::Future;
use std::pin::Pin;

use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use crate::cluster::view::Member;
use crate::pb;
use crate::peer::link::batches::Batches;

/// A way to reach other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to a member: sends `batches` as they come, and returns the stream of outcomes. Dropping that ends
    /// both directions. Must be called within a tokio runtime, whose threads then do all the work.
    fn open(&self, to: &Member, batches: Batches) -> Opening;

    /// Asks a member to load a value, and waits for it.
    fn load(&self, to: &Member, request: pb::LoadRequest) -> Calling<pb::Outcome>;

    /// Has a member flush the keys with a prefix. A call that is given up may be carried out later.
    fn flush_prefix(&self, to: &Member, request: pb::FlushPrefixRequest) -> Calling<pb::FlushPrefixReply>;

    /// Opens a stream to a member over which it hands out items, as [`Transport::open`] does one of operations.
    fn move_items(&self, to: &Member, requests: MoveRequests) -> Calling<MoveStream>;
}

/// A call under way.
pub type Calling<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A stream that comes about.
pub type Opening = Pin<Box<dyn Future<Output = Result<OutcomeStream, Error>> + Send>>;

/// The outcomes on a stream. Its end means that nothing more will be answered.
pub type OutcomeStream = Pin<Box<dyn Stream<Item = Result<pb::Outcomes, Error>> + Send>>;

/// Requests for items, as they come.
pub type MoveRequests = ReceiverStream<pb::MoveRequest>;

/// Their answers, in the same order.
pub type MoveStream = Pin<Box<dyn Stream<Item = Result<pb::MoveReply, Error>> + Send>>;

/// Why there is no stream, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(String),
    /// It did not finish in time.
    #[error("no answer in time")]
    Silent,
    /// The peer ended the stream, or the connection under it broke.
    #[error("{0}")]
    Ended(String),
}

impl From<pb::Malformed> for Error {
    fn from(error: pb::Malformed) -> Self {
        Self::Ended(error.to_string())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let why = match std::error::Error::source(&status) {
            Some(source) => format!("{}: {}", status.message(), innermost(source)),
            None => status.message().to_owned(),
        };
        Self::Ended(format!("{}: {why}", status.code()))
    }
}

/// The error at the bottom: those above it only say that there is one.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
