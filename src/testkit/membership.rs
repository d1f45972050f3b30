//! A membership that a test scripts: each node believes the views that it is given, from the moment on when it is
//! given them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::etcd::health::Report;
use crate::cluster::failure_detector::Timing;
use crate::cluster::local_member::{Effect, LocalMember};
use crate::cluster::propose;
use crate::cluster::view::{Member, Owners, View};
use crate::cluster::{Asked, Control, Error, Hooks, Membership};

/// Nobody has a lease here. What depends on one goes by this.
const LEASE: Duration = Duration::from_secs(5);

/// How long a node that no lease limits may serve.
const UNLIMITED: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The test's end of a scripted membership; cheap to clone.
///
/// Views may be given late, twice or in any order: as with etcd, one that is not newer than the
/// present one is ignored, and epochs that were skipped make the node forget.
#[derive(Debug, Clone)]
pub struct Script(Arc<Mutex<LocalMember>>);

impl Script {
    /// A node outside of any view, that owns keys whenever a view has it. Its incarnation is in the
    /// states of the membership, and in [`Script::me`].
    pub fn new(me: Member, hooks: Arc<dyn Hooks>) -> (Self, Membership) {
        let mut local = LocalMember::new(me, hooks);
        local.serve_until(Instant::now().into_std() + UNLIMITED);
        let local = Arc::new(Mutex::new(local));
        (Self(Arc::clone(&local)), Self::control(local, LEASE))
    }

    /// What is asked of a membership goes to this place of a node.
    pub(crate) fn control(local: Arc<Mutex<LocalMember>>, lease: Duration) -> Membership {
        let script = Arc::new(Self(Arc::clone(&local)));
        Membership::new(&local.lock(), Timing::of(lease), script)
    }

    /// The node as it stands in a view that has it; another incarnation after each removal.
    pub fn me(&self) -> Member {
        self.0.lock().me().clone()
    }

    /// Gives the node a view.
    pub fn push(&self, epoch: u64, view: View) -> Effect {
        let mut local = self.0.lock();
        with_acks_as_of(&mut local, epoch);
        local.take(epoch, view)
    }

    /// Gives the node a view with its owners, which one node has computed for all.
    pub fn push_known(&self, epoch: u64, view: View, owners: Arc<Owners>) -> Effect {
        let mut local = self.0.lock();
        with_acks_as_of(&mut local, epoch);
        local.take_known(epoch, view, owners)
    }

    /// Gives the node a view that a peer told: who else has a lease is not known with it.
    pub fn hear_known(&self, epoch: u64, view: View, owners: Arc<Owners>) -> Effect {
        self.0.lock().take_known(epoch, view, owners)
    }

    /// Fences the node, or lets it serve again.
    pub fn fence(&self, fenced: bool) {
        self.0.lock().displace(fenced);
    }

    /// Tells the node which epoch each other one with a lease has acknowledged.
    pub fn acknowledge(&self, acknowledged: BTreeMap<String, u64>) {
        let mut local = self.0.lock();
        let acks_as_of = local.state().acks_as_of;
        local.acknowledge(acknowledged, acks_as_of);
    }

    /// Tells the node which nodes are registered.
    pub fn enlist(&self, registered: BTreeMap<String, Member>) {
        self.0.lock().enlist(registered);
    }

    /// Tells the node whom it suspects.
    pub fn suspect(&self, suspected: BTreeSet<String>) {
        self.0.lock().suspect(suspected);
    }
}

impl Control for Script {
    fn etcd_health(&self) -> Option<Report> {
        None
    }

    fn heard(&self) {}

    fn learn(&self, epoch: u64, view: View) {
        self.push(epoch, view);
    }

    fn leave(&self, _deadline: Duration) -> Asked<'_, ()> {
        Box::pin(async {
            self.0.lock().leave();
            Ok(())
        })
    }

    fn raise_flush_generation(&self) -> Asked<'_, u64> {
        Box::pin(async {
            let mut local = self.0.lock();
            let state = local.state();
            if state.epoch == 0 {
                return Err(Error::NotJoined);
            }
            let (epoch, view) = (state.epoch + 1, propose::flushed(&state.view));
            let generation = view.flush_generation;
            with_acks_as_of(&mut local, epoch);
            local.take(epoch, view);
            Ok(generation)
        })
    }
}

