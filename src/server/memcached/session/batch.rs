//! A batch: the session of a connection, with the right to execute what was read together.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::trace;

use crate::cache::routing::Place;
use crate::cache::turn::{NotHere, Turn};
use crate::cache::{Cache, count_unavailable};
use crate::command::{Command, Delete, Failure, Outcome, SetMode, Verb};
use crate::events::Kinds;
use crate::logs;
use crate::peer::PendingOp;
use crate::peer::completions::{Completion, ReplyTo};
use crate::protocol::Request;
use crate::protocol::codec::{Flow, Handler};
use crate::protocol::output::Output;
use crate::protocol::reply::{self, Reply};
use crate::server::memcached::commands::login::Login;
use crate::server::memcached::commands::scope::{Done, Next, Scope};
use crate::server::memcached::commands::task::Task;
use crate::server::memcached::commands::{admin, binary};
use crate::server::memcached::pending_reply::PendingReply;
use crate::server::memcached::pipeline::Timed;
use crate::server::memcached::session::Session;
use crate::stats::{Counter, Ending, Kind, Route};

/// Bytes of a command line that are shown to watchers and logged: lines wait for slow watchers,
/// and a multiget's may be long (memcached logger.c, `LOGGER_ASCII_CMD`).
const SHOWN_LINE_MAX: usize = 512;

/// What is shown in place of a command line that came before login.
const HIDDEN_LINE: &[u8] = b"(a line before login)";

/// A session with the right to execute what was read together.
pub(in crate::server::memcached) struct Batch<'a> {
    session: &'a mut Session,
    cache: &'a Cache,
    turn: Turn<'a>,
}

/// The outcome of a command.
#[derive(Clone, Copy)]
enum Executed {
    /// It was executed here.
    Here,
    /// It failed here.
    Failed,
    /// It is on its way to its owner, and its reply will come under this number.
    Sent(u64),
    /// It waits for a load of this node: how long that takes says nothing of this node.
    Waits,
}

impl Executed {
    #[inline]
    fn here(outcome: &Outcome<'_>) -> Self {
        if matches!(outcome, Outcome::Failed(_)) { Self::Failed } else { Self::Here }
    }
}

impl<'a> Batch<'a> {
    /// Begins a batch, before which all replies that are there have been sent; `None` when it has to wait for what is on
    /// its way.
    #[inline]
    pub(in crate::server::memcached) fn begin(session: &'a mut Session, cache: &'a Cache) -> Option<Self> {
        let turn = cache.begin(session.now, session.connection.id);
        if !session.pipeline.admits(turn.version()) {
            return None;
        }
        session.unsent_since = session.budget;
        session.memory.begin_batch();
        Some(Self { session, cache, turn })
    }

    /// Ends the batch; what was executed is answered only if it may be.
    #[inline]
    pub(in crate::server::memcached) fn finish(self) {
        if self.turn.finish().is_err() {
            self.session.abandon();
        }
    }

    #[inline]
    fn execute(&mut self, command: &Command<'_>, reply: &Reply<'_>) {
        let began = self.session.counters.sampler.choose().then(Instant::now);
        let executed = self.execute_now(command, reply);
        if let Some(began) = began {
            self.time(command, executed, began);
        }
    }

    /// Counts how long a command took, or will have taken when its reply is there.
    #[cold]
    fn time(&mut self, command: &Command<'_>, executed: Executed, began: Instant) {
        let kind = Kind::from(&command.verb);
        let ending = match executed {
            Executed::Sent(number) => return self.session.pipeline.time(Timed { number, kind, began }),
            Executed::Waits => return,
            Executed::Failed => Ending::Failed,
            Executed::Here => Ending::Ok,
        };
        self.session.counters.time(kind, Route::Local, ending, began.elapsed());
    }

    /// Executes a command here, or sends it to its owner. Has one caller, so that all of it is
    /// compiled into one function, the store's part included.
    #[inline]
    fn execute_now(&mut self, command: &Command<'_>, reply: &Reply<'_>) -> Executed {
        let Session { context, counters, pipeline, .. } = &mut *self.session;
        let mut hit = false;
        let executed = self.turn.execute(command, |outcome| {
            hit = matches!(outcome, Outcome::Found(_));
            reply::write(&mut pipeline.out, reply, &outcome);
            Executed::here(&outcome)
        });
        match executed {
            Ok(executed) => {
                if matches!(reply, Reply::Meta(_)) {
                    counters.bump(Counter::CmdMeta);
                }
                // A key that came base64-encoded may hold a line end, and a dump could not show it.
                if context.prefixes.enabled() && !command.key_binary {
                    context.prefixes.count_command(command, hit);
                }
                executed
            }
            Err(elsewhere) => self.execute_elsewhere(command, reply, elsewhere),
        }
    }

