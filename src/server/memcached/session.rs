//! One client's state between its batches, and its replies.

pub(super) mod batch;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::cache::{Cache, count_unavailable};
use crate::clock::Seconds;
use crate::command::{Failure, Outcome};
use crate::pb;
use crate::protocol::admin::Crawler;
use crate::protocol::error::ProtocolError;
use crate::protocol::reply;
use crate::server::ServerContext;
use crate::server::connections::{CloseReason, Connection};
use crate::server::memcached::commands::dump;
use crate::server::memcached::commands::login::Login;
use crate::server::memcached::commands::scope::{Next, Scope};
use crate::server::memcached::input::READ_BYTES;
use crate::server::memcached::pipeline::Pipeline;
use crate::server::memcached::reply_memory::ReplyMemory;
use crate::stats::{Counter, Counters};

/// One client, between its codec and the cache.
pub(super) struct Session {
    context: Arc<ServerContext>,
    counters: Arc<Counters>,
    connection: Arc<Connection>,
    pipeline: Pipeline,
    memory: ReplyMemory,
    /// Commands that may be executed before others' turn.
    budget: u32,
    /// Its value before the first command with a reply that has not been sent yet.
    unsent_since: u32,
    /// The time, read once for everything that was read together.
    now: Seconds,
    login: Login,
    /// Whether the client speaks the binary protocol.
    is_binary: bool,
    /// What the connection does next, when not just reading on.
    next: Next,
}

impl Session {
    pub(super) fn new(
        context: Arc<ServerContext>,
        counters: Arc<Counters>,
        connection: Arc<Connection>,
    ) -> Self {
        Self {
            now: context.store.clock().now(),
            login: Login::new(context.auth.is_some()),
            memory: ReplyMemory::new(context.replies.clone()),
            context,
            counters,
            connection,
            pipeline: Pipeline::default(),
            budget: 0,
            unsent_since: 0,
            is_binary: false,
            next: Next::Read,
        }
    }

    pub(super) fn context(&self) -> &ServerContext {
        &self.context
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    pub(super) fn memory(&self) -> &ReplyMemory {
        &self.memory
    }

    pub(super) fn next(&mut self) -> &mut Next {
        &mut self.next
    }

    /// When what is executed now came in.
    pub(super) fn now(&self) -> Seconds {
        self.now
    }

    /// Looks at the clock.
    pub(super) fn tick(&mut self) {
        self.now = self.context.store.clock().now();
    }

    /// Notes that the given number of bytes of requests came in.
    pub(super) fn note_read(&mut self, bytes: usize) {
        self.counters.add(Counter::BytesRead, bytes as u64);
        self.tick();
        self.counters.sampler.tick(self.now);
        self.connection.note_command(self.now);
    }

    /// Notes that the given number of bytes of replies was sent.
    pub(super) fn note_sent(&mut self, bytes: usize) {
        self.counters.add(Counter::BytesWritten, bytes as u64);
        self.memory.moved(bytes);
    }

    /// Counts what a client does not read; see [`ReplyMemory::hold_unsent`].
    pub(super) fn hold_unsent(&mut self, cx: &Context<'_>, sent: usize) -> usize {
        self.memory.hold_unsent(cx, &mut self.pipeline, sent)
    }

    /// Everything that can be sent has been.
    pub(super) fn release_sent(&mut self, cx: &Context<'_>) {
        self.pipeline.sendable().clear();
        self.memory.release_sent(cx, &self.pipeline);
    }

    /// Allows the given number of commands before others' turn.
    pub(super) fn grant(&mut self, commands: u32) {
        self.budget = commands;
    }

    /// Whether it is others' turn.
    pub(super) fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// Answers one line.
    fn answer(&mut self, line: &str) {
        reply::write_line(self.pipeline.out.writer(), line);
    }

    /// Ends the connection because there is no memory. A line says so. A client of the binary protocol could not read
    /// the line, and is told nothing, as by memcached.
    #[cold]
    pub(super) fn close_for_want_of_room(&mut self, error: ProtocolError) {
        if !self.is_binary {
            self.answer(error.as_str());
        }
        self.next = Next::Close(CloseReason::Error);
    }

    /// Ends the connection without a word: neither what was executed nor what is on its way may
    /// be answered.
    #[cold]
    pub(super) fn abandon(&mut self) {
        self.pipeline.clear();
        self.next = Next::Close(CloseReason::Error);
    }

    /// Waits until the command that was not ready may be executed; when it never may, its client
    /// hears of it.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        if ready!(self.memory.poll_room(cx)).is_err() {
            self.close_for_want_of_room(ProtocolError::NoRoomWriting);
        }
        Poll::Ready(())
    }

    /// Takes completions and makes replies sendable; pending while something is on its way.
    #[inline]
    pub(super) fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { context, counters, pipeline, .. } = self;
        pipeline.poll(cx, counters, |operation, outcome| {
            let unavailable = matches!(outcome, Outcome::Failed(Failure::Unavailable(_)));
            let prefixed = context.prefixes.enabled() && !operation.key_binary();
            if (unavailable || prefixed)
                && let Ok(command) = operation.open().and_then(|operation| pb::command(&operation))
            {
                if unavailable {
                    count_unavailable(counters, &command.verb);
                }
                if prefixed {
                    context.prefixes.count_command(&command, matches!(outcome, Outcome::Found(_)));
                }
            }
        })
    }

    /// Whether nothing goes on before something has come in.
    #[inline]
    pub(super) fn must_wait(&self, cache: &Cache) -> bool {
        if self.pipeline.is_empty() {
            return false;
        }
        !matches!(self.next, Next::Read) || !self.pipeline.admits(cache.version())
    }

    /// Takes events that a watcher waits for; whether there is something to send.
    pub(super) fn poll_events(&mut self, cx: &mut Context<'_>) -> bool {
        let Next::Watch(lines) = &mut self.next else { return false };
        let out = &mut self.pipeline.out;
        while out.len() < READ_BYTES
            && let Poll::Ready(Some(line)) = lines.poll_recv(cx)
        {
            out.writer().extend_from_slice(&line);
        }
        !out.is_empty()
    }

    /// Writes the next shard's items of a dump.
    pub(super) fn dump(&mut self, cache: &Cache, kind: Crawler, shard: usize) {
        let mut turn = cache.begin(self.now, self.connection.id);
        let mut scope = Scope::new(&self.context, &mut turn, self.pipeline.out.writer(), false);
        self.next = dump::step(&mut scope, kind, shard);
    }
}
