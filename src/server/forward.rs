//! The cluster's side of a connection: sends commands to the nodes that own their keys, and
//! keeps the replies in order.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant as StdInstant;

use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::routing::{Place, Routing};
use crate::clock::Seconds;
use crate::cluster::Membership;
use crate::command::{Command, Outcome, Unavailable};
use crate::pb::EncodedOp;
use crate::peer::PendingOp;
use crate::peer::completions::{Completion, CompletionQueue, ReplyTo};
use crate::server::cluster_tasks::Task;
use crate::server::replies::{PendingReply, Replies};
use crate::stats::{Counters, Ending, Kind, Route};

/// Bytes of answers that wait for others after which no more is asked for.
const WAITING_MAX: usize = 256 << 10;

/// A connection's view of its cluster.
pub(super) struct Forward {
    pub(super) cache: Arc<Cache>,
    pub(super) replies: Replies,
    completions: Arc<CompletionQueue>,
    /// What the present batch goes by, and what is on its way went by. `None` for a connection that
    /// waits for its client: it would keep an old one in memory.
    routing: Option<Arc<Routing>>,
    /// Whether this node may answer as an owner, as of the beginning of the batch, and until when.
    serves: bool,
    serves_until: StdInstant,
    /// Whether it has, since then.
    served: bool,
    /// When what the batch sends on its way is given up, once something is.
    deadline: Option<Instant>,
    /// Nothing is executed until what is on its way has been answered.
    barrier: bool,
    completed: Vec<(u64, Completion)>,
    /// The last standstill of this thread that the connection was not there for.
    pauses: u64,
    /// Whether the connection may have waited for long to be accepted.
    is_late: bool,
    /// One of the commands that are on their way.
    timed: Option<Timed>,
}

/// A command on its way whose duration is counted.
pub(super) struct Timed {
    /// The number of its reply.
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) began: StdInstant,
}

/// Whether requests may be executed.
pub(super) enum Begin {
    /// Yes.
    Now,
    /// Not before what is on its way has been answered.
    Later,
    /// Never: what was read may lie there for so long that its client has given up on it.
    Never,
}