    /// A command on a key that cannot be answered here and at once.
    fn execute_elsewhere(
        &mut self,
        command: &Command<'_>,
        reply: &Reply<'_>,
        elsewhere: NotHere,
    ) -> Executed {
        let place = match elsewhere {
            NotHere::At(place) => place,
            NotHere::Load(replaces) => return self.load(command, reply, replaces),
            NotHere::Unavailable(why) => {
                let Session { counters, pipeline, .. } = &mut *self.session;
                count_unavailable(counters, &command.verb);
                reply::write(&mut pipeline.out, reply, &Outcome::Failed(Failure::Unavailable(why)));
                return Executed::Failed;
            }
        };
        if matches!(reply, Reply::Meta(_)) {
            self.session.counters.bump(Counter::CmdMeta);
        }
        self.send(place, command, reply.into())
    }

    /// Sends a command to its owner, behind the replies so far.
    fn send(&mut self, place: Place, command: &Command<'_>, reply: PendingReply) -> Executed {
        let operation = self.turn.encode(command, reply.projection());
        let version = self.turn.version();
        let completer = self.session.pipeline.defer(reply, operation.payload_bytes(), version);
        let number = completer.number();
        self.turn.send(place, operation, ReplyTo::Queue(completer));
        Executed::Sent(number)
    }

    /// Lets a read wait for a load, behind the replies so far.
    #[cold]
    fn load(&mut self, command: &Command<'_>, reply: &Reply<'_>, replaces: Option<u64>) -> Executed {
        if matches!(reply, Reply::Meta(_)) {
            self.session.counters.bump(Counter::CmdMeta);
        }
        let reply = PendingReply::from(reply);
        let operation = self.turn.encode(command, reply.projection());
        let version = self.turn.version();
        let completer = self.session.pipeline.defer(reply, operation.payload_bytes(), version);
        let op = PendingOp::new(operation, 0, Instant::now().into(), ReplyTo::Queue(completer));
        if let Some((op, outcome)) = self.turn.load(op, replaces) {
            op.answer(Ok(outcome));
        }
        Executed::Waits
    }

    /// Handles a value that `command` had to store, and that is not read: drops the old value under its key, where
    /// `mode` is that of a `set`, and answers why.
    fn unstored(
        &mut self,
        key: &[u8],
        mode: SetMode,
        command: &'static str,
        why: Failure,
        reply: &Reply<'_>,
    ) {
        let too_large = why == Failure::TooLarge;
        let session = &mut *self.session;
        session.counters.bump(if too_large { Counter::StoreTooLarge } else { Counter::StoreNoMemory });
        session.context.store.tell_unstored(&self.turn.caller(), key, command, why);
        match self.turn.drop_unstored(key, mode) {
            Ok(()) => reply::write(&mut session.pipeline.out, reply, &Outcome::Failed(why)),
            Err(place) => {
                let mut told = Output::default();
                reply::write(&mut told, reply, &Outcome::Failed(why));
                let command = Command { key, key_binary: false, verb: Verb::Delete(Delete::default()) };
                self.send(place, &command, PendingReply::Told(told.into_bytes()));
            }
        }
    }

    /// Runs a command that is not about one key, and does what it leaves to do.
    fn run(&mut self, command: impl FnOnce(&mut Scope<'_, 'a>, &mut Login) -> Done) {
        let session = &mut *self.session;
        let is_pipelined = session.budget != session.unsent_since;
        let mut scope =
            Scope::new(&session.context, &mut self.turn, session.pipeline.out.writer(), is_pipelined);
        match command(&mut scope, &mut session.login) {
            Done::Now => {}
            // memcached sends its replies at an `mn`: this command, and what came before it, counts as answered.
            Done::Sent => session.unsent_since = session.budget.saturating_sub(1),
            Done::Next(next) => session.next = next,
            Done::Later(task) => self.later(task),
        }
    }