/// A script knows which nodes have a lease.
fn with_acks_as_of(local: &mut LocalMember, epoch: u64) {
    let state = local.state();
    local.acknowledge(BTreeMap::clone(&state.acknowledged), state.acks_as_of.max(epoch));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cluster::{MemberStatus, State};

    #[derive(Default)]
    struct Count {
        forgotten: AtomicUsize,
        changes: Mutex<Vec<(u64, u64)>>,
    }

    impl Hooks for Count {
        fn forget(&self) {
            self.forgotten.fetch_add(1, Ordering::SeqCst);
        }

        fn change(&self, before: &State, after: &State) {
            self.changes.lock().push((before.epoch, after.epoch));
        }
    }

    fn member(id: &str) -> Member {
        Member {
            id: id.to_owned(),
            incarnation: 1,
            peer_addr: format!("{id}:11212"),
            memcached_addr: format!("{id}:11211"),
            weight: 100,
            zone: String::new(),
        }
    }

    fn view(members: &[&Member]) -> View {
        View {
            members: members.iter().map(|&member| (member.id.clone(), member.clone())).collect(),
            ..View::default()
        }
    }

    fn node() -> (Script, Membership, Arc<Count>) {
        let count = Arc::new(Count::default());
        let hooks: Arc<dyn Hooks> = count.clone();
        let (script, membership) = Script::new(member("a"), hooks);
        (script, membership, count)
    }

    #[test]
    fn a_node_serves_when_a_view_has_it() {
        let (script, membership, count) = node();
        assert_eq!(membership.state().standing, MemberStatus::Joining);
        assert_eq!(script.push(1, view(&[&member("b")])), Effect::None);
        assert_eq!(membership.state().standing, MemberStatus::Joining);
        assert_eq!(script.push(2, view(&[&member("a")])), Effect::None, "another incarnation");
        assert!(!membership.state().is_member());
        assert_eq!(script.push(3, view(&[&script.me(), &member("b")])), Effect::Joined);
        assert!(membership.serves() && membership.state().is_member());
        script.fence(true);
        script.push(4, view(&[&script.me()]));
        assert!(!membership.serves(), "a view does not lift the fence");
        script.fence(false);
        assert!(membership.serves());
        assert_eq!(*count.changes.lock(), [(0, 1), (1, 2), (2, 3), (3, 4)]);
    }

    #[test]
    fn views_only_go_forward() {
        let (script, membership, count) = node();
        script.push(1, view(&[&script.me()]));
        script.push(2, view(&[&script.me(), &member("b")]));
        script.push(1, view(&[&member("b")]));
        script.push(2, view(&[&member("b")]));
        assert_eq!(membership.state().view.members.len(), 2);
        assert_eq!(count.forgotten.load(Ordering::SeqCst), 1);
        script.push(4, view(&[&script.me()]));
        assert_eq!(count.forgotten.load(Ordering::SeqCst), 2, "view 3 was missed");
        assert!(membership.serves());
    }

    #[test]
    fn a_removed_node_comes_back_as_another_one() {
        let (script, membership, count) = node();
        let first = script.me();
        script.push(1, view(&[&first]));
        assert_eq!(script.push(2, view(&[&member("b")])), Effect::Removed);
        assert_eq!(membership.state().standing, MemberStatus::Fenced);
        assert_eq!(count.forgotten.load(Ordering::SeqCst), 2);
        script.push(3, view(&[&first]));
        assert_eq!(membership.state().standing, MemberStatus::Fenced, "the old incarnation is gone for good");
        assert!(script.me().incarnation > first.incarnation);
        assert_eq!(script.push(4, view(&[&script.me()])), Effect::Joined);
        assert_eq!(membership.state().incarnation, script.me().incarnation);
    }

    #[test]
    fn an_incarnation_that_may_have_been_removed_is_not_used_again() {
        let (script, ..) = node();
        let first = script.me();
        script.push(1, view(&[&member("b")]));
        script.push(3, view(&[&member("b")]));
        assert!(script.me().incarnation > first.incarnation, "view 2 may have had it");
    }

    #[tokio::test]
    async fn a_leaving_node_keeps_what_it_holds() {
        let (script, mut membership, count) = node();
        assert!(membership.raise_flush_generation().await.is_err(), "there is no view");
        script.push(1, view(&[&script.me(), &member("b")]));
        assert_eq!(membership.raise_flush_generation().await.unwrap(), 1);
        membership.leave(Duration::ZERO).await.unwrap();
        script.push(3, view(&[&member("b")]));
        let state = membership.changed().await.unwrap();
        assert_eq!((state.epoch, state.standing), (3, MemberStatus::Leaving));
        assert!(membership.serves(), "what it owned until then");
        assert_eq!(count.forgotten.load(Ordering::SeqCst), 1);
    }

    fn acknowledge(script: &Script, acks: &[(&str, u64)]) {
        script.acknowledge(acks.iter().map(|&(id, epoch)| (id.to_owned(), epoch)).collect());
    }

    fn unconfirmed(membership: &Membership) -> Vec<String> {
        membership.state().unconfirmed().map(str::to_owned).collect()
    }

    #[test]
    fn a_view_is_converged_when_nobody_acts_on_an_older_one() {
        let (script, membership, _) = node();
        assert!(membership.state().is_converged(), "there is no view");
        script.push(2, view(&[&script.me(), &member("b")]));
        assert_eq!(unconfirmed(&membership), ["b"], "this node has acknowledged it");
        acknowledge(&script, &[("c", 1)]);
        assert_eq!(unconfirmed(&membership), ["b", "c"]);
        acknowledge(&script, &[("b", 2), ("c", 2)]);
        assert!(membership.state().is_converged());
        acknowledge(&script, &[("b", 3), ("c", 2)]);
        assert!(!membership.state().is_converged(), "b may own what this node has gained");
        acknowledge(&script, &[("b", 2)]);
        assert!(membership.state().is_converged(), "without a lease, c was fenced before it was removed");
    }

    #[test]
    fn a_node_removed_two_views_ago_may_still_act_on_the_view_that_had_it() {
        let (script, membership, _) = node();
        script.push(1, view(&[&script.me(), &member("b"), &member("c")]));
        acknowledge(&script, &[("b", 1), ("c", 1)]);
        assert!(membership.state().is_converged());
        script.push(2, view(&[&script.me(), &member("b")]));
        acknowledge(&script, &[("b", 2), ("c", 1)]);
        script.push(3, View { flush_generation: 1, ..view(&[&script.me(), &member("b")]) });
        acknowledge(&script, &[("b", 3), ("c", 1)]);
        assert_eq!(unconfirmed(&membership), ["c"]);
        acknowledge(&script, &[("b", 3)]);
        assert!(membership.state().is_converged());
    }

    #[test]
    fn a_view_that_etcd_was_not_asked_about_is_not_converged() {
        let (script, membership, _) = node();
        let mut local = script.0.lock();
        let alone = View { members: [("a".to_owned(), local.me().clone())].into(), ..View::default() };
        local.take(1, alone);
        assert!(!membership.state().is_converged(), "somebody else with a lease may act on another");
        local.acknowledge(BTreeMap::new(), 1);
        assert!(membership.state().is_converged());
    }

    #[tokio::test]
    async fn a_flush_names_those_who_have_not_confirmed_it() {
        let (script, membership, _) = node();
        script.push(1, view(&[&script.me(), &member("b"), &member("c")]));
        let named = |ids: &[&str]| Err(ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>());
        assert_eq!(membership.flushed(1, Duration::ZERO).await, named(&["a", "b", "c"]));
        let generation = membership.raise_flush_generation().await.unwrap();
        acknowledge(&script, &[("b", 2), ("c", 1)]);
        assert_eq!(membership.flushed(generation, Duration::ZERO).await, named(&["c"]));
        let waits = tokio::spawn({
            let membership = membership.clone();
            async move { membership.flushed(generation, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        acknowledge(&script, &[("b", 2), ("c", 2)]);
        assert_eq!(waits.await.unwrap(), Ok(()));
    }

    #[test]
    fn a_node_grants_members_that_it_does_not_suspect() {
        let (script, membership, _) = node();
        assert!(!membership.may_grant("b"), "it is no member");
        script.push(1, view(&[&script.me(), &member("b")]));
        assert!(membership.may_grant("b"));
        assert!(!membership.may_grant("c"), "c is no member");
        script.suspect(["b".to_owned()].into());
        assert!(!membership.may_grant("b"), "the others may count on the suspicion");
        script.suspect(BTreeSet::new());
        assert!(membership.may_grant("b"));
        script.0.lock().leave();
        assert!(!membership.may_grant("b"));
    }
}
