//! One client's requests, executed in order, and their answers in one buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::clock::Seconds;
use crate::command::{Command, Outcome, Verb};
use crate::events::{Kinds, write_uri_encoded};
use crate::item::ItemView;
use crate::protocol::Request;
use crate::protocol::admin::Crawler;
use crate::protocol::binary;
use crate::protocol::codec::{Flow, Handler};
use crate::protocol::error::ProtocolError;
use crate::protocol::reply::{self, Reply};
use crate::server::Door;
use crate::server::connections::Connection;
use crate::server::memcached::Ended;
use crate::server::prefix::Event;
use crate::stats::{Counter, Counters};
use crate::store::Caller;

/// Bytes of answers after which a client is made to take them before more is executed.
const OUT_HIGH_WATER: usize = 256 << 10;

/// Bytes of a command line that are shown to watchers and logged: lines wait for slow watchers,
/// and a multiget's may be long (memcached logger.c, `LOGGER_ASCII_CMD`).
const SHOWN_LINE_MAX: usize = 512;

/// One client, between its codec and the store.
pub(super) struct Session {
    pub(super) door: Arc<Door>,
    pub(super) counters: Arc<Counters>,
    pub(super) connection: Arc<Connection>,
    /// Answers that wait to be sent.
    pub(super) out: Vec<u8>,
    /// The time, read once for everything that was read together.
    pub(super) now: Seconds,
    /// Whether requests are taken yet.
    pub(super) logged_in: bool,
    /// What the connection does next, when not just reading on.
    pub(super) next: Next,
}

/// What a connection does after its batch.
pub(super) enum Next {
    /// Reads on.
    Read,
    /// Closes, once the answers are sent.
    Close(Ended),
    /// Shows all items, from this shard on.
    Dump(Crawler, usize),
    /// Shows events, until the client closes.
    Watch(mpsc::Receiver<Bytes>),
}

impl Session {
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { now: self.now, counters: &self.counters, connection: self.connection.id }
    }

    /// Answers one line.
    pub(super) fn answer(&mut self, line: &str) {
        reply::write_line(&mut self.out, line);
    }

    /// Goes on, unless there is enough to send.
    pub(super) fn flow(&self) -> Flow {
        match self.next {
            Next::Read if self.out.len() < OUT_HIGH_WATER => Flow::Continue,
            Next::Close(_) => Flow::Close,
            _ => Flow::Pause,
        }
    }

    #[inline]
    fn execute(&mut self, command: &Command<'_>, reply: &Reply<'_>) {
        let Self { door, counters, connection, out, now, .. } = self;
        let caller = Caller { now: *now, counters, connection: connection.id };
        if matches!(reply, Reply::Meta(_)) {
            counters.bump(Counter::CmdMeta);
        }
        // A key that came base64-encoded may hold a line end, which a dump could not show.
        if door.prefixes.enabled() && !command.key_binary {
            let mut hit = false;
            door.store.execute(&caller, command, |outcome| {
                hit = matches!(outcome, Outcome::Found(_));
                reply::write(out, reply, &outcome);
            });
            match command.verb {
                Verb::Get(get) if get.touch.is_none() => door.prefixes.count(command.key, Event::Get { hit }),
                Verb::Set(_) => door.prefixes.count(command.key, Event::Set),
                Verb::Delete(_) => door.prefixes.count(command.key, Event::Delete),
                _ => {}
            }
        } else {
            door.store.execute(&caller, command, |outcome| reply::write(out, reply, &outcome));
        }
    }

    fn login(&mut self, login: &[u8]) {
        let mut words = login.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            return self.answer("CLIENT_ERROR bad authentication token format");
        };
        self.counters.bump(Counter::AuthCmds);
        if self.door.auth.as_ref().is_none_or(|users| users.allow(user, password)) {
            self.logged_in = true;
            self.answer("STORED");
        } else {
            self.counters.bump(Counter::AuthErrors);
            self.answer("CLIENT_ERROR authentication failure");
        }
    }

    /// Writes the next shard's items; done when there is none left.
    pub(super) fn dump(&mut self, kind: Crawler, shard: usize) -> Next {
        let Self { door, counters, connection, out, now, .. } = self;
        if shard == door.store.shard_count() {
            out.extend_from_slice(if kind == Crawler::KeyDump { b"EN\r\n" } else { b"END\r\n" });
            return Next::Read;
        }
        let caller = Caller { now: *now, counters, connection: connection.id };
        let mut line = String::new();
        door.store.walk(&caller, shard, |item| {
            line.clear();
            if kind == Crawler::KeyDump {
                out.extend_from_slice(b"mg ");
                reply::write_key_argument(out, item.key, item.key_binary);
                out.extend_from_slice(b"\r\n");
            } else {
                describe(&mut line, door, *now, &item);
                out.extend_from_slice(line.as_bytes());
            }
        });
        Next::Dump(kind, shard + 1)
    }
}

/// A line of `lru_crawler metadump` (crawler.c, `crawler_metadump_eval`).
fn describe(line: &mut String, door: &Door, now: Seconds, item: &ItemView<'_>) {
    use std::fmt::Write as _;

    let clock = door.store.clock();
    line.push_str("key=");
    write_uri_encoded(line, item.key);
    let exp = item.ttl_seconds.map_or(-1, |ttl| clock.unix(now + ttl) as i64);
    let last_access = clock.unix(now - item.idle_seconds);
    let fetch = if item.fetched { "yes" } else { "no" };
    let size = crate::item::item_size(item.key.len(), item.value.len(), item.flags);
    // Writing to a String cannot fail.
    _ = writeln!(
        line,
        " exp={exp} la={last_access} cas={} fetch={fetch} cls=1 size={size} flags={}",
        item.cas, item.flags
    );
}

impl Handler for Session {
    #[inline]
    fn handle(&mut self, request: Request<'_>) -> Flow {
        match request {
            Request::Key(command, reply) => self.execute(&command, &reply),
            Request::End => self.answer("END"),
            Request::Admin(admin) => self.admin(admin),
            Request::Refused { quiet: true, .. } => {}
            Request::Refused { error, quiet: false } => self.answer(error.as_str()),
            Request::TooLarge { key, mode, quiet } => {
                self.counters.bump(Counter::StoreTooLarge);
                self.door.store.drop_unstored(key, mode);
                if !quiet {
                    self.answer(ProtocolError::TooLarge.as_str());
                }
            }
            Request::Binary(header) => self.out.extend_from_slice(&binary::refusal(header)),
            Request::Login(login) => self.login(login),
        }
        self.flow()
    }

    fn line(&mut self, line: &[u8]) {
        let id = self.connection.id;
        let line = &line[..line.len().min(SHOWN_LINE_MAX)];
        if self.door.verbosity.load(Ordering::Relaxed) >= 2 {
            eprintln!("<{id} {}", line.escape_ascii());
        }
        if self.door.events.watched(Kinds::RAWCMDS) {
            self.door.events.tell(Kinds::RAWCMDS, |text| {
                text.push_str(&format!("<{id} {}", line.escape_ascii()));
            });
        }
    }

    #[inline]
    fn wants_lines(&self) -> bool {
        self.door.verbosity.load(Ordering::Relaxed) >= 2 || self.door.events.watched(Kinds::RAWCMDS)
    }

    #[inline]
    fn authenticated(&self) -> bool {
        self.logged_in
    }

    #[inline]
    fn item_size_max(&self) -> usize {
        self.door.store.item_size_max()
    }
}
