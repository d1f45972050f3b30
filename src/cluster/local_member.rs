//! A node's place in its cluster: the one piece of code through which views are taken over,
//! whoever brings them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::cluster::moment::now;
use crate::cluster::serving_deadline::ServingDeadline;
use crate::cluster::state::{Candidate, Hooks, MemberStatus, State};
use crate::cluster::view::{Member, Owners, View};

/// A node's place in its cluster.
pub struct LocalMember {
    me: Member,
    hooks: Arc<dyn Hooks>,
    states: watch::Sender<Arc<State>>,
    deadline: Arc<ServingDeadline>,
    was_member: bool,
    leaving: bool,
    has_registered: bool,
    /// The view that was last spoken of.
    told: Arc<View>,
    /// Whether views of the past are taken over, which nobody wants to hear of.
    is_catching_up: bool,
}

/// What a new view means for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It stays what it was.
    None,
    /// It was taken in.
    Joined,
    /// It was taken out, has forgotten everything, and has a new incarnation.
    Removed,
}

impl LocalMember {
    /// A node outside of any view. The incarnation of `me` is chosen here.
    pub fn new(mut me: Member, hooks: Arc<dyn Hooks>) -> Self {
        me.incarnation = incarnation_after(0);
        let view = View::default();
        let state = State {
            epoch: 0,
            owners: Arc::new(Owners::of(&view)),
            view: Arc::new(view),
            me: me.id.clone(),
            incarnation: me.incarnation,
            standing: MemberStatus::Joining,
            acknowledged: Arc::default(),
            acks_as_of: 0,
            suspected: Arc::default(),
            registered: Arc::default(),
            candidates: Arc::default(),
        };
        let told = state.view.clone();
        let states = watch::Sender::new(Arc::new(state));
        Self {
            me,
            hooks,
            states,
            deadline: Arc::new(ServingDeadline::over()),
            was_member: false,
            leaving: false,
            has_registered: false,
            told,
            is_catching_up: false,
        }
    }

    /// This node as it registers.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// The same, when it registers in fact: views may have it from now on.
    pub fn register(&mut self) -> &Member {
        self.has_registered = true;
        &self.me
    }

    /// Whether it has neither had a view nor registered: it holds nothing, no view has its incarnation, and views of the past
    /// are nothing to it.
    pub fn is_new(&self) -> bool {
        !self.has_registered && self.states.borrow().epoch == 0
    }

