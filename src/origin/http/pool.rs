//! The connections to the host: never more than allowed, and used again.
//!
//! hyper-util's own pool opens a connection for whoever finds none idle, also when one becomes idle meanwhile, and so
//! has no bound. Here, a slot comes first: who has one uses an idle connection, or opens one, so that connections in
//! use and idle ones together are never more than there are slots.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::http::response::Parts;
use hyper::http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::origin::http::body;
use crate::origin::http::cause::Cause;
use crate::origin::http::connection::{Connection, Connector};

/// How long an idle connection is kept. Servers close theirs after 60 s and more (nginx: 75 s, AWS load balancers:
/// 60 s): being first, we seldom ask on one that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What is read of a body that nobody wants, for the sake of its connection: bytes, and how long.
const UNWANTED_MAX: usize = 16 << 10;
const UNWANTED_PATIENCE: Duration = Duration::from_millis(100);

/// Connections to one host.
pub struct Pool {
    connector: Connector,
    slots: Semaphore,
    kept: Arc<Mutex<Kept>>,
}

/// Connections that wait to be used again.
#[derive(Default)]
struct Kept {
    /// HTTP/1.1, the one used last at the end.
    idle: Vec<Idle>,
    /// HTTP/2: one for all.
    shared: Option<Idle>,
    /// Drops what was not used for long; runs while there is something to drop.
    sweeper: Option<AbortOnDropHandle<()>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// One of so many connections at most, at least one.
    pub fn new(connector: Connector, connections: usize) -> Self {
        let slots = Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS));
        Self { connector, slots, kept: Arc::default() }
    }

    /// Asks for a target as soon as there is a slot, and waits for the head of the answer. A connection that was used
    /// before and turns out to be dead is replaced once: a GET may be sent again (RFC 9110, 9.2.2). Cancellation safe.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn ask(&self, target: &PathAndQuery, headers: &HeaderMap) -> Result<Answer<'_>, Cause> {
        let slot = self.slots.acquire().await.map_err(|_| Cause::Ended)?;
        if let Some(mut connection) = self.take().await {
            match connection.ask(target, headers).await {
                Ok(answer) => return Ok(Answer::new(self, slot, connection, answer)),
                Err(Cause::Exchange(error)) if !error.is_parse() => self.forget(&connection),
                Err(cause) => return Err(cause),
            }
        }
        let mut connection = self.publish(self.connector.connect().await?);
        connection.ready().await?;
        let answer = connection.ask(target, headers).await?;
        Ok(Answer::new(self, slot, connection, answer))
    }

    /// Sees that a connection can be opened, and closes it; while all slots are taken, that is seen otherwise.
    /// Cancellation safe.
    ///
    /// # Errors
    ///
    /// There is none, or not in time.
    pub async fn try_out(&self) -> Result<(), Cause> {
        match self.slots.try_acquire() {
            Ok(_slot) => self.connector.connect().await.map(drop),
            Err(_) => Ok(()),
        }
    }

    /// One that was used before, if there is one.
    async fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = self.kept.lock().take()?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
            self.forget(&connection);
        }
    }

    /// Lets all use a new connection, if many at a time can; gives back the one that is now used by all.
    fn publish(&self, connection: Connection) -> Connection {
        let Some(handle) = connection.share() else { return connection };
        let mut kept = self.kept.lock();
        // Several that found none at the same time have opened one each.
        if let Some(shared) = kept.shared.as_ref().filter(|shared| !shared.connection.is_closed()) {
            return shared.connection.share().unwrap_or(connection);
        }
        kept.shared = Some(Idle { connection: handle, since: Instant::now() });
        self.sweep_later(&mut kept);
        connection
    }

    /// Does not give it to anybody else.
    fn forget(&self, connection: &Connection) {
        let mut kept = self.kept.lock();
        if kept.shared.as_ref().is_some_and(|shared| shared.connection.is(connection)) {
            kept.shared = None;
        }
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock();
        let since = Instant::now();
        if connection.share().is_none() {
            kept.idle.push(Idle { connection, since });
        } else if let Some(shared) = kept.shared.as_mut().filter(|shared| shared.connection.is(&connection)) {
            shared.since = since;
        }
        self.sweep_later(&mut kept);
    }

    fn sweep_later(&self, kept: &mut Kept) {
        if kept.sweeper.as_ref().is_none_or(|sweeper| sweeper.is_finished()) {
            let sweeper = tokio::spawn(sweep(Arc::downgrade(&self.kept)));
            kept.sweeper = Some(AbortOnDropHandle::new(sweeper));
        }
    }
}

impl Kept {
    fn take(&mut self) -> Option<Connection> {
        self.shared.take_if(|shared| shared.connection.is_closed());
        if let Some(shared) = &self.shared {
            return shared.connection.share();
        }
        std::iter::from_fn(|| self.idle.pop())
            .map(|idle| idle.connection)
            .find(|connection| !connection.is_closed())
    }
}

/// Drops what was idle for long, until nothing is left or the pool is gone.
async fn sweep(kept: Weak<Mutex<Kept>>) {
    loop {
        sleep(IDLE_MAX).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut kept = kept.lock();
        kept.idle.retain(|idle| idle.since.elapsed() < IDLE_MAX && !idle.connection.is_closed());
        kept.shared.take_if(|shared| shared.since.elapsed() >= IDLE_MAX || shared.connection.is_closed());
        if kept.idle.is_empty() && kept.shared.is_none() {
            // Whoever keeps a connection next would take this one for running still.
            if let Some(sweeper) = kept.sweeper.take() {
                drop(sweeper.detach());
            }
            return;
        }
    }
}

/// An answer whose body was not read yet. Dropped so, its connection is closed, or over HTTP/2 its stream.
pub struct Answer<'a> {
    /// Its status and headers.
    pub head: Parts,
    body: Incoming,
    connection: Connection,
    pool: &'a Pool,
    /// Given back last: the connection is kept or closed before another is opened.
    _slot: SemaphorePermit<'a>,
}

impl<'a> Answer<'a> {
    fn new(
        pool: &'a Pool,
        slot: SemaphorePermit<'a>,
        connection: Connection,
        answer: hyper::Response<Incoming>,
    ) -> Self {
        let (head, body) = answer.into_parts();
        Self { head, body, connection, pool, _slot: slot }
    }

    /// Its body, which is not read on once it is larger than allowed.
    ///
    /// # Errors
    ///
    /// It is larger, or incomplete.
    pub async fn value(mut self, max: usize) -> Result<Bytes, Cause> {
        let value = body::read(&mut self.body, max).await?;
        self.pool.keep(self.connection);
        Ok(value)
    }

    /// Reads its body if that is soon done, so that the connection can be used again, and closes it otherwise.
    pub async fn finish(self) {
        // No matter which of the two it was.
        let _ = timeout(UNWANTED_PATIENCE, self.value(UNWANTED_MAX)).await;
    }
}
