//! One server: the connections to it, and what is known of it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::origin::memcached::address::Address;
use crate::origin::memcached::connection::{Answer, Connection, Dialect, Trouble};
use crate::origin::memcached::key::Key;
use crate::origin::memcached::options::Options;
use crate::origin::{Failed, Fetched};

/// How long a connection is kept that nobody needs: a burst of misses is over by then.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a server that does not know the meta commands is not asked by them: it may be replaced by a newer one.
const CLASSIC_FOR: Duration = Duration::from_secs(300);

/// A server and the connections to it that are idle.
#[derive(Debug)]
pub(super) struct Server {
    address: Address,
    connect_timeout: Duration,
    value_max: usize,
    permits: Semaphore,
    /// The one that was used last stands last. With those in use they are never more than there are permits.
    idle: Mutex<Vec<Idle>>,
    /// Until when only classic commands are sent.
    classic_until: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Server {
    /// A server that nothing is connected to yet.
    pub fn new(address: Address, options: &Options) -> Self {
        Self {
            address,
            connect_timeout: options.connect_timeout,
            value_max: options.value_max,
            permits: Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS)),
            idle: Mutex::default(),
            classic_until: Mutex::default(),
        }
    }

    /// Asks for a value, on a connection that is idle or on a new one. Cancellation safe: the connection is closed.
    ///
    /// # Errors
    ///
    /// Begins with the name of the server.
    pub async fn fetch(&self, key: &Key) -> Result<Fetched, Failed> {
        if !key.can_be_sent() {
            let why = self.failed("no text command can ask for a binary key of this length");
            return Ok(Fetched::Unaskable(why.0));
        }
        let _permit = self.permits.acquire().await.map_err(|error| self.failed(error))?;
        if let Some(mut connection) = self.take_idle() {
            match self.ask(&mut connection, key).await {
                Err(Trouble::Gone(_)) => {}
                answer => return self.conclude(connection, key, answer).await,
            }
        }
        let mut connection = self.connect().await?;
        let answer = self.ask(&mut connection, key).await;
        self.conclude(connection, key, answer).await
    }

    /// Sees that a connection can be opened, and closes it; while as many as may be are in use, that is seen otherwise.
    ///
    /// # Errors
    ///
    /// Begins with the name of the server.
    pub async fn try_out(&self) -> Result<(), Failed> {
        match self.permits.try_acquire() {
            Ok(_permit) => self.connect().await.map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Keeps the connection if it is sound, and says what the answer means.
    async fn conclude(
        &self,
        mut connection: Connection,
        key: &Key,
        answer: Result<Answer, Trouble>,
    ) -> Result<Fetched, Failed> {
        let fetched = match answer {
            Ok(Answer::Absent) => Fetched::Absent,
            Ok(Answer::Found { loaded, won }) => {
                if let Some(cas) = won
                    && connection.give_back(key, cas).await.is_err()
                {
                    return Ok(Fetched::Found(loaded));
                }
                Fetched::Found(loaded)
            }
            Err(Trouble::TooLarge(why)) => return Ok(Fetched::Refused(self.failed(why).0)),
            Ok(Answer::NotUnderstood(why)) | Err(Trouble::Gone(why) | Trouble::Failed(why)) => {
                return Err(self.failed(why));
            }
        };
        self.idle.lock().push(Idle { connection, since: Instant::now() });
        Ok(fetched)
    }

    /// Asks in the dialect that the server knows, which is found out by asking.
    async fn ask(&self, connection: &mut Connection, key: &Key) -> Result<Answer, Trouble> {
        if key.is_binary() {
            return connection.ask(Dialect::Meta, key, self.value_max).await;
        }
        let mut learns = false;
        if !self.is_classic() {
            match connection.ask(Dialect::Meta, key, self.value_max).await {
                Ok(Answer::NotUnderstood(_)) => learns = true,
                answer => return answer,
            }
        }
        let answer = connection.ask(Dialect::Classic, key, self.value_max).await?;
        // Of a server that answers neither, one that wants a password for example, nothing is learnt.
        if learns && !matches!(answer, Answer::NotUnderstood(_)) {
            *self.classic_until.lock() = Some(Instant::now() + CLASSIC_FOR);
        }
        Ok(answer)
    }

    fn is_classic(&self) -> bool {
        self.classic_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// The connection that was used last, if the server has kept it too. Closes those that were idle for too long.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|connection| connection.since.elapsed() < IDLE_MAX);
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, Failed> {
        Connection::open(&self.address, self.connect_timeout).await.map_err(|why| self.failed(why))
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failed {
        Failed(format!("{}: {why}", self.address))
    }
}
