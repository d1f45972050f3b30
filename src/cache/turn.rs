//! The decision, once: where does a key belong, may this node answer for it, under which generation is the command
//! executed, and may its outcome be answered?

mod loading;

use std::sync::Arc;
use std::time::Instant as StdInstant;

use bytes::BytesMut;
use parking_lot::MutexGuard;
use tokio::time::Instant;

use crate::cache::clustered::Clustered;
use crate::cache::loads::{Loads, Verdict};
use crate::cache::routing::{Place, Routing};
use crate::clock::Seconds;
use crate::cluster::Membership;
use crate::command::{Command, Get, Outcome, SetMode, Unavailable, Verb};
use crate::pb;
use crate::pb::{EncodedOp, Projection};
use crate::peer::PendingOp;
use crate::peer::completions::ReplyTo;
use crate::stats::Counters;
use crate::store::{Caller, Store};

/// The right to execute one batch of commands. While it lives, the routing that it began with stays in force: it must not
/// be kept across an await.
///
/// Outcomes may be answered only once [`Turn::finish`] has said so.
pub struct Turn<'a> {
    store: &'a Store,
    caller: Caller<'a>,
    /// `None` on a node that is alone: it always owns every key.
    hold: Option<Hold<'a>>,
    /// Where there is a group with an origin, or with a longest time to live.
    loads: Option<&'a Loads>,
}

/// A turn's part in a cluster.
struct Hold<'a> {
    clustered: &'a Clustered,
    routing: MutexGuard<'a, Arc<Routing>>,
    /// Until when this node may answer as an owner, as of the beginning of the turn.
    serves_until: StdInstant,
    /// Whether that was in the future then.
    serves: bool,
    /// Whether anything was executed.
    executed: bool,
    /// Whether what lay under the keys of a warming slot elsewhere has been taken over.
    is_settled: bool,
    /// The deadline for commands that the turn sends to other nodes; the first of them sets it.
    deadline: Option<Instant>,
}

/// Why a command is not executed here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHere {
    /// It is to be sent there ([`Turn::send`]).
    At(Place),
    /// It may wait for a load ([`Turn::load`]), of the item with this CAS token, if there is one.
    Load(Option<u64>),
    /// It cannot be executed anywhere.
    Unavailable(Unavailable),
}

/// The node lost its right to serve while it executed a turn: another node may own the keys by this time, so the
/// outcomes must not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced;

impl<'a> Turn<'a> {
    pub(super) fn alone(store: &'a Store, loads: &'a Loads, caller: Caller<'a>) -> Self {
        Self { store, caller, hold: None, loads: loads.active() }
    }

    pub(super) fn clustered(clustered: &'a Clustered, caller: Caller<'a>) -> Self {
        let context = clustered.context();
        let routing = clustered.routing_handle().hold();
        let serves_until = context.membership.serves_until();
        let serves = Membership::lasts(serves_until);
        let hold = Hold {
            clustered,
            routing,
            serves_until,
            serves,
            executed: false,
            is_settled: false,
            deadline: None,
        };
        Self { store: &context.store, caller, hold: Some(hold), loads: context.loads.active() }
    }

    /// Refuses, as [`Unavailable::Unanswered`], each command that has not begun by then.
    pub fn expire_at(&mut self, moment: StdInstant) {
        self.caller.expires = Some(moment);
    }

