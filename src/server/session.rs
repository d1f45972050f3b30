//! One client's requests, executed in order, and their answers in one buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::trace;

use crate::clock::Seconds;
use crate::command::{Command, Delete, Failure, Outcome, SetMode, Verb};
use crate::events::{Kinds, write_uri_encoded};
use crate::item::ItemView;
use crate::logs;
use crate::pb;
use crate::protocol::Request;
use crate::protocol::admin::Crawler;
use crate::protocol::codec::{Flow, Handler};
use crate::protocol::error::ProtocolError;
use crate::protocol::reply::{self, Reply};
use crate::server::ServerContext;
use crate::server::connections::{CloseReason, Connection};
use crate::server::forward::{Forward, NotHere, Timed};
use crate::server::prefix::Event;
use crate::server::quota::Share;
use crate::server::replies::PendingReply;
use crate::stats::{Counter, Counters, Ending, Kind, Route};
use crate::store::Caller;

/// Bytes of answers after which a client is made to take them before more is executed.
pub(super) const OUT_HIGH_WATER: usize = 256 << 10;

/// Bytes of a command line that are shown to watchers and logged: lines wait for slow watchers,
/// and a multiget's may be long (memcached logger.c, `LOGGER_ASCII_CMD`).
const SHOWN_LINE_MAX: usize = 512;

/// What is shown in place of a command line that came before login.
const HIDDEN_LINE: &[u8] = b"(a line before login)";

/// One client, between its codec and the store.
pub(super) struct Session {
    pub(super) context: Arc<ServerContext>,
    pub(super) counters: Arc<Counters>,
    pub(super) connection: Arc<Connection>,
    /// Answers that wait to be sent.
    pub(super) out: Vec<u8>,
    /// What they take of the memory for replies.
    pub(super) share: Share,
    /// Whether there was none left as the batch began.
    pub(super) tight: bool,
    /// Bytes of answers after which the batch pauses.
    pub(super) high_water: usize,
    /// Commands that may be executed before others' turn.
    pub(super) turn_left: u32,
    /// What that was before the first command whose answer has not been sent yet.
    pub(super) unsent_since: u32,
    /// Room that the next command has to wait for.
    pub(super) wanted: usize,
    /// The time, read once for everything that was read together.
    pub(super) now: Seconds,
    /// Whether requests are taken yet.
    pub(super) logged_in: bool,
    /// Whether a login has begun that may take more than one request.
    pub(super) login_begun: bool,
    /// Whether the client speaks the binary protocol.
    pub(super) is_binary: bool,
    /// What the connection does next, when not just reading on.
    pub(super) next: Next,
    /// How keys of other nodes are reached; none for a node that is alone.
    pub(super) forward: Option<Box<Forward>>,
}

/// What a connection does after its batch.
pub(super) enum Next {
    /// Reads on.
    Read,
    /// Closes, once the answers are sent.
    Close(CloseReason),
    /// Shows all items, from this shard on.
    Dump(Crawler, usize),
    /// Shows events, until the client closes.
    Watch(mpsc::Receiver<Bytes>),
}

