//! Takes over what lies under the keys of this node's new slots: first what commands wait for, and meanwhile all the rest.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::cache::clustered::Clustered;
use crate::cache::handovers::Source;
use crate::cache::moves::pace::Pace;
use crate::cache::moves::session::{News, Session};
use crate::cache::moves::stats::{add, seconds_left};
use crate::cache::moves::walk::item_bytes;
use crate::cache::moves::{Waiting, hash};
use crate::cache::parked::until;
use crate::cache::routing::{Place, Routing};
use crate::clock::Seconds;
use crate::cluster::view::slot;
use crate::command::Unavailable;
use crate::item::{Exptime, ItemView, KEY_MAX};
use crate::pb;
use crate::peer::PendingOp;
use crate::store::{Arrival, Caller, Generation, MovingItem};

/// Commands that come in at once, at most.
const BURST: usize = 256;

/// How often it looks at the clock while something moves.
const TICK: Duration = Duration::from_millis(10);

/// How often it looks for takers that do not come,
const TAKERS_LOOK: Duration = Duration::from_secs(1);

/// and how many leases they have for it, or to come again.
const TAKER_LEASES: u32 = 3;

/// Sources from which items are pulled at the same time; all are asked for what commands wait for.
const PULLING: usize = 4;

/// Moves items until the node stops, at so many bytes a second; 0 is without a limit.
pub async fn run(clustered: Arc<Clustered>, mut queue: mpsc::Receiver<Waiting>, bytes_per_second: u64) {
    let routing_watch = clustered.routing_watch.clone();
    let mut mover = Mover {
        clustered,
        sessions: Vec::new(),
        version: 0,
        has_takers: false,
        pace: Pace::new(bytes_per_second),
    };
    let mut come = Vec::new();
    loop {
        let (version, wakes_at) = (mover.version, mover.wakes_at());
        tokio::select! {
            biased;
            _ = routing_watch.wait_for(|routing| routing.version > version) => {}
            (place, news) = poll_fn(|cx| mover.poll(cx)) => mover.take_in(place, news),
            len = queue.recv_many(&mut come, BURST) => if len == 0 {
                break;
            },
            () = until(wakes_at) => {}
        }
        // However many answers there are.
        while come.len() < BURST
            && let Ok(waiting) = queue.try_recv()
        {
            come.push(waiting);
        }
        // In force when these came, or later: so whoever came first is executed first.
        let routing = mover.clustered.context().ownership.in_force();
        mover.follow(&routing);
        come.drain(..).for_each(|waiting| mover.admit(&routing, waiting));
        mover.look_round();
    }
}

struct Mover {
    clustered: Arc<Clustered>,
    /// In the order in which they began.
    sessions: Vec<Session>,
    /// Of the routing that they go by.
    version: u64,
    /// Whether others take items from here, under it.
    has_takers: bool,
    pace: Pace,
}

