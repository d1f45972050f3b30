//! Where commands wait until it is sure where they belong: commands whose owner named another one, and commands for
//! slots that others may still answer for.

use std::collections::{HashSet, VecDeque};
use std::future::pending;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::cache::clustered::{Clustered, PARKED_MAX};
use crate::cache::routing::{Place, Routing};
use crate::cache::routing_watch::RoutingWatch;
use crate::cluster::view::slot;
use crate::command::Unavailable;
use crate::peer::link::Redirected;

/// Commands that come in at once, at most.
const BURST: usize = 256;

/// Lets commands through, those of one slot in their order, each at the latest at its deadline.
pub(super) async fn run(
    clustered: Weak<Clustered>,
    routing_watch: Arc<RoutingWatch>,
    mut queue: mpsc::Receiver<Redirected>,
) {
    let mut parked = ParkedRequests::default();
    let mut routing = routing_watch.present();
    let mut come = Vec::new();
    loop {
        let (version, earliest) = (routing.version, parked.earliest);
        tokio::select! {
            biased;
            next = routing_watch.wait_for(|next| next.version > version) => routing = next,
            () = until(earliest) => {}
            len = queue.recv_many(&mut come, BURST), if parked.waiting.len() < PARKED_MAX => {
                if len == 0 {
                    break;
                }
            }
        }
        let Some(clustered) = clustered.upgrade() else { break };
        let now = Instant::now();
        if routing.version != version || earliest.is_some_and(|earliest| earliest <= now) {
            parked.go_round(&clustered, &routing, now);
        }
        for redirected in come.drain(..) {
            if redirected.loads {
                let caller = clustered.clone();
                clustered.spawn(async move { caller.load_from_owner(redirected.op).await });
            } else {
                parked.admit(&clustered, &routing, redirected, now);
            }
        }
    }
}

/// Returns at a moment; never without one.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// The waiting commands, in the order in which they came.
#[derive(Default)]
struct ParkedRequests {
    waiting: VecDeque<Redirected>,
    /// The slots for which some wait.
    slots: HashSet<u16>,
    /// The first of the deadlines.
    earliest: Option<Instant>,
}

impl ParkedRequests {
    /// Lets every command through that can go, and answers those past their deadline.
    fn go_round(&mut self, clustered: &Clustered, routing: &Routing, now: Instant) {
        let Self { waiting, .. } = std::mem::take(self);
        waiting.into_iter().for_each(|redirected| self.admit(clustered, routing, redirected, now));
    }

    /// Lets a command through, or makes it wait behind all of its slot.
    fn admit(&mut self, clustered: &Clustered, routing: &Routing, redirected: Redirected, now: Instant) {
        if redirected.op.deadline <= now {
            let why = if redirected.op.rerouted { Unavailable::Moved } else { Unavailable::Unreachable };
            return redirected.op.answer(Err(why));
        }
        let slot = slot(redirected.op.operation().key());
        let held =
            if self.slots.contains(&slot) { Some(redirected) } else { pass(clustered, routing, redirected) };
        if let Some(redirected) = held {
            let deadline = redirected.op.deadline;
            self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
            self.slots.insert(slot);
            self.waiting.push_back(redirected);
        }
    }
}

/// Gives a command back that is of a later view than this one, or that comes too early for its place.
fn pass(clustered: &Clustered, routing: &Routing, redirected: Redirected) -> Option<Redirected> {
    let Redirected { mut op, epoch, loads } = redirected;
    if routing.epoch < epoch {
        return Some(Redirected { op, epoch, loads });
    }
    match routing.place(op.operation().key()) {
        Place::Pending => Some(Redirected { op, epoch, loads }),
        // A later routing may be in force already, though it is not posted yet.
        Place::Here { .. } | Place::Warming { .. } => {
            clustered.execute_here(op, false).map(|op| Redirected { op, epoch, loads })
        }
        place => {
            op.epoch = routing.epoch;
            clustered.send(routing, place, op);
            None
        }
    }
}