impl Session {
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller::new(self.now, &self.counters, self.connection.id)
    }

    /// Answers one line.
    pub(super) fn answer(&mut self, line: &str) {
        reply::write_line(&mut self.out, line);
    }

    /// Ends the connection for want of memory. A line says so; a client of the binary protocol, which
    /// could not read it, is told nothing, as by memcached.
    #[cold]
    pub(super) fn close_for_want_of_room(&mut self, error: ProtocolError) {
        if !self.is_binary {
            self.answer(error.as_str());
        }
        self.next = Next::Close(CloseReason::Error);
    }

    /// Whether commands came before this one in the same read, and their answers have not been sent
    /// yet; those with `noreply` count, too (memcached.c, `resp_has_stack`).
    pub(super) fn is_pipelined(&self) -> bool {
        self.turn_left != self.unsent_since
    }

    /// Takes all that came before, and this command, for answered: memcached sends its answers at
    /// an `mn`.
    pub(super) fn note_sent(&mut self) {
        self.unsent_since = self.turn_left.saturating_sub(1);
    }

    /// Goes on, unless there is enough to send, or the connection's turn is over.
    pub(super) fn flow(&mut self) -> Flow {
        self.turn_left = self.turn_left.saturating_sub(1);
        match self.next {
            Next::Read if self.forward.as_ref().is_some_and(|forward| forward.is_held()) => Flow::Pause,
            Next::Read if self.out.len() < self.high_water && self.turn_left > 0 => Flow::Continue,
            Next::Close(_) => Flow::Close,
            _ => Flow::Pause,
        }
    }

    #[inline]
    fn execute(&mut self, command: &Command<'_>, reply: &Reply<'_>) {
        let began = self.counters.sampler.choose().then(Instant::now);
        let executed = self.execute_now(command, reply);
        if let Some(began) = began {
            self.time(command, executed, began);
        }
    }

    /// Counts how long a command took, or will have taken when its reply is there.
    #[cold]
    fn time(&mut self, command: &Command<'_>, executed: Executed, began: Instant) {
        let kind = Kind::from(&command.verb);
        let ending = match (executed, &mut self.forward) {
            (Executed::Sent(number), Some(forward)) => return forward.time(Timed { number, kind, began }),
            (Executed::Failed, _) => Ending::Failed,
            _ => Ending::Ok,
        };
        self.counters.time(kind, Route::Local, ending, began.elapsed());
    }

    /// Executes a command here, or sends it to its owner. Has one caller, so that all of it is
    /// compiled into one function, the store's part included.
    #[inline]
    fn execute_now(&mut self, command: &Command<'_>, reply: &Reply<'_>) -> Executed {
        let Self { context, counters, connection, out, now, forward, .. } = self;
        let since = match forward.as_mut().map(|forward| forward.place(command.key)).transpose() {
            Ok(since) => since,
            Err(elsewhere) => return self.execute_elsewhere(command, reply, elsewhere),
        };
        let caller = Caller { since, ..Caller::new(*now, counters, connection.id) };
        if matches!(reply, Reply::Meta(_)) {
            counters.bump(Counter::CmdMeta);
        }
        // A key that came base64-encoded may hold a line end, which a dump could not show.
        if context.prefixes.enabled() && !command.key_binary {
            let mut hit = false;
            let executed = context.store.execute(&caller, command, |outcome| {
                hit = matches!(outcome, Outcome::Found(_));
                reply::write(out, reply, &outcome);
                Executed::here(&outcome)
            });
            count_prefix(context, command, hit);
            executed
        } else {
            context.store.execute(&caller, command, |outcome| {
                reply::write(out, reply, &outcome);
                Executed::here(&outcome)
            })
        }
    }

    /// A value that `command` had to store, and that is not read: what lies under its key is
    /// dropped, where `mode` is that of a `set`, and its client is `told` so.
    pub(super) fn unstored(
        &mut self,
        key: &[u8],
        mode: SetMode,
        command: &'static str,
        why: Failure,
        told: Vec<u8>,
    ) {
        let too_large = why == Failure::TooLarge;
        self.counters.bump(if too_large { Counter::StoreTooLarge } else { Counter::StoreNoMemory });
        self.context.store.tell_unstored(&self.caller(), key, command, why);
        let Self { context, out, now, forward, .. } = self;
        if let Some(forward) = forward
            && mode == SetMode::Set
            && let Err(NotHere::At(place)) = forward.place(key)
        {
            let command = Command { key, key_binary: false, verb: Verb::Delete(Delete::default()) };
            forward.send(place, &command, *now, out, PendingReply::Told(told));
            return;
        }
        context.store.drop_unstored(key, mode);
        self.out.extend_from_slice(&told);
    }

    /// A command on a key that is not to be answered for here and now.
    fn execute_elsewhere(
        &mut self,
        command: &Command<'_>,
        reply: &Reply<'_>,
        elsewhere: NotHere,
    ) -> Executed {
        let Self { counters, out, now, forward, .. } = self;
        match (elsewhere, forward) {
            (NotHere::At(place), Some(forward)) => {
                if matches!(reply, Reply::Meta(_)) {
                    counters.bump(Counter::CmdMeta);
                }
                Executed::Sent(forward.send(place, command, *now, out, reply.into()))
            }
            (NotHere::Unknown(why), _) => {
                count_unavailable(counters, &command.verb);
                reply::write(out, reply, &Outcome::Failed(Failure::Unavailable(why)));
                Executed::Failed
            }
            (NotHere::At(_), None) => Executed::Failed,
        }
    }

    /// Takes what has come in from other nodes and writes out what can be; pending while
    /// something is on its way.
    pub(super) fn poll_forward(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { context, counters, out, forward, .. } = self;
        let Some(forward) = forward else { return Poll::Ready(()) };
        forward.poll(cx, out, counters, |operation, outcome| {
            if matches!(outcome, Outcome::Failed(Failure::Unavailable(_)))
                && let Ok(command) = operation.open().and_then(|operation| pb::command(&operation))
            {
                count_unavailable(counters, &command.verb);
            }
            if context.prefixes.enabled()
                && !operation.key_binary()
                && let Ok(command) = operation.open().and_then(|operation| pb::command(&operation))
            {
                count_prefix(context, &command, matches!(outcome, Outcome::Found(_)));
            }
        })
    }

    /// Ends the connection without a word: neither what was executed nor what is on its way may
    /// be answered.
    pub(super) fn abandon(&mut self) {
        self.out.clear();
        self.forward = None;
        self.next = Next::Close(CloseReason::Error);
    }

    /// Whether something is on its way from other nodes.
    pub(super) fn is_awaited(&self) -> bool {
        self.forward.as_ref().is_some_and(|forward| !forward.replies.is_empty())
    }

    /// Whether nothing goes on before something has come in from other nodes.
    pub(super) fn must_wait(&self) -> bool {
        let Some(forward) = &self.forward else { return false };
        let reads = matches!(self.next, Next::Read);
        forward.must_wait() || !reads && !forward.replies.is_empty()
    }

    /// The bytes that can be sent.
    pub(super) fn sendable(&mut self) -> &mut Vec<u8> {
        match &mut self.forward {
            Some(forward) if !forward.replies.is_empty() => &mut forward.replies.ready,
            _ => &mut self.out,
        }
    }

    fn login(&mut self, login: &[u8]) {
        let mut words = login.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            return self.answer("CLIENT_ERROR bad authentication token format");
        };
        self.counters.bump(Counter::AuthCmds);
        if self.context.auth.as_ref().is_none_or(|users| users.allow(user, password)) {
            self.logged_in = true;
            self.answer("STORED");
        } else {
            self.counters.bump(Counter::AuthErrors);
            self.answer("CLIENT_ERROR authentication failure");
        }
    }

    /// Writes the next shard's items; done when there is none left.
    pub(super) fn dump(&mut self, kind: Crawler, shard: usize) -> Next {
        let Self { context, counters, connection, out, now, .. } = self;
        if shard == context.store.shard_count() {
            out.extend_from_slice(if kind == Crawler::KeyDump { b"EN\r\n" } else { b"END\r\n" });
            return Next::Read;
        }
        let caller = Caller::new(*now, counters, connection.id);
        let mut line = String::new();
        context.store.walk(&caller, shard, |item| {
            line.clear();
            if kind == Crawler::KeyDump {
                out.extend_from_slice(b"mg ");
                reply::write_key_argument(out, item.key, item.key_binary);
                out.extend_from_slice(b"\r\n");
            } else {
                describe(&mut line, context, *now, &item);
                out.extend_from_slice(line.as_bytes());
            }
        });
        Next::Dump(kind, shard + 1)
    }
}

