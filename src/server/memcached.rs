//! One client's connection: reads, has every complete request executed, writes the answers at
//! once, and never more than it can hold.
//!
//! A future written by hand, because one read, one batch and one write per turn is all there
//! is to it, and because the buffers belong to the thread: a connection that waits owns none.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

use crate::cache::Cache;
use crate::clock::Seconds;
use crate::events::Kinds;
use crate::protocol::codec::{Batch, Codec};
use crate::protocol::error::ProtocolError;
use crate::server::ServerContext;
use crate::server::connections::{CloseReason, Connection, ConnectionState};
use crate::server::forward::{Begin, Forward};
use crate::server::input::{Input, Place, READ_BYTES, Read};
use crate::server::quota::Share;
use crate::server::session::{Next, OUT_HIGH_WATER, Session};
use crate::server::stream::Stream;
use crate::stats::{Counter, Counters};

/// Commands, each key of a multiget being one, after which a busy connection lets the others of its
/// thread go first. They take some 100 us, beside which letting others go first costs little:
/// `benches/versus_memcached --fairness`.
const TURN_COMMANDS: u32 = 256;

/// The same for commands that take longer than most.
const TURN_TIME: Duration = Duration::from_micros(100);

/// What the clock counts in.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// A thread keeps its answer buffer between connections up to this size.
const KEPT_OUT_BYTES: usize = 1 << 20;

/// The buffers that the connections of one thread share.
#[derive(Default)]
struct Buffers {
    read: BytesMut,
    out: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// A client's connection; resolves when it is over.
pub struct Client {
    stream: Stream,
    codec: Codec<Session>,
    input: Input,
    /// How much of the answers has been sent.
    sent: usize,
    /// Whether the codec has more to take out of the input.
    paused: bool,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    /// When the client last took answers that had had to wait for it.
    last_taken: Seconds,
    woken_for_all: bool,
}

impl Client {
    /// A connection that has just come in.
    pub fn new(
        stream: Stream,
        context: Arc<ServerContext>,
        counters: Arc<Counters>,
        connection: Arc<Connection>,
        cache: Option<Arc<Cache>>,
    ) -> Self {
        let idle =
            context.options.idle_timeout.map(|timeout| (timeout, Box::pin(tokio::time::sleep(timeout))));
        let now = context.store.clock().now();
        let input = Input::new(context.requests.clone());
        let protocol = context.options.protocol;
        let session = Session {
            logged_in: context.auth.is_none(),
            login_begun: false,
            is_binary: false,
            share: Share::new(context.replies.clone()),
            context,
            counters,
            connection,
            out: Vec::new(),
            tight: false,
            high_water: OUT_HIGH_WATER,
            turn_left: 0,
            unsent_since: 0,
            wanted: 0,
            now,
            next: Next::Read,
            forward: cache.map(|cache| Box::new(Forward::new(cache))),
        };
        Self {
            stream,
            codec: Codec::new(session, protocol),
            input,
            sent: 0,
            paused: false,
            idle,
            last_taken: now,
            woken_for_all: false,
        }
    }

    fn session(&mut self) -> &mut Session {
        &mut self.codec.handler
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, codec, sent, last_taken, .. } = self;
        let session = &mut codec.handler;
        while *sent < session.sendable().len() {
            let written = match Pin::new(&mut *stream).poll_write(cx, &session.sendable()[*sent..]) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    session.connection.set_state(ConnectionState::Write);
                    *sent = session.hold_unsent(cx, *sent);
                    return Poll::Pending;
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            session.counters.add(Counter::BytesWritten, written as u64);
            if session.connection.state() == ConnectionState::Write {
                *last_taken = session.context.store.clock().now();
            }
            session.share.moved(written);
            *sent += written;
        }
        session.sendable().clear();
        *sent = 0;
        session.release_sent(cx);
        Pin::new(stream).poll_flush(cx)
    }

    /// Has every complete request in `input` executed; by one routing of the cluster, which stays
    /// in force meanwhile.
    fn decode(&mut self, input: &mut BytesMut) {
        let Some(cache) = self.session().forward.as_ref().map(|forward| forward.cache.clone()) else {
            return self.decode_batch(input);
        };
        let routing = cache.routing_handle().hold();
        match self.session().forward.as_mut().map_or(Begin::Now, |forward| forward.begin(&routing)) {
            Begin::Now => self.decode_batch(input),
            Begin::Later => self.paused = true,
            Begin::Never => return self.session().abandon(),
        }
        let session = self.session();
        if !session.forward.as_ref().is_none_or(|forward| forward.end()) {
            session.abandon();
        }
    }