impl Forward {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Self {
            replies: Replies::default(),
            completions: Arc::default(),
            routing: None,
            serves: false,
            serves_until: cache.serves_until(),
            served: false,
            deadline: None,
            barrier: false,
            completed: Vec::new(),
            pauses: cache.pauses().before_now(),
            is_late: cache.shared().pauses.is_just_over(),
            timed: None,
            cache,
        }
    }

    /// What the present batch goes by.
    ///
    /// # Panics
    /// Outside of a batch.
    #[inline]
    pub(super) fn routing(&self) -> &Arc<Routing> {
        self.routing.as_ref().expect("a batch has begun")
    }

    /// Whether more requests may be executed now, by this routing. Not while something is on its
    /// way by another one, or a key's later command could overtake an earlier one.
    pub(super) fn begin(&mut self, routing: &Arc<Routing>) -> Begin {
        if self.is_late || self.cache.pauses().ended() != self.pauses {
            return Begin::Never;
        }
        if self.is_held() {
            return Begin::Later;
        }
        if !self.routing.as_ref().is_some_and(|present| Arc::ptr_eq(present, routing)) {
            if !self.replies.is_empty() {
                return Begin::Later;
            }
            self.routing = Some(routing.clone());
        }
        self.serves_until = self.cache.serves_until();
        self.serves = Membership::lasts(self.serves_until);
        self.served = false;
        self.deadline = None;
        Begin::Now
    }

    /// Whether what was executed here since [`Forward::begin`] may be answered. A process that
    /// stood still meanwhile may not have been the owner any more, even if it is again by now.
    pub(super) fn end(&self) -> bool {
        !self.served || Membership::lasts(self.serves_until)
    }

    /// Whether requests have to wait for what is on its way.
    pub(super) fn is_held(&self) -> bool {
        self.barrier || self.replies.is_full(WAITING_MAX)
    }

    /// Whether nothing can be executed before something has come in.
    pub(super) fn must_wait(&self) -> bool {
        let is_another =
            || self.routing.as_ref().is_none_or(|routing| routing.version != self.cache.version());
        self.is_held() || !self.replies.is_empty() && is_another()
    }

    /// Where a command is executed: here, for which it returns from which generation on items
    /// count, or somewhere else.
    #[inline]
    pub(super) fn place(&mut self, key: &[u8]) -> Result<u32, NotHere> {
        match self.routing().place(key) {
            Place::Here { since } if self.serves => {
                self.served = true;
                Ok(since)
            }
            Place::Here { .. } => Err(NotHere::Unknown(Unavailable::Fenced)),
            Place::Nowhere => Err(NotHere::Unknown(Unavailable::NoOwner)),
            place @ (Place::Member(_) | Place::Soon) => Err(NotHere::At(place)),
        }
    }

    /// Sends a command to its owner; the reply comes behind what is in `out`, under this number.
    pub(super) fn send(
        &mut self,
        place: Place,
        command: &Command<'_>,
        now: Seconds,
        out: &mut Vec<u8>,
        reply: PendingReply,
    ) -> u64 {
        let operation = self.cache.pack(command, now, reply.wanted());
        let deadline = *self.deadline.get_or_insert_with(|| self.cache.deadline());
        let number = self.replies.ask(out, reply, operation.payload_bytes());
        let reply_to = ReplyTo::Queue(self.completions.clone(), number);
        let op = PendingOp::new(operation, self.routing().epoch, deadline, reply_to);
        self.cache.send(self.routing(), place, op);
        number
    }

    /// Counts how long a command takes that was just sent, unless another one is being timed.
    pub(super) fn time(&mut self, timed: Timed) {
        self.timed.get_or_insert(timed);
    }

    /// Begins something that concerns the whole cluster, once everything before it has been
    /// answered; what comes after it waits for its end.
    pub(super) fn later(&mut self, out: &mut Vec<u8>, task: Task) {
        self.replies.later(out, task);
        self.barrier = true;
    }

    /// Takes what has come in and writes out what can be; pending when it must be asked again
    /// once more has come. Ready when nothing is on its way.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        counters: &Counters,
        mut seen: impl FnMut(&EncodedOp, &Outcome<'_>),
    ) -> Poll<()> {
        loop {
            if let Some((number, task)) = self.replies.flush(out, &mut seen) {
                let (cache, completions) = (self.cache.clone(), self.completions.clone());
                self.cache.spawn(async move {
                    let text = task.run(&cache).await;
                    completions.post(number, Completion::Text(text));
                });
            }
            if self.replies.is_empty() {
                self.barrier = false;
                self.routing = None;
                return Poll::Ready(());
            }
            std::task::ready!(self.completions.poll_take(cx, &mut self.completed));
            for (number, completion) in self.completed.drain(..) {
                if let Some(timed) = self.timed.take_if(|timed| timed.number == number) {
                    let ending = if has_failed(&completion) { Ending::Failed } else { Ending::Ok };
                    counters.time(timed.kind, Route::Forwarded, ending, timed.began.elapsed());
                }
                self.replies.fill(number, completion);
            }
        }
    }
}

/// Whether an answer says that a command was not executed.
fn has_failed(completion: &Completion) -> bool {
    use crate::pb::outcome::Kind;

    let Completion::Answer(answer) = completion else { return false };
    let Ok(outcome) = &answer.result else { return true };
    matches!(
        outcome.kind(),
        Kind::Unspecified
            | Kind::NonNumeric
            | Kind::TooLarge
            | Kind::OutOfMemory
            | Kind::WrongOwner
            | Kind::Unavailable
    )
}

/// Why a command is not executed here and now.
pub(super) enum NotHere {
    /// It is to be sent there.
    At(Place),
    /// It cannot be executed anywhere.
    Unknown(Unavailable),
}