/// What became of a command.
#[derive(Clone, Copy)]
enum Executed {
    /// It was executed here.
    Here,
    /// It failed here.
    Failed,
    /// It is on its way to its owner, and its reply will come under this number.
    Sent(u64),
}

impl Executed {
    #[inline]
    fn here(outcome: &Outcome<'_>) -> Self {
        if matches!(outcome, Outcome::Failed(_)) { Self::Failed } else { Self::Here }
    }
}

/// Counts a command whose owner could not be asked: a reader takes that for a miss, and sees no
/// error.
#[cold]
pub(super) fn count_unavailable(counters: &Counters, verb: &Verb<'_>) {
    let is_read = matches!(verb, Verb::Get(_) | Verb::Inspect);
    counters.bump(if is_read { Counter::UnavailableReads } else { Counter::UnavailableWrites });
}

fn count_prefix(context: &ServerContext, command: &Command<'_>, hit: bool) {
    match command.verb {
        Verb::Get(get) if get.touch.is_none() => context.prefixes.count(command.key, Event::Get { hit }),
        Verb::Set(_) => context.prefixes.count(command.key, Event::Set),
        Verb::Delete(_) => context.prefixes.count(command.key, Event::Delete),
        _ => {}
    }
}

/// A line of `lru_crawler metadump` (crawler.c, `crawler_metadump_eval`).
fn describe(line: &mut String, context: &ServerContext, now: Seconds, item: &ItemView<'_>) {
    use std::fmt::Write as _;

    let clock = context.store.clock();
    line.push_str("key=");
    write_uri_encoded(line, item.key);
    let exp = item.ttl_seconds.map_or(-1, |ttl| clock.unix(now + ttl) as i64);
    let last_access = clock.unix(now - item.idle_seconds);
    let fetch = if item.fetched { "yes" } else { "no" };
    let size = crate::item::item_size(item.key.len(), item.value.len(), item.flags);
    // Writing to a String cannot fail.
    _ = writeln!(
        line,
        // Behind the last blank memcached tells of what lies outside of memory.
        " exp={exp} la={last_access} cas={} fetch={fetch} cls=1 size={size} flags={} ",
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
            Request::Unstored { key, mode, command, quiet, error } => {
                let mut told = Vec::new();
                if !quiet {
                    reply::write_line(&mut told, error.as_str());
                }
                let too_large = error == ProtocolError::TooLarge;
                let why = if too_large { Failure::TooLarge } else { Failure::OutOfMemory };
                self.unstored(key, mode, command, why, told);
            }
            Request::Binary(head, ask) => self.binary(head, ask),
            Request::Login(login) => self.login(login),
        }
        self.flow()
    }

    #[inline]
    fn is_ready(&mut self, command: &Command<'_>) -> bool {
        !self.tight || self.is_ready_when_tight(command)
    }

    fn speaks_binary(&mut self) {
        self.is_binary = true;
    }

    #[cold]
    fn speaks_else(&mut self, what: &str) {
        self.context.strangers.tell(self.now, &self.connection.peer, what);
    }

    fn line(&mut self, line: &[u8]) {
        let id = self.connection.id;
        // Before login any line may hold a password, if only by mistake.
        let line = if self.logged_in { &line[..line.len().min(SHOWN_LINE_MAX)] } else { HIDDEN_LINE };
        if self.context.verbosity.load(Ordering::Relaxed) >= 2 {
            trace!(target: logs::CLIENTS, "<{id} {}", line.escape_ascii());
        }
        if self.context.events.watched(Kinds::RAWCMDS) {
            self.context.events.tell(Kinds::RAWCMDS, |text| {
                text.push_str(&format!("<{id} {}", line.escape_ascii()));
            });
        }
    }

    #[inline]
    fn wants_lines(&self) -> bool {
        self.context.verbosity.load(Ordering::Relaxed) >= 2 || self.context.events.watched(Kinds::RAWCMDS)
    }

    #[inline]
    fn authenticated(&self) -> bool {
        self.logged_in
    }

    fn has_cas(&self) -> bool {
        self.context.store.has_cas()
    }

    #[inline]
    fn item_size_max(&self) -> usize {
        self.context.store.item_size_max()
    }
}
