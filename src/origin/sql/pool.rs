//! Connections that are used again: a bounded number, none of them left in doubt.
//!
//! sqlx has a pool, too. This one closes a connection whose question was given up, where that one waits until the
//! database has answered it after all; tells why there is no connection, where that one tries until its time is over;
//! and asks the database one thing for a key, where that one also asks before and after whether it is there.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::mem;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::error::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::origin::sql::fault::Fault;
use crate::origin::{Failed, Fetched};

/// A connection that has been idle for longer is closed when the next one is asked for.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// A connection that has been idle for longer is tried before it is used: the database may have been started again.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// How long such a trial, or a goodbye, may take.
const TRIAL_MAX: Duration = Duration::from_secs(1);

/// A kind of database, and the query that is asked of it.
pub(super) trait Driver: Send + Sync + 'static {
    /// A connection.
    type Link: Send + 'static;

    /// Opens a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Link, Error>> + Send;

    /// Sees that the other side is there.
    fn ping(link: &mut Self::Link) -> impl Future<Output = Result<(), Error>> + Send;

    /// Says goodbye.
    fn close(link: Self::Link) -> impl Future<Output = Result<(), Error>> + Send;

    /// Sees that the query can be asked.
    fn check(&self, link: &mut Self::Link) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Asks for a key.
    fn ask(&self, link: &mut Self::Link, key: &[u8]) -> impl Future<Output = Result<Fetched, Fault>> + Send;
}

/// A database and the connections to it.
pub(super) struct Pool<D: Driver> {
    driver: D,
    /// Where it is, for messages.
    place: String,
    connect_timeout: Duration,
    connections: usize,
    permits: Semaphore,
    /// The one that was used last stands last.
    idle: Mutex<VecDeque<Idle<D::Link>>>,
}

struct Idle<L> {
    link: L,
    since: Instant,
}

impl<D: Driver> Pool<D> {
    /// A pool without connections.
    pub(super) fn new(driver: D, place: String, connections: usize, connect_timeout: Duration) -> Self {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        let permits = Semaphore::new(connections);
        Self { driver, place, connect_timeout, connections, permits, idle: Mutex::default() }
    }

    /// Asks for a key. Cancellation safe: the connection is closed then.
    pub(super) async fn fetch(&self, key: &[u8]) -> Result<Fetched, Failed> {
        let mut lease = self.lease().await?;
        let outcome = match self.driver.ask(&mut lease.link, key).await {
            Err(fault) if fault.is_of_the_key() => Ok(Fetched::Refused(self.failed(fault).0)),
            outcome => outcome,
        };
        self.settle(lease, outcome).await
    }

    /// Sees that the query can be asked. Cancellation safe.
    pub(super) async fn check(&self) -> Result<(), Failed> {
        let mut lease = self.lease().await?;
        let outcome = self.driver.check(&mut lease.link).await;
        self.settle(lease, outcome).await
    }

    async fn settle<T: Send>(&self, lease: Lease<'_, D>, outcome: Result<T, Fault>) -> Result<T, Failed> {
        match &outcome {
            Err(fault) if !fault.spares_the_connection() => {
                if fault.is_the_databases_own() {
                    // It goes in any case; a database that is told so does not complain in its log.
                    let _ = timeout(TRIAL_MAX, D::close(lease.link)).await;
                } else {
                    self.forget_idle();
                }
            }
            _ => lease.keep(),
        }
        outcome.map_err(|fault| self.failed(fault))
    }

    async fn lease(&self) -> Result<Lease<'_, D>, Failed> {
        let deadline = Instant::now() + self.connect_timeout;
        let permit = match timeout_at(deadline, self.permits.acquire()).await {
            Ok(permit) => permit.expect("nobody closes the semaphore"),
            Err(_) => {
                let (connections, waited) = (self.connections, self.connect_timeout);
                return Err(self.failed(format!("all {connections} connections were in use for {waited:?}")));
            }
        };
        match timeout_at(deadline, self.link()).await {
            Ok(Ok(link)) => Ok(Lease { link, pool: self, permit }),
            Ok(Err(error)) => Err(self.failed(Fault::from(error))),
            Err(_) => Err(self.failed(format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    /// A connection that was used before and is still good, or a new one.
    async fn link(&self) -> Result<D::Link, Error> {
        for link in self.expired() {
            // It goes in any case.
            let _ = D::close(link).await;
        }
        let last = self.idle.lock().pop_back();
        if let Some(Idle { mut link, since }) = last {
            if since.elapsed() <= IDLE_TRUSTED {
                return Ok(link);
            }
            if let Ok(Ok(())) = timeout(TRIAL_MAX, D::ping(&mut link)).await {
                return Ok(link);
            }
            self.forget_idle();
        }
        self.driver.connect().await
    }

    /// Closes those that are idle, when one broke: what broke it broke them.
    fn forget_idle(&self) {
        let broken = mem::take(&mut *self.idle.lock());
        drop(broken);
    }

    fn expired(&self) -> Vec<D::Link> {
        let mut idle = self.idle.lock();
        let count = idle.partition_point(|idle| idle.since.elapsed() > IDLE_MAX);
        idle.drain(..count).map(|idle| idle.link).collect()
    }

    fn failed(&self, why: impl Display) -> Failed {
        Failed(format!("{}: {why}", self.place))
    }
}

/// The right to use a connection. Dropped, it closes the connection: nobody knows what is still to come over it.
struct Lease<'a, D: Driver> {
    // Closed before the next one is allowed.
    link: D::Link,
    pool: &'a Pool<D>,
    permit: SemaphorePermit<'a>,
}

impl<D: Driver> Lease<'_, D> {
    /// Leaves the connection for others.
    fn keep(self) {
        let idle = Idle { link: self.link, since: Instant::now() };
        self.pool.idle.lock().push_back(idle);
        drop(self.permit);
    }
}