    /// Nothing lies elsewhere any more under the keys of the commands that are executed from now on.
    pub(super) fn settle(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.is_settled = true;
        }
    }

    /// What is executed from now on was executed before, and is not counted again.
    pub(super) fn repeat(&mut self) {
        self.caller.repeats = true;
    }

    /// Executes a command here, and hands the outcome to `reply` while the item is locked.
    ///
    /// # Errors
    /// The command is not to be executed here and now; nothing has happened.
    #[inline]
    pub fn execute<R>(
        &mut self,
        command: &Command<'_>,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> Result<R, NotHere> {
        self.admit(command.key)?;
        let loads = self.loads;
        let capped = loads.and_then(|loads| loads.cap(command, self.store.clock(), self.caller.now));
        let command = capped.as_ref().unwrap_or(command);
        if let Some(loads) = loads
            && let Verb::Get(Get { touch: Some(_), loads: true, .. }) = &command.verb
        {
            self.judge_touch(loads, command.key)?;
        }
        let mut verdict = Verdict::Answer;
        let replied = self.store.execute(&self.caller, command, |outcome| {
            if let Some(loads) = loads {
                verdict = loads.judge(self.store, command, &outcome);
            }
            if matches!(verdict, Verdict::Load(_)) { None } else { Some(reply(outcome)) }
        });
        if let Some(loads) = loads {
            loads.note_write(command);
        }
        match (replied, verdict) {
            (Some(replied), Verdict::Refresh(cas)) => {
                self.refresh(command.key, cas);
                Ok(replied)
            }
            (Some(replied), _) => Ok(replied),
            (None, Verdict::Load(replaces)) => Err(NotHere::Load(replaces)),
            (None, _) => Err(NotHere::Load(None)),
        }
    }

    /// Drops the item under a key when its `set` could not be stored.
    ///
    /// # Errors
    /// The key belongs to another node, which is to drop it.
    pub fn drop_unstored(&mut self, key: &[u8], mode: SetMode) -> Result<(), Place> {
        if mode == SetMode::Set
            && let Err(NotHere::At(place)) = self.admit(key)
        {
            return Err(place);
        }
        self.store.drop_unstored(key, mode);
        Ok(())
    }

    /// Takes a command on this key for executed here, with the generation from which on items under it count.
    #[inline]
    fn admit(&mut self, key: &[u8]) -> Result<(), NotHere> {
        self.admit_if(key, false)
    }

    /// The same, for what follows a command on this key that was executed here.
    fn admit_again(&mut self, key: &[u8]) -> Result<(), NotHere> {
        self.admit_if(key, true)
    }

    /// The same; `is_settled` says that nothing lies under the key elsewhere.
    #[inline]
    fn admit_if(&mut self, key: &[u8], is_settled: bool) -> Result<(), NotHere> {
        let Some(hold) = &mut self.hold else { return Ok(()) };
        match hold.routing.place(key) {
            Place::Here { min_generation } if hold.serves => {
                hold.executed = true;
                self.caller.min_generation = Some(min_generation);
                Ok(())
            }
            Place::Warming { min_generation } if hold.serves => {
                let caller = Caller { min_generation: Some(min_generation), ..self.caller };
                let is_settled = is_settled
                    || hold.is_settled
                    || hold.clustered.context().moves.is_settled(self.store, &caller, key);
                if !is_settled {
                    return Err(NotHere::At(Place::Warming { min_generation }));
                }
                hold.executed = true;
                self.caller = caller;
                Ok(())
            }
            Place::Here { .. } | Place::Warming { .. } => Err(NotHere::Unavailable(Unavailable::Fenced)),
            Place::Nowhere => Err(NotHere::Unavailable(Unavailable::NoOwner)),
            place @ (Place::Member(_) | Place::Pending) => Err(NotHere::At(place)),
        }
    }

    /// Ends the turn.
    ///
    /// # Errors
    /// Something was executed that must not be answered. A process that stood still meanwhile may have lost ownership,
    /// even if it is the owner again.
    pub fn finish(self) -> Result<(), Fenced> {
        match self.hold {
            Some(hold) if hold.executed && !Membership::lasts(hold.serves_until) => Err(Fenced),
            _ => Ok(()),
        }
    }

    /// A command as it travels to other nodes, or waits.
    pub fn encode(&self, command: &Command<'_>, projection: Projection) -> EncodedOp {
        let now = self.caller.now;
        match &self.hold {
            Some(hold) => hold.clustered.encode(command, now, projection),
            None => {
                let at = pb::Clocked { clock: self.store.clock(), now };
                pb::pack(command, at, projection, &mut BytesMut::new())
            }
        }
    }

    /// Sends a command on its way to where [`NotHere::At`] said. It is answered exactly once.
    pub fn send(&mut self, place: Place, operation: EncodedOp, reply_to: ReplyTo) {
        // A node that is alone sends nothing; a reply that is dropped is answered.
        let Some(hold) = &mut self.hold else { return };
        let deadline = *hold.deadline.get_or_insert_with(|| hold.clustered.deadline());
        let op = PendingOp::new(operation, hold.routing.epoch, deadline, reply_to);
        hold.clustered.send(&hold.routing, place, op);
    }

    /// Whether this node could answer as an owner when the turn began.
    pub fn serves(&self) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.serves)
    }

    /// The routing that the turn goes by; `None` on a node that is alone.
    pub fn routing(&self) -> Option<&Arc<Routing>> {
        self.hold.as_ref().map(|hold| &*hold.routing)
    }

    /// Counts the routings of this process; 0 on a node that is alone.
    #[inline]
    pub fn version(&self) -> u64 {
        self.hold.as_ref().map_or(0, |hold| hold.routing.version)
    }

    /// This thread's part in the cluster; `None` on a node that is alone.
    pub fn cluster(&self) -> Option<&'a Clustered> {
        self.hold.as_ref().map(|hold| hold.clustered)
    }

    /// When the turn began.
    pub fn now(&self) -> Seconds {
        self.caller.now
    }

    /// The counters of executed commands.
    pub fn counters(&self) -> &'a Counters {
        self.caller.counters
    }

    /// For commands about this node's memory, and not about a single key.
    pub fn caller(&self) -> Caller<'a> {
        Caller { min_generation: None, ..self.caller }
    }
}

impl Clustered {
    /// Begins a batch of commands from this connection at this time.
    pub fn begin(&self, now: Seconds, connection: u64) -> Turn<'_> {
        Turn::clustered(self, Caller::new(now, self.counters(), connection))
    }
}
