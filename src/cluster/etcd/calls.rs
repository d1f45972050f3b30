//! What a session asks of etcd. [`client`] asks a real one; a simulation has its own.
//!
//! [`client`]: crate::cluster::etcd::client

use std::time::Duration;

use crate::cluster;

/// The way to etcd.
pub trait Connect: Send + 'static {
    /// A connection.
    type Calls: Calls;

    /// Connects to one endpoint.
    ///
    /// # Errors
    /// Why it is no use.
    fn connect(&self, endpoint: &str) -> impl Future<Output = Result<Self::Calls, Error>> + Send;
}

/// The calls of a connection, each with a deadline. All that is written and read is linearizable;
/// what a watch tells may come late. A call that failed may have happened all the same.
pub trait Calls: Send + Sync + 'static {
    /// A running watch.
    type Watch: Watch;

    /// Every key that starts with `prefix`, and the revision at which that was so.
    fn read(&self, prefix: &str) -> impl Future<Output = Result<(i64, Vec<(String, Record)>), Error>> + Send;

    /// What a key held at a revision of the past.
    ///
    /// # Errors
    /// [`Error::Compacted`] besides the usual.
    fn read_at(&self, key: &str, revision: i64)
    -> impl Future<Output = Result<Option<Record>, Error>> + Send;

    /// Writes all when every check holds. The revision of the writes, or `None` when one did not.
    fn write_if(
        &self,
        checks: Vec<Check>,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Option<i64>, Error>> + Send;

    /// A new lease of at least this length: its id.
    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Renews a lease: whether it still lived.
    fn keep_alive(&self, id: i64) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Ends a lease, and every key that goes with it.
    fn revoke(&self, id: i64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Watches every key that starts with `prefix`, from the revision on.
    fn watch(&self, prefix: &str, from: i64) -> impl Future<Output = Result<Self::Watch, Error>> + Send;
}

/// A running watch.
pub trait Watch: Send {
    /// The next changes in their order, for which there is no deadline. Cancellation safe.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Change>, Error>> + Send;
}

/// A key as etcd holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is stored.
    pub value: Vec<u8>,
    /// The revision that stored it: what a compare-and-swap compares.
    pub revision: i64,
    /// The lease it goes with; 0 for none.
    pub lease: i64,
}

/// What happened to one key.
#[derive(Debug)]
pub struct Change {
    /// The whole key.
    pub key: String,
    /// The revision of the change.
    pub revision: i64,
    /// What it holds now; `None` when it was deleted.
    pub record: Option<Record>,
}

/// What must be so for a transaction to write.
#[derive(Debug)]
pub enum Check {
    /// The key has this revision still; 0: there is none.
    Unchanged(String, i64),
    /// No key that starts with this was written after this revision. One that was deleted since
    /// does not count.
    NoneNewer(String, i64),
}

/// One write of a transaction.
#[derive(Debug)]
pub enum Write {
    /// Stores a value that goes with a lease; lease 0 for none.
    Put(String, Vec<u8>, i64),
    /// Deletes a key.
    Delete(String),
}

/// Why an etcd endpoint was no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens there, or it does not speak TLS as told.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It did not answer in time.
    #[error("no answer to {0} within {1:?}")]
    Silent(&'static str, Duration),
    /// It refused.
    #[error("{0} was refused: {1}")]
    Refused(&'static str, String),
    /// What was asked for lies before the history that etcd still has.
    #[error("the history was compacted")]
    Compacted,
    /// The watch ended.
    #[error("the watch ended: {0}")]
    WatchEnded(String),
    /// It cannot be connected to as told.
    #[error(transparent)]
    Options(#[from] cluster::Error),
}