impl Mover {
    fn wakes_at(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.sessions.is_empty() {
            return self.has_takers.then_some(now + TAKERS_LOOK);
        }
        let free_at = self.pace.free_at();
        Some(if free_at > now { free_at.min(now + TICK) } else { now + TICK })
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<(usize, News)> {
        for (place, session) in self.sessions.iter_mut().enumerate() {
            if let Poll::Ready(news) = session.poll(cx) {
                return Poll::Ready((place, news));
            }
        }
        Poll::Pending
    }

    /// Goes by another routing: ends what it has no more, and begins what is new.
    fn follow(&mut self, routing: &Routing) {
        if routing.version == self.version {
            return;
        }
        self.version = routing.version;
        let takers = || routing.handovers().into_iter().flat_map(|all| all.takers());
        self.has_takers = takers().next().is_some();
        self.clustered.context().moves.expect(takers());
        let sources: Vec<&Source> = routing.handovers().into_iter().flat_map(|all| all.sources()).collect();
        while let Some(gone) =
            self.sessions.iter().position(|session| !sources.iter().any(|source| source.is(&session.source)))
        {
            self.end(gone, "its slots are another node's, or it has gone");
        }
        // Slots that are still shut begin with the routing that opens them: their sources may not know of it yet.
        for source in sources.into_iter().filter(|source| routing.opens(source)) {
            if !self.sessions.iter().any(|session| session.source.is(source)) {
                let from = &source.member.id;
                info!(from, epoch = source.epoch, "takes over what lies in slots that have come from there");
                self.sessions.push(Session::new(self.clustered.context(), source.clone()));
            }
        }
    }

    /// Lets a command wait for its source, or executes it if it need not wait.
    fn admit(&mut self, routing: &Routing, waiting: Waiting) {
        let source = routing.handovers().and_then(|all| all.source(waiting.slot));
        match self.sessions.iter_mut().find(|session| source.is_some_and(|source| source.is(&session.source)))
        {
            Some(session) => session.admit(waiting),
            None => self.execute(waiting, None),
        }
    }

    fn take_in(&mut self, place: usize, news: News) {
        match news {
            News::Opened => {}
            News::Broken(error) => {
                debug!(from = self.sessions[place].source.member.id, "items do not come: {error}");
                self.try_again(place, &error.to_string());
            }
            News::Answer(reply, waited) => {
                let is_over = reply.is_over;
                let mut keys = HashSet::new();
                self.receive(place, reply, |moved| _ = keys.insert(moved.key.clone()));
                let found =
                    waited.iter().filter(|waiting| keys.contains(waiting.op.operation().key())).count();
                let stats = self.clustered.context().moves.stats();
                add(&stats.takes_found, found);
                add(&stats.takes_absent, waited.len() - found);
                let source = self.sessions[place].source.clone();
                waited.into_iter().for_each(|waiting| self.execute(waiting, Some(&source)));
                self.end_if(is_over, place);
            }
            News::Pulled(reply) => {
                let is_over = reply.is_over;
                let came = self.receive(place, reply, |_| ());
                self.pace.note(came.bytes, Instant::now());
                let store = &self.clustered.context().store;
                // What would give way is used more than what comes.
                if came.stored > 0
                    && !store.has_room(0, came.bytes)
                    && came.coldest > store.age(store.clock().now())
                {
                    self.sessions[place].finish();
                }
                self.end_if(is_over, place);
            }
        }
    }

    fn end_if(&mut self, is_over: bool, place: usize) {
        if is_over {
            self.clustered.context().ownership.end_source(&self.sessions[place].source);
            self.end(place, "");
        }
    }

    /// Stores what has come, which `see` is shown first.
    fn receive(&mut self, place: usize, reply: pb::MoveReply, mut see: impl FnMut(&pb::MovedItem)) -> Came {
        let session = &mut self.sessions[place];
        let context = self.clustered.context();
        let (store, stats) = (&context.store, context.moves.stats());
        let caller = Caller::new(store.clock().now(), self.clustered.counters(), 0);
        if let Some(seconds) = reply.flush_seconds
            && store.flush_due().is_none()
        {
            store.flush_all(&caller, Exptime::In(seconds.max(1)));
        }
        let mut came = Came::default();
        let mut items = reply.items;
        {
            // Held meanwhile: the slots are this node's, and still come from there.
            let routing = self.clustered.routing_handle().hold();
            while let Ok(moved) = pb::take_moved(&mut items) {
                see(&moved);
                let slot = slot(&moved.key);
                let source = routing.handovers().and_then(|all| all.source(slot));
                let is_ours = source.is_some_and(|source| source.is(&session.source));
                if !is_ours || session.is_forsaken(hash(&moved.key)) {
                    continue;
                }
                let min_generation = routing.min_generation_of(slot);
                let Some(moving) = moving(&moved, min_generation) else { continue };
                let caller = Caller { min_generation: Some(min_generation), ..caller };
                came.stored += usize::from(store.receive(&caller, &moving) == Arrival::Stored);
                came.bytes += item_bytes(&moving);
                came.coldest = came.coldest.max(moving.item.idle_seconds);
            }
        }
        if !items.is_empty() {
            warn!(from = session.source.member.id, "items that cannot be read have come, and are lost");
        }
        session.items += came.stored as u64;
        session.bytes += came.bytes as u64;
        add(&stats.items_in, came.stored);
        add(&stats.bytes_in, came.bytes);
        came
    }

    /// Executes a command that has waited; nothing lies under its key at that source any more.
    fn execute(&self, waiting: Waiting, source: Option<&Source>) {
        let Waiting { op, slot } = waiting;
        self.execute_op(op, slot, source);
        self.clustered.context().moves.ended(slot);
    }

    fn execute_op(&self, op: PendingOp, slot: u16, source: Option<&Source>) {
        let now = Instant::now();
        if op.deadline <= now {
            return op.answer(Err(Unavailable::Unreachable));
        }
        let mut turn = self.clustered.begin(self.clustered.context().store.clock().now(), 0);
        let present = turn.routing().and_then(|routing| routing.handovers()?.source(slot));
        if let (Some(present), Some(source)) = (present, source)
            && present.is(source)
        {
            turn.settle();
        }
        turn.expire_at(StdInstant::now() + op.deadline.saturating_duration_since(now));
        let Some(op) = self.clustered.execute_in(turn, op) else { return };
        // Its slot has gone meanwhile.
        if op.for_peer {
            return op.answer(Err(Unavailable::Moved));
        }
        let routing = self.clustered.routing_handle().hold().clone();
        self.clustered.send(&routing, Place::Pending, op);
    }

    /// Nothing is known of what lies under a command's key at its source. Whoever reads is told that, which is a miss; whoever
    /// changes something need not wait for it.
    fn give_up(&self, waiting: Waiting, source: &Source) {
        if waiting.is_read() {
            waiting.op.answer(Err(Unavailable::Unreachable));
            self.clustered.context().moves.ended(waiting.slot);
        } else {
            self.execute(waiting, Some(source));
        }
    }

    /// Sends what can be sent, and sees to what takes too long.
    fn look_round(&mut self) {
        let now = Instant::now();
        let margin = self.clustered.context().options.operation_timeout / 5;
        for place in (0..self.sessions.len()).rev() {
            let session = &mut self.sessions[place];
            let overdue = session.take_overdue(now, margin);
            if !overdue.is_empty() {
                let source = session.source.clone();
                add(&self.clustered.context().moves.stats().takes_failed, overdue.len());
                overdue.into_iter().for_each(|waiting| self.give_up(waiting, &source));
            }
            if self.sessions[place].is_silent(now) {
                self.try_again(place, "no answer");
            }
        }
        if self.has_takers {
            self.end_absent_takers(now);
        }
        let nothing = (0, 0);
        let batch = if self.pace.free_at() <= now { self.pace.batch() } else { nothing };
        for (place, session) in self.sessions.iter_mut().enumerate() {
            session.send(now, if place < PULLING { batch } else { nothing });
        }
        let stats = self.clustered.context().moves.stats();
        let sum = |of: fn(&Session) -> u64| self.sessions.iter().map(of).sum::<u64>();
        let took = self.sessions.first().map_or(Duration::ZERO, |oldest| now.duration_since(oldest.began));
        let (bytes_left, bytes) = (sum(|session| session.bytes_left), sum(|session| session.bytes));
        stats.items_left.store(sum(|session| session.items_left), Ordering::Relaxed);
        stats.bytes_left.store(bytes_left, Ordering::Relaxed);
        stats.seconds_left.store(seconds_left(bytes_left, bytes, took), Ordering::Relaxed);
    }

    fn end_absent_takers(&self, now: Instant) {
        let context = self.clustered.context();
        for taker in context.moves.gone(now, context.membership.timing().lease_ttl() * TAKER_LEASES) {
            warn!(to = taker.id, "what was not taken over from here is dropped: nobody comes for it");
            context.ownership.end_taker(&taker);
        }
    }

    fn try_again(&mut self, place: usize, why: &str) {
        let context = self.clustered.context();
        if !self.sessions[place].try_again(context, Instant::now()) {
            context.ownership.end_source(&self.sessions[place].source);
            self.end(place, why);
        }
    }

    /// Ends a session: nothing more comes from there, and whoever waits is executed by what lies here.
    fn end(&mut self, place: usize, why: &str) {
        let session = self.sessions.remove(place);
        let (from, items, bytes) = (&session.source.member.id, session.items, session.bytes);
        let seconds = session.began.elapsed().as_secs_f64();
        if why.is_empty() {
            info!(from, items, bytes, "everything was taken over, in {seconds:.1} s");
        } else {
            warn!(from, items, bytes, "what has not come from there is lost: {why}");
        }
        session.end().for_each(|waiting| self.execute(waiting, None));
    }
}

/// What an answer had.
#[derive(Default)]
struct Came {
    stored: usize,
    bytes: usize,
    /// Seconds since the last use of what was used longest ago.
    coldest: Seconds,
}

/// `None` for what no client can have stored.
fn moving(moved: &pb::MovedItem, generation: Generation) -> Option<MovingItem<'_>> {
    let item = moved.item.as_ref().filter(|_| (1..=KEY_MAX).contains(&moved.key.len()))?;
    Some(MovingItem {
        item: ItemView { loaded: moved.loaded, ..pb::item_view(item, &moved.key) },
        stale: moved.stale,
        win_sent: moved.win_sent,
        uses: moved.uses.min(u32::from(u8::MAX)) as u8,
        generation,
    })
}