    /// Begins a command that takes time, once everything before it has been answered.
    fn later(&mut self, task: Task) {
        let (cache, context) = (self.cache.clone(), self.session.context.clone());
        self.session.pipeline.after_all(move |completer| {
            let running = cache.clone();
            cache.spawn(
                async move { completer.complete(Completion::Text(task.run(&running, context).await)) },
            );
        });
    }

    /// Whether a command that reads a value may be executed while there is little room for replies.
    #[cold]
    fn has_room(&mut self, command: &Command<'_>) -> bool {
        if !matches!(command.verb, Verb::Get(_)) {
            return true;
        }
        let look = Command { verb: Verb::Inspect, ..*command };
        let value_bytes = self.turn.execute(&look, |outcome| match outcome {
            Outcome::Found(found) => found.item.value_len,
            _ => 0,
        });
        let session = &mut *self.session;
        let value_bytes = match value_bytes {
            Ok(bytes) => bytes,
            // Only its owner knows.
            Err(NotHere::At(_)) => session.context.store.item_size_max(),
            Err(NotHere::Unavailable(_) | NotHere::Load(_)) => 0,
        };
        session.memory.has_room(&session.pipeline, value_bytes)
    }

    /// Goes on, unless there is enough to send, or the connection's turn is over.
    #[inline]
    fn flow(&mut self) -> Flow {
        let session = &mut *self.session;
        session.budget = session.budget.saturating_sub(1);
        match session.next {
            Next::Read if session.pipeline.is_held() => Flow::Pause,
            Next::Read if !session.memory.is_high(session.pipeline.out.len()) && session.budget > 0 => {
                Flow::Continue
            }
            Next::Close(_) => Flow::Close,
            _ => Flow::Pause,
        }
    }
}

impl Handler for Batch<'_> {
    #[inline]
    fn handle(&mut self, request: Request<'_>) -> Flow {
        match request {
            Request::Key(command, reply) => self.execute(&command, &reply),
            Request::End => self.session.answer("END"),
            Request::Admin(admin) => self.run(|scope, _| admin::run(scope, admin)),
            Request::Refused { quiet: true, .. } => {}
            Request::Refused { error, quiet: false } => self.session.answer(error.as_str()),
            Request::Unstored { key, mode, command, why, reply } => {
                self.unstored(key, mode, command, why, &reply);
            }
            Request::Binary(head, ask) => self.run(|scope, login| binary::run(scope, login, head, ask)),
            Request::Login(words) => self.run(|scope, login| login.text(scope, words)),
        }
        self.flow()
    }

    #[inline]
    fn is_ready(&mut self, command: &Command<'_>) -> bool {
        !self.session.memory.is_tight() || self.has_room(command)
    }

    fn speaks_binary(&mut self) {
        self.session.is_binary = true;
    }

    #[cold]
    fn speaks_else(&mut self, what: &str) {
        let Session { context, connection, now, .. } = &*self.session;
        context.strangers.tell(*now, &connection.peer, what);
    }

    fn line(&mut self, line: &[u8]) {
        let Session { context, connection, login, .. } = &*self.session;
        let id = connection.id;
        // Before login any line may hold a password, if only by mistake.
        let line = if login.is_done() { &line[..line.len().min(SHOWN_LINE_MAX)] } else { HIDDEN_LINE };
        if context.verbosity.load(Ordering::Relaxed) >= 2 {
            trace!(target: logs::CLIENTS, "<{id} {}", line.escape_ascii());
        }
        if context.events.watched(Kinds::RAWCMDS) {
            context.events.tell(Kinds::RAWCMDS, |text| {
                text.push_str(&format!("<{id} {}", line.escape_ascii()));
            });
        }
    }

    #[inline]
    fn wants_lines(&self) -> bool {
        let context = &self.session.context;
        context.verbosity.load(Ordering::Relaxed) >= 2 || context.events.watched(Kinds::RAWCMDS)
    }

    #[inline]
    fn authenticated(&self) -> bool {
        self.session.login.is_done()
    }

    fn has_cas(&self) -> bool {
        self.session.context.store.has_cas()
    }

    #[inline]
    fn item_size_max(&self) -> usize {
        self.session.context.store.item_size_max()
    }
}
