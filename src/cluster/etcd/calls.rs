//! What a session asks of etcd. [`client`] asks a real one; a simulation has its own.
//!
//! [`client`]: crate::cluster::etcd::client

use std::time::Duration;

use crate::cluster::etcd::client::{Change, Check, Error, Record, Write};

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