    fn decode_batch(&mut self, input: &mut BytesMut) {
        self.session().begin_batch();
        // Decoding never fails: what is wrong with a request is answered to its client.
        match self.codec.decode(input).unwrap_or(Some(Batch::Closed)) {
            None => self.paused = false,
            Some(Batch::Paused) => self.paused = true,
            Some(Batch::Closed) => {
                self.paused = false;
                // Closed by the codec alone: what came was junk.
                if !matches!(self.session().next, Next::Close(_)) {
                    self.session().next = Next::Close(CloseReason::Error);
                }
            }
        }
    }

    /// Has every complete request in the rest of the input executed.
    fn decode_rest(&mut self, cx: &Context<'_>) {
        let mut rest = self.input.take();
        let before = rest.len();
        self.decode(&mut rest);
        self.input.put_back(cx, rest, before);
    }

    /// Reads once and executes what came; false at the end of the input.
    fn poll_turn(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<bool>> {
        let waits_for = if self.input.is_empty() { ConnectionState::Read } else { ConnectionState::Value };
        self.session().connection.set_state(waits_for);
        let wanted = self.codec.wanted();
        let (len, place) = match ready!(self.input.poll_read(cx, &mut self.stream, wanted, buffer))? {
            Read::Bytes(0, _) => return Poll::Ready(Ok(false)),
            Read::Bytes(len, place) => (len, place),
            Read::NoRoom => {
                self.codec.refuse_unfinished();
                self.decode_rest(cx);
                return Poll::Ready(Ok(true));
            }
        };
        let session = self.session();
        session.counters.add(Counter::BytesRead, len as u64);
        session.now = session.context.store.clock().now();
        session.counters.sampler.tick(session.now);
        session.connection.note_command(session.now);
        match place {
            Place::Shared => {
                self.decode(buffer);
                self.input.keep(cx, buffer, self.paused);
            }
            Place::Own => self.decode_rest(cx),
        }
        Poll::Ready(Ok(true))
    }

    /// Goes on with what a batch has begun: a dump or a watch; ready when there is something
    /// to send, or the connection reads again.
    fn poll_next(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<()>> {
        let session = &mut self.codec.handler;
        match &mut session.next {
            Next::Read | Next::Close(_) => Poll::Ready(Ok(())),
            &mut Next::Dump(kind, shard) => {
                session.next = session.dump(kind, shard);
                Poll::Ready(Ok(()))
            }
            Next::Watch(lines) => {
                session.connection.set_state(ConnectionState::Watch);
                while let Poll::Ready(Some(line)) = lines.poll_recv(cx) {
                    session.out.extend_from_slice(&line);
                    if session.out.len() >= READ_BYTES {
                        return Poll::Ready(Ok(()));
                    }
                }
                if !session.out.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // A watcher is not listened to, only for its end.
                buffer.clear();
                buffer.reserve(READ_BYTES);
                if ready!(poll_read_buf(Pin::new(&mut self.stream), cx, buffer))? == 0 {
                    session.next = Next::Close(CloseReason::Normal);
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<io::Result<CloseReason>> {
        self.session().turn_left = TURN_COMMANDS;
        let mut began = None;
        for round in 0_u32.. {
            let answered = self.session().poll_forward(cx);
            ready!(self.poll_send(cx))?;
            if self.is_turn_over(round, &mut began) {
                break;
            }
            if self.session().must_wait() {
                ready!(answered);
                continue;
            }
            match self.codec.handler.next {
                Next::Close(ended) => {
                    // What is behind a quit is not answered.
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    return Poll::Ready(Ok(ended));
                }
                Next::Dump(..) | Next::Watch(_) if !self.draining() => {
                    ready!(self.poll_next(cx, &mut buffers.read))?;
                    continue;
                }
                _ => {}
            }
            if self.paused {
                if self.session().wanted > 0 {
                    ready!(answered);
                    ready!(self.session().poll_room(cx));
                    if matches!(self.session().next, Next::Close(_)) {
                        continue;
                    }
                }
                // The client may have taken its time with the answers so far.
                let session = self.session();
                session.now = session.context.store.clock().now();
                self.decode_rest(cx);
                continue;
            }
            if self.draining() {
                ready!(answered);
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                return Poll::Ready(Ok(CloseReason::Shutdown));
            }
            if !ready!(self.poll_turn(cx, &mut buffers.read))? {
                if !self.session().is_awaited() {
                    self.stream.take_leave(cx);
                    return Poll::Ready(Ok(CloseReason::Normal));
                }
                // A client that says no more may still listen.
                self.session().next = Next::Close(CloseReason::Normal);
            }
        }
        self.session().counters.bump(Counter::ConnYields);
        // Not woken at once: the runtime would poll it again, many times, before it looks which
        // others have something to read.
        _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
        // And so would other threads have to wait, where more are busy than there are CPUs: this one
        // would keep its own for the milliseconds that the kernel gives to each.
        std::thread::yield_now();
        Poll::Pending
    }

    /// Whether it is others' turn. The clock is read only by a connection that has read twice
    /// without a wait.
    #[inline]
    fn is_turn_over(&mut self, round: u32, began: &mut Option<StdInstant>) -> bool {
        if self.session().turn_left == 0 {
            return true;
        }
        round >= 2 && began.get_or_insert_with(StdInstant::now).elapsed() >= TURN_TIME
    }

    /// Makes room for others, who need the memory that this connection holds and does not move.
    #[cold]
    fn make_room(&mut self, cx: &Context<'_>) -> Option<CloseReason> {
        if self.session().share.is_evicted() {
            // Its client takes nothing, so that there is nobody to be told, by TLS neither.
            return Some(CloseReason::Error);
        }
        self.input.clear(cx);
        self.paused = false;
        self.session().close_for_want_of_room(ProtocolError::NoRoomReading);
        None
    }

    fn draining(&self) -> bool {
        self.codec.handler.context.draining.load(Ordering::Relaxed)
    }

    /// Whether it has been silent for too long; one that takes its answers, however slowly, is
    /// not. A timer that has run out is set anew when there was a command meanwhile, so that a
    /// command costs nothing here.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let session = &self.codec.handler;
        let watching = matches!(session.next, Next::Watch(_));
        let Some((timeout, timer)) = &mut self.idle else { return Poll::Pending };
        while timer.as_mut().poll(cx).is_ready() {
            let heard = session.connection.last_command().max(self.last_taken);
            let silent = session.context.store.clock().now().saturating_sub(heard);
            // The clock shows whole seconds: only one more than the timeout is surely enough
            // (memcached.c, conn_timeout_thread).
            let left = (*timeout + CLOCK_STEP).saturating_sub(Duration::from_secs(silent.into()));
            if left.is_zero() && !watching {
                session.counters.bump(Counter::IdleKicks);
                self.stream.take_leave(cx);
                return Poll::Ready(CloseReason::Idle);
            }
            timer.as_mut().reset(Instant::now() + left.max(CLOCK_STEP));
        }
        Poll::Pending
    }
}

impl Future for Client {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = &mut *self;
        if !this.woken_for_all {
            this.woken_for_all = true;
            this.session().connection.set_waker(cx.waker().clone());
        }
        if (this.input.is_evicted() || this.session().share.is_evicted())
            && let Some(ended) = this.make_room(cx)
        {
            return Poll::Ready(ended);
        }
        let ended = BUFFERS.with_borrow_mut(|buffers| {
            let session = this.session();
            if session.out.capacity() == 0 {
                session.out = std::mem::take(&mut buffers.out);
            }
            let ended = this.poll_run(cx, buffers);
            let session = this.session();
            if session.out.is_empty() {
                let out = std::mem::take(&mut session.out);
                if out.capacity() <= KEPT_OUT_BYTES {
                    buffers.out = out;
                }
            }
            ended
        });
        match ended {
            Poll::Ready(result) => Poll::Ready(result.unwrap_or(CloseReason::Error)),
            Poll::Pending => this.poll_idle(cx),
        }
    }
}

/// Tells watchers of a connection that came or went.
pub(super) fn tell_connection(context: &ServerContext, connection: &Connection, ended: Option<CloseReason>) {
    if context.events.watched(Kinds::CONNEVENTS) {
        context.events.tell(Kinds::CONNEVENTS, |line| {
            let (transport, address) = connection.peer.split_once(':').unwrap_or(("", ""));
            let transport = if transport == "unix" { "local" } else { "tcp" };
            let (ip, port) = address.rsplit_once(':').unwrap_or(("unix", "0"));
            let ip = ip.trim_matches(['[', ']']);
            let id = connection.id;
            let kind = if ended.is_some() { "conn_close" } else { "conn_new" };
            line.push_str(&format!("type={kind} rip={ip} rport={port} transport={transport} "));
            if let Some(ended) = ended {
                line.push_str(&format!("reason={} ", ended.name()));
            }
            line.push_str(&format!("cfd={id}"));
        });
    }
}
