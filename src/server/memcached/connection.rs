//! One client's connection: reads, has every complete request executed, writes the answers at
//! once, and never more than it can hold.
//! The future is written by hand: each turn is only one read, one batch and one write, and the buffers belong to the
//! thread, so that a waiting connection owns none.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

use crate::cache::{Arrival, Cache};
use crate::clock::Seconds;
use crate::protocol::codec::{BatchEnd, Codec};
use crate::protocol::error::ProtocolError;
use crate::protocol::output::Output;
use crate::server::ServerContext;
use crate::server::connections::{CloseReason, Connection, ConnectionState};
use crate::server::memcached::commands::scope::Next;
use crate::server::memcached::input::{Input, Place, READ_BYTES, Read};
use crate::server::memcached::session::Session;
use crate::server::memcached::session::batch::Batch;
use crate::server::stream::Stream;
use crate::stats::{Counter, Counters};
use crate::store::Caller;

/// After this many commands a busy connection lets the others of its thread go first; each key of a multiget is one.
/// They take some 100 us, and letting others go first costs little beside that: `benches/versus_memcached --fairness`.
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
    out: Output,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// A client's connection; resolves when it is over.
pub struct ClientConnection {
    stream: Stream,
    codec: Codec,
    session: Session,
    cache: Cache,
    arrival: Arrival,
    input: Input,
    /// How much of the replies has been sent.
    sent: usize,
    /// Whether the codec has more to take out of the input.
    paused: bool,
    /// Whether room was made for a large value: others of the thread go first.
    is_slow: bool,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    /// When the client last took replies that had had to wait for it.
    last_taken: Seconds,
    woken_for_all: bool,
}

