//! The open connections: for `stats conns`, for the connection limit, and to wake them all at a stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::clock::Seconds;
use crate::events::{Events, Kinds};

/// Why a connection ended (memcached logger.h, `log_entry` close reasons).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client or the server closed it.
    Normal,
    /// The network failed.
    Error,
    /// It was silent for too long.
    Idle,
    /// The node is stopping.
    Shutdown,
}

impl CloseReason {
    /// Its name in `watch connevents`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Error => "error",
            Self::Idle => "idle_timeout",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a connection is doing, in memcached's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionState {
    /// Waits for a command.
    Read,
    /// Waits for the rest of a value.
    Value,
    /// Waits for the client to take its replies.
    Write,
    /// Shows events or a dump.
    Watch,
}

impl ConnectionState {
    const ALL: [Self; 4] = [Self::Read, Self::Value, Self::Write, Self::Watch];

    /// Its name in `stats conns` (memcached.c, `state_text`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "conn_read",
            Self::Value => "conn_nread",
            Self::Write => "conn_mwrite",
            Self::Watch => "conn_watch",
        }
    }
}

/// One open connection, as others see it.
#[derive(Debug)]
pub struct Connection {
    /// The number of its socket; also its `cfd` in `watch`.
    pub id: u64,
    /// Where the client is, such as `tcp:127.0.0.1:40000`.
    pub peer: String,
    /// Where it came in.
    pub listen: Arc<str>,
    state: AtomicU8,
    /// When its last command came.
    last_command: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

impl Connection {
    /// Tells watchers that it has come, or has `ended`.
    pub fn tell(&self, events: &Events, ended: Option<CloseReason>) {
        if !events.watched(Kinds::CONNEVENTS) {
            return;
        }
        events.tell(Kinds::CONNEVENTS, |line| {
            let (transport, address) = self.peer.split_once(':').unwrap_or(("", ""));
            let transport = if transport == "unix" { "local" } else { "tcp" };
            let (ip, port) = address.rsplit_once(':').unwrap_or(("unix", "0"));
            let ip = ip.trim_matches(['[', ']']);
            let kind = if ended.is_some() { "conn_close" } else { "conn_new" };
            line.push_str(&format!("type={kind} rip={ip} rport={port} transport={transport} "));
            if let Some(ended) = ended {
                line.push_str(&format!("reason={} ", ended.name()));
            }
            line.push_str(&format!("cfd={}", self.id));
        });
    }

    /// What it is doing.
    pub fn state(&self) -> ConnectionState {
        ConnectionState::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    /// Notes what it is doing.
    #[inline]
    pub fn set_state(&self, state: ConnectionState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// When its last command came.
    pub fn last_command(&self) -> Seconds {
        self.last_command.load(Ordering::Relaxed)
    }

    /// Notes that a command came.
    #[inline]
    pub fn note_command(&self, now: Seconds) {
        self.last_command.store(now, Ordering::Relaxed);
    }

    /// Wakes its task, when others need it to check its state.
    pub fn set_waker(&self, waker: Waker) {
        *self.waker.lock() = Some(waker);
    }
}

/// Every open connection.
#[derive(Debug)]
pub struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    listening: Mutex<Vec<(u64, Arc<str>)>>,
    slots: Arc<Semaphore>,
    max: usize,
    /// Whether new ones are accepted; without `maxconns_fast` they are not at the limit.
    pub accepting: AtomicBool,
}

impl Connections {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Self {
        Self {
            open: Mutex::default(),
            listening: Mutex::default(),
            slots: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            max,
            accepting: AtomicBool::new(true),
        }
    }

    /// The slots that connections take; one each.
    pub fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    /// Lists a connection until it leaves.
    pub fn enter(&self, id: u64, peer: String, listen: Arc<str>, now: Seconds) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            id,
            peer,
            listen,
            state: AtomicU8::new(ConnectionState::Read as u8),
            last_command: AtomicU32::new(now),
            waker: Mutex::new(None),
        });
        self.open.lock().insert(id, connection.clone());
        connection
    }

    /// Takes a connection off the list. Its socket may be closed already and another connection may have its number;
    /// that one stays.
    pub fn leave(&self, connection: &Arc<Connection>) {
        let mut open = self.open.lock();
        if open.get(&connection.id).is_some_and(|open| Arc::ptr_eq(open, connection)) {
            open.remove(&connection.id);
        }
    }

    /// Lists a listener: the number of its socket, and where it listens.
    pub fn listen(&self, id: u64, name: Arc<str>) {
        self.listening.lock().push((id, name));
    }

    /// Shows each listener.
    pub fn each_listener(&self, mut show: impl FnMut(u64, &str)) {
        self.listening.lock().iter().for_each(|(id, name)| show(*id, name));
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// How many may be open.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Shows each, by number.
    pub fn each(&self, mut show: impl FnMut(&Connection)) {
        self.open.lock().values().for_each(|connection| show(connection));
    }

    /// Wakes the task of each, so that it sees that the node is stopping.
    pub fn wake_all(&self) {
        self.each(|connection| {
            if let Some(waker) = &*connection.waker.lock() {
                waker.wake_by_ref();
            }
        });
    }
}