    /// The present state.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.states.borrow())
    }

    /// Whether [`LocalMember::leave`] was called.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    pub(crate) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.states.subscribe()
    }

    pub(crate) fn deadline(&self) -> Arc<ServingDeadline> {
        Arc::clone(&self.deadline)
    }

    /// Takes over a view. An epoch that is not above the present one is ignored, because views
    /// only go forward. When epochs were skipped (S9 of docs/design/membership.md), what they did to this node's slots is not known,
    /// and everything is forgotten, unless it is new.
    pub fn take(&mut self, epoch: u64, view: View) -> Effect {
        let before = self.state();
        if epoch <= before.epoch {
            return Effect::None;
        }
        let owners = before.owners.next(&view);
        self.take_known(epoch, view, Arc::new(owners))
    }

    /// The same, of a view that is no longer the present one.
    pub fn take_past(&mut self, epoch: u64, view: View) -> Effect {
        self.is_catching_up = true;
        let effect = self.take(epoch, view);
        self.is_catching_up = false;
        effect
    }

    /// The same, when the owners of the view are known.
    pub(crate) fn take_known(&mut self, epoch: u64, view: View, owners: Arc<Owners>) -> Effect {
        let before = self.state();
        if epoch <= before.epoch {
            return Effect::None;
        }
        let was_member = before.is_member();
        let is_member =
            view.members.get(&self.me.id).is_some_and(|member| member.incarnation == self.me.incarnation);
        let mut after = State::clone(&before);
        after.epoch = epoch;
        after.owners = owners;
        after.view = Arc::new(view);

        let effect = match (was_member, is_member) {
            (true, false) if self.leaving => {
                info!(epoch, "left the cluster");
                Effect::Removed
            }
            (true, false) => {
                self.me.incarnation = incarnation_after(self.me.incarnation);
                after.incarnation = self.me.incarnation;
                warn!(epoch, "removed from the cluster: everything held is forgotten, joining again");
                self.hooks.forget();
                Effect::Removed
            }
            (false, true) => {
                self.was_member = true;
                info!(epoch, members = after.view.members.len(), "joined the cluster");
                self.hooks.forget();
                Effect::Joined
            }
            (was, _) => {
                let members = after.view.members.len();
                let missed = epoch != before.epoch + 1 && !self.is_new();
                if was && missed {
                    let last = before.epoch;
                    warn!(epoch, last, members, "views were missed: everything held is forgotten");
                } else {
                    self.tell(epoch, &after.view);
                }
                if missed {
                    if !was {
                        // One of them may have had this incarnation, which then must not come back.
                        self.me.incarnation = incarnation_after(self.me.incarnation);
                        after.incarnation = self.me.incarnation;
                    }
                    self.hooks.forget();
                }
                Effect::None
            }
        };
        if !self.is_catching_up {
            self.told = after.view.clone();
        }
        after.standing = self.standing(&after, now());
        self.hooks.change(&before, &after);
        self.states.send_replace(Arc::new(after));
        effect
    }

    /// Says what is new in a view that this node stays in, or out of.
    fn tell(&self, epoch: u64, view: &View) {
        let members = view.members.len();
        let (came, went) = (only_in(view, &self.told), only_in(&self.told, view));
        if self.is_catching_up {
            debug!(epoch, members, "a view of the past");
        } else if self.told.members.is_empty() {
            info!(epoch, members, ?came, "found the cluster");
        } else if view.flush_generation > self.told.flush_generation && view.members == self.told.members {
            info!(epoch, generation = view.flush_generation, "flush_all: everything held is forgotten");
        } else {
            info!(epoch, members, ?came, ?went, "the cluster changed");
        }
    }

    /// Lets this node serve until then, if it is a member; never moves back.
    pub fn serve_until(&mut self, until: Instant) {
        self.deadline.extend_to(until);
    }

    /// Until when this node may serve.
    pub fn serves_until(&self) -> Instant {
        self.deadline.ends()
    }

    /// Another process has taken this node's id, or has gone again. In force at once.
    pub fn displace(&mut self, displaced: bool) {
        self.deadline.displace(displaced);
        self.stand(now());
    }

    /// Publishes the standing when it is another one by now.
    pub fn stand(&mut self, now: Instant) {
        let state = self.state();
        let standing = self.standing(&state, now);
        if state.standing != standing {
            match standing {
                MemberStatus::Fenced => {
                    warn!("not serving: etcd and most members are out of reach, or this node lost its place");
                }
                MemberStatus::Serving => info!("serving"),
                // It was said that it stops, or that it starts.
                MemberStatus::Leaving | MemberStatus::Joining => {}
            }
            self.states.send_modify(|state| Arc::make_mut(state).standing = standing);
        }
    }

    /// Publishes which epoch each node has acknowledged, and the epoch of the view that was read with
    /// that. Both must be told before a view that was read with them is taken.
    pub fn acknowledge(&mut self, acknowledged: BTreeMap<String, u64>, acks_as_of: u64) {
        self.states.send_if_modified(|state| {
            let news = state.acks_as_of != acks_as_of || *state.acknowledged != acknowledged;
            if news {
                let state = Arc::make_mut(state);
                state.acknowledged = Arc::new(acknowledged);
                state.acks_as_of = acks_as_of;
            }
            news
        });
    }

    /// Publishes the living registrations.
    pub fn enlist(&mut self, registered: BTreeMap<String, Member>) {
        self.states.send_if_modified(|state| {
            let news = *state.registered != registered;
            if news {
                Arc::make_mut(state).registered = Arc::new(registered);
            }
            news
        });
    }

    /// Publishes whom this node does not grant.
    pub fn suspect(&mut self, suspected: BTreeSet<String>) {
        let before = self.state();
        if *before.suspected == suspected {
            return;
        }
        for peer in suspected.difference(&before.suspected) {
            warn!(peer, "does not answer pings");
        }
        // Who was removed did not come back by that.
        for peer in before.suspected.difference(&suspected).filter(|id| before.view.members.contains_key(*id))
        {
            info!(peer, "answers pings again");
        }
        self.states.send_modify(|state| Arc::make_mut(state).suspected = Arc::new(suspected));
    }

    /// Publishes who would enter the view.
    pub fn consider(&mut self, candidates: Vec<Candidate>) {
        self.states.send_if_modified(|state| {
            let news = *state.candidates != candidates;
            if news {
                Arc::make_mut(state).candidates = Arc::new(candidates);
            }
            news
        });
    }

    /// This node wants to be taken out of the view, and does not want to come back.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.stand(now());
    }

    fn standing(&self, state: &State, now: Instant) -> MemberStatus {
        match (self.leaving, state.is_member()) {
            (true, _) => MemberStatus::Leaving,
            (false, true) if now < self.deadline.ends() => MemberStatus::Serving,
            (false, false) if !self.was_member => MemberStatus::Joining,
            (false, _) => MemberStatus::Fenced,
        }
    }
}

impl fmt::Debug for LocalMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalMember")
            .field("me", &self.me)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The members of one view that are none of the other, by id.
fn only_in<'a>(one: &'a View, other: &View) -> Vec<&'a String> {
    one.members.keys().filter(|id| !other.members.contains_key(*id)).collect()
}

/// A number above `last` that an earlier process on a machine with a sane clock did not use:
/// microseconds since 1970.
fn incarnation_after(last: u64) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(last + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::testkit::membership::Script;

    struct Nothing;

    impl Hooks for Nothing {
        fn forget(&self) {}
    }

    #[test]
    fn a_node_that_stood_still_does_not_serve_until_it_looks_around() {
        let me = Member {
            id: "a".to_owned(),
            incarnation: 0,
            peer_addr: String::new(),
            memcached_addr: String::new(),
            weight: 100,
            zone: String::new(),
        };
        let local = Arc::new(Mutex::new(LocalMember::new(me, Arc::new(Nothing))));
        let lease = Duration::from_millis(50);
        let membership = Script::control(Arc::clone(&local), lease);
        let granted = Instant::now();
        local.lock().serve_until(granted + lease);
        let me = local.lock().me().clone();
        local.lock().take(1, View { members: [(me.id.clone(), me)].into(), ..View::default() });
        while membership.serves() {
            assert!(granted.elapsed() <= lease + Duration::from_secs(1));
            std::thread::yield_now();
        }
        assert!(granted.elapsed() >= lease || membership.state().standing != MemberStatus::Serving);
        local.lock().stand(Instant::now());
        assert_eq!(membership.state().standing, MemberStatus::Fenced);
        local.lock().serve_until(Instant::now() + Duration::from_secs(3600));
        local.lock().stand(Instant::now());
        assert!(membership.serves());
    }
}