impl ClientConnection {
    /// A connection that has just come in.
    pub fn new(
        stream: Stream,
        context: Arc<ServerContext>,
        counters: Arc<Counters>,
        connection: Arc<Connection>,
        cache: Cache,
    ) -> Self {
        let idle =
            context.options.idle_timeout.map(|timeout| (timeout, Box::pin(tokio::time::sleep(timeout))));
        let input = Input::new(context.requests.clone());
        let protocol = context.options.protocol;
        let session = Session::new(context, counters, connection);
        Self {
            stream,
            codec: Codec::new(protocol),
            last_taken: session.now(),
            session,
            arrival: cache.arrive(),
            cache,
            input,
            sent: 0,
            paused: false,
            is_slow: false,
            idle,
            woken_for_all: false,
        }
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, session, sent, last_taken, .. } = self;
        while *sent < session.pipeline().sendable().len() {
            let written = match stream.poll_send(cx, session.pipeline().sendable(), *sent) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    session.connection().set_state(ConnectionState::Write);
                    *sent = session.hold_unsent(cx, *sent);
                    return Poll::Pending;
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            session.note_sent(written);
            if session.connection().state() == ConnectionState::Write {
                *last_taken = session.context().store.clock().now();
            }
            *sent += written;
        }
        *sent = 0;
        session.release_sent(cx);
        Pin::new(stream).poll_flush(cx)
    }

    /// Has every complete request in `input` executed.
    fn decode(&mut self, input: &mut BytesMut) {
        // Decoding never fails: the client receives an error for a bad request.
        self.execute(|codec, batch| codec.with(batch).decode(input).unwrap_or(Some(BatchEnd::Closed)));
    }

    /// The same for a large request that is alone in its memory. Returns how much of it was executed.
    fn decode_alone(&mut self, request: &Bytes) -> usize {
        let mut used = 0;
        self.execute(|codec, batch| {
            let (bytes, ended) = codec.decode_received(batch, request);
            used = bytes;
            ended
        });
        used
    }

    /// Has requests executed as one batch.
    #[inline]
    fn execute(&mut self, decode: impl FnOnce(&mut Codec, &mut Batch<'_>) -> Option<BatchEnd>) {
        let Self { codec, session, cache, .. } = self;
        if cache.is_stale(self.arrival) {
            return session.abandon();
        }
        let Some(mut batch) = Batch::begin(session, cache) else {
            self.paused = true;
            return;
        };
        let ended = decode(codec, &mut batch);
        batch.finish();
        self.paused = ended == Some(BatchEnd::Paused);
        // Only the codec closes like this: the input was junk.
        if ended == Some(BatchEnd::Closed) && !matches!(session.next(), Next::Close(_)) {
            *session.next() = Next::Close(CloseReason::Error);
        }
    }

    /// Has every complete request in the rest of the input executed.
    fn decode_rest(&mut self, cx: &Context<'_>) {
        if let Some(request) = self.input.take_alone(self.codec.wanted()) {
            let used = self.decode_alone(&request);
            return self.input.put_back_alone(cx, request, used);
        }
        let mut rest = self.input.take();
        let before = rest.len();
        self.decode(&mut rest);
        self.input.put_back(cx, rest, before);
    }

    /// Reads once and executes what came; false at the end of the input.
    fn poll_turn(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<bool>> {
        let waits_for = if self.input.is_empty() { ConnectionState::Read } else { ConnectionState::Value };
        self.session.connection().set_state(waits_for);
        let wanted = self.codec.wanted();
        if self.input.is_large(wanted) {
            self.session.tick();
            let Self { input, codec, cache, session, .. } = self;
            let caller = Caller::new(session.now(), session.counters(), session.connection().id);
            self.is_slow = input.make_room(codec, cache, &session.context().store, &caller);
            if self.is_slow {
                return Poll::Ready(Ok(true));
            }
        }
        let (len, place) = match ready!(self.input.poll_read(cx, &mut self.stream, wanted, buffer))? {
            Read::Bytes(0, _) => return Poll::Ready(Ok(false)),
            Read::Bytes(len, place) => (len, place),
            Read::NoRoom => {
                self.codec.refuse_unfinished();
                self.decode_rest(cx);
                return Poll::Ready(Ok(true));
            }
        };
        self.session.note_read(len);
        match place {
            Place::Shared => {
                let before = buffer.len();
                self.decode(buffer);
                self.input.keep(cx, buffer, before, self.codec.wanted(), self.paused);
            }
            Place::Own => self.decode_rest(cx),
        }
        Poll::Ready(Ok(true))
    }

    /// Goes on with what a batch has begun: a dump or a watch; ready when there is something
    /// to send, or the connection reads again.
    fn poll_next(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<()>> {
        let Self { session, cache, stream, .. } = self;
        match session.next() {
            Next::Read | Next::Close(_) => Poll::Ready(Ok(())),
            &mut Next::Dump(kind, shard) => {
                session.dump(cache, kind, shard);
                Poll::Ready(Ok(()))
            }
            Next::Watch(_) => {
                session.connection().set_state(ConnectionState::Watch);
                if session.poll_events(cx) {
                    return Poll::Ready(Ok(()));
                }
                // Nothing is read from a watcher except its end.
                buffer.clear();
                buffer.reserve(READ_BYTES);
                if ready!(poll_read_buf(Pin::new(stream), cx, buffer))? == 0 {
                    *session.next() = Next::Close(CloseReason::Normal);
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<io::Result<CloseReason>> {
        self.session.grant(TURN_COMMANDS);
        let mut began = None;
        for round in 0_u32.. {
            let answered = self.session.poll_replies(cx);
            ready!(self.poll_send(cx))?;
            if self.is_turn_over(round, &mut began) {
                break;
            }
            if self.session.must_wait(&self.cache) {
                ready!(answered);
                continue;
            }
            let draining = self.draining();
            match *self.session.next() {
                Next::Close(ended) => {
                    // Requests after a quit are not answered.
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    return Poll::Ready(Ok(ended));
                }
                Next::Dump(..) | Next::Watch(_) if !draining => {
                    ready!(self.poll_next(cx, &mut buffers.read))?;
                    continue;
                }
                _ => {}
            }
            if self.paused {
                ready!(self.poll_paused(cx, answered));
                continue;
            }
            if draining {
                ready!(answered);
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                return Poll::Ready(Ok(CloseReason::Shutdown));
            }
            if !ready!(self.poll_turn(cx, &mut buffers.read))? {
                if self.session.pipeline().is_empty() {
                    self.stream.take_leave(cx);
                    return Poll::Ready(Ok(CloseReason::Normal));
                }
                // A client that sends no more may still read.
                *self.session.next() = Next::Close(CloseReason::Normal);
            }
        }
        self.session.counters().bump(Counter::ConnYields);
        // Not woken at once: the runtime would poll it again, many times, before it looks which
        // others have something to read.
        _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
        // And so would other threads have to wait, where more are busy than there are CPUs: this one
        // would keep its own for the milliseconds that the kernel gives to each.
        std::thread::yield_now();
        Poll::Pending
    }

    /// Goes on with the rest of the input, when there is room for its replies.
    fn poll_paused(&mut self, cx: &mut Context<'_>, answered: Poll<()>) -> Poll<()> {
        if self.session.memory().is_wanted() {
            ready!(answered);
            ready!(self.session.poll_room(cx));
            if matches!(self.session.next(), Next::Close(_)) {
                return Poll::Ready(());
            }
        }
        // The client may have taken its time with the replies so far.
        self.session.tick();
        self.decode_rest(cx);
        Poll::Ready(())
    }

    /// Whether it is others' turn. Only a connection that has read twice without a wait reads the clock.
    #[inline]
    fn is_turn_over(&mut self, round: u32, began: &mut Option<StdInstant>) -> bool {
        if self.session.is_spent() || std::mem::take(&mut self.is_slow) {
            return true;
        }
        round >= 2 && began.get_or_insert_with(StdInstant::now).elapsed() >= TURN_TIME
    }

    /// Gives up its memory, which others need, because this connection does not move.
    #[cold]
    fn make_room(&mut self, cx: &Context<'_>) -> Option<CloseReason> {
        if self.session.memory().is_evicted() {
            // Its client reads nothing, so that no message can reach it, not even one of TLS.
            return Some(CloseReason::Error);
        }
        self.input.clear(cx);
        self.paused = false;
        self.session.close_for_want_of_room(ProtocolError::NoRoomReading);
        None
    }

    fn draining(&self) -> bool {
        self.session.context().draining.load(Ordering::Relaxed)
    }

    /// Whether it has been silent for too long; one that takes its answers, however slowly, is
    /// not. A timer that has run out is set anew when there was a command meanwhile, so that a
    /// command costs nothing here.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let watching = matches!(self.session.next(), Next::Watch(_));
        let session = &self.session;
        let Some((timeout, timer)) = &mut self.idle else { return Poll::Pending };
        while timer.as_mut().poll(cx).is_ready() {
            let heard = session.connection().last_command().max(self.last_taken);
            let silent = session.context().store.clock().now().saturating_sub(heard);
            // The clock shows whole seconds: only one more than the timeout is surely enough
            // (memcached.c, conn_timeout_thread).
            let left = (*timeout + CLOCK_STEP).saturating_sub(Duration::from_secs(silent.into()));
            if left.is_zero() && !watching {
                session.counters().bump(Counter::IdleKicks);
                self.stream.take_leave(cx);
                return Poll::Ready(CloseReason::Idle);
            }
            timer.as_mut().reset(Instant::now() + left.max(CLOCK_STEP));
        }
        Poll::Pending
    }
}

impl Future for ClientConnection {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = &mut *self;
        if !this.woken_for_all {
            this.woken_for_all = true;
            this.session.connection().set_waker(cx.waker().clone());
        }
        if (this.input.is_evicted() || this.session.memory().is_evicted())
            && let Some(ended) = this.make_room(cx)
        {
            return Poll::Ready(ended);
        }
        let ended = BUFFERS.with_borrow_mut(|buffers| {
            let out = &mut this.session.pipeline().out;
            if out.held_bytes() == 0 {
                *out = std::mem::take(&mut buffers.out);
            }
            let ended = this.poll_run(cx, buffers);
            let out = &mut this.session.pipeline().out;
            if out.is_empty() {
                let out = std::mem::take(out);
                if out.held_bytes() <= KEPT_OUT_BYTES {
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
