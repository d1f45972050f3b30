//! A node's membership with a real etcd, and calls between nodes that are only played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use filbert::cluster::etcd::{self, Options};
use filbert::cluster::failure_detector::{Contact, FailureDetector};
use filbert::cluster::view::Member;
use filbert::cluster::{Hooks, MemberStatus, Membership, State};
use parking_lot::Mutex;
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::etcd::Etcd;
use crate::support::server::eventually;

pub const TTL: Duration = Duration::from_secs(2);

/// An address without a listener, even if a node says that it is there.
pub const NOWHERE: &str = "nowhere:11212";

pub const VIEW: &str = "/filbert/test/view";

/// Which node reaches which, and what pings have told.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Links>>);

#[derive(Default)]
struct Links {
    cut: BTreeSet<String>,
    /// The pairs that are cut in one direction: the first node does not reach the second.
    deaf: BTreeSet<(String, String)>,
    /// What answers at an address.
    listening: BTreeMap<String, Membership>,
    /// What the node at an address knows of an incarnation at another one.
    contacts: BTreeMap<(String, String, u64), Contact>,
}

impl Network {
    /// Nobody reaches this node, and it reaches nobody.
    pub fn cut(&self, id: &str) {
        self.0.lock().cut.insert(id.to_owned());
    }

    pub fn heal(&self, id: &str) {
        self.0.lock().cut.remove(id);
    }

    /// One node does not reach another, until the other way round is said.
    pub fn reach(&self, from: &str, to: &str, reaches: bool) {
        let (mut links, way) = (self.0.lock(), (from.to_owned(), to.to_owned()));
        if reaches {
            links.deaf.remove(&way);
        } else {
            links.deaf.insert(way);
        }
    }

    fn listen(&self, addr: &str, membership: &Membership) {
        if addr != NOWHERE {
            self.0.lock().listening.insert(addr.to_owned(), membership.clone());
        }
    }

    /// Unless another process has the address by now.
    fn hang_up(&self, addr: &str, membership: &Membership) {
        let mut links = self.0.lock();
        let ends = membership.state().incarnation;
        if links.listening.get(addr).is_some_and(|other| other.state().incarnation == ends) {
            links.listening.remove(addr);
        }
    }
}

/// Pings when it is asked.
struct Phone {
    id: String,
    addr: String,
    network: Network,
}

impl FailureDetector for Phone {
    fn contact(&self, member: &Member) -> Contact {
        let mut links = self.network.0.lock();
        let now = Instant::now();
        let heard_of = Contact { answered: Some(now), ..Contact::default() };
        let key = |from: &str, to: &str, incarnation| (from.to_owned(), to.to_owned(), incarnation);
        let mut contact =
            *links.contacts.entry(key(&self.addr, &member.peer_addr, member.incarnation)).or_insert(heard_of);
        let is_cut = [&self.id, &member.id].iter().any(|id| links.cut.contains(*id))
            || links.deaf.contains(&(self.id.clone(), member.id.clone()));
        let other = links.listening.get(&member.peer_addr).filter(|_| !is_cut);
        let me = links.listening.get(&self.addr);
        if let (Some(other), Some(me)) = (other, me)
            && other.state().incarnation == member.incarnation
        {
            let back = links.contacts.get(&key(&member.peer_addr, &self.addr, me.state().incarnation));
            let is_reached = back.is_some_and(|back| back.is_reachable(now, other.timing()));
            (contact.answered, contact.is_proven) = (Some(now), true);
            if is_reached && other.may_grant(&self.id) {
                contact.granted = Some(now);
            }
            contact.epoch = other.state().epoch;
        }
        links.contacts.insert(key(&self.addr, &member.peer_addr, member.incarnation), contact);
        contact
    }
}

/// Sees that nothing is skipped, and that everything is forgotten before a node serves.
#[derive(Default)]
struct Recorder {
    forgotten: AtomicUsize,
    /// Held by a test to make the node take its time with a view.
    gate: Mutex<()>,
}

impl Hooks for Recorder {
    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    fn change(&self, before: &State, after: &State) {
        drop(self.gate.lock());
        assert!(after.epoch > before.epoch);
        if after.standing == MemberStatus::Serving {
            assert!(self.forgotten.load(Ordering::SeqCst) > 0, "served before it forgot");
        }
    }
}

/// A node with threads of its own, so that stopping it is as sudden as a kill.
pub struct Node {
    pub membership: Membership,
    recorder: Arc<Recorder>,
    network: Network,
    addr: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(options: Options, network: &Network) -> Node {
        network.heal(&options.node_id);
        let addr = options.peer_addr.clone();
        let recorder = Arc::new(Recorder::default());
        let phone = Phone { id: options.node_id.clone(), addr: addr.clone(), network: network.clone() };
        let stop = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn({
            let (stop, recorder) = (stop.clone(), Arc::clone(&recorder));
            move || {
                block_on(async {
                    let tracker = TaskTracker::new();
                    let membership = etcd::join(options, recorder, Arc::new(phone), &tracker, stop);
                    sender.send(membership.expect("the options are good")).expect("the test waits for it");
                    tracker.close();
                    tracker.wait().await;
                });
            }
        });
        let membership = receiver.recv().expect("the thread sends it");
        network.listen(&addr, &membership);
        Node { membership, recorder, network: network.clone(), addr, stop, thread: Some(thread) }
    }

    pub fn state(&self) -> Arc<State> {
        self.membership.state()
    }

    /// Whether it answers for what it owns.
    pub fn serves(&self) -> bool {
        self.membership.serves() && self.state().is_member()
    }

    pub fn forgotten(&self) -> usize {
        self.recorder.forgotten.load(Ordering::SeqCst)
    }

    /// While this is held the node stands still, and takes over no view.
    pub fn hold(&self) -> impl Drop + '_ {
        self.recorder.gate.lock()
    }

    /// Is gone at once, without a word.
    pub fn vanish(mut self) {
        self.end();
    }

    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.network.hang_up(&self.addr, &self.membership);
            self.stop.cancel();
            // A panic in there was shown already, and fails the test by what it waits for.
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn options(endpoint: &str, id: &str) -> Options {
    Options {
        cluster: "test".to_owned(),
        endpoints: vec![endpoint.to_owned()],
        node_id: id.to_owned(),
        peer_addr: format!("{id}:11212"),
        memcached_addr: format!("{id}:11211"),
        lease_ttl: TTL,
        gone_after: Duration::from_secs(600),
        ..Options::default()
    }
}

pub fn start(etcd: &Etcd, network: &Network, ids: &[&str]) -> Vec<Node> {
    let nodes: Vec<_> = ids.iter().map(|id| Node::start(options(&etcd.endpoint(), id), network)).collect();
    await_agreement(&nodes, ids);
    nodes
}

/// Waits until all nodes serve in one view of exactly these members, and all know that all do.
#[track_caller]
pub fn await_agreement(nodes: &[Node], ids: &[&str]) {
    eventually(&format!("the nodes agree on {ids:?}"), || agree(nodes, ids));
}

pub fn agree(nodes: &[Node], ids: &[&str]) -> bool {
    let states: Vec<_> = nodes.iter().map(Node::state).collect();
    nodes.iter().all(Node::serves)
        && states.iter().all(|state| {
            state.epoch == states[0].epoch
                && state.owners.digest() == states[0].owners.digest()
                && state.view == states[0].view
                && state.view.members.keys().eq(ids)
                && state.is_converged()
        })
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built")
        .block_on(future)
}

/// The view as it stands in etcd.
pub fn stored(etcd: &Etcd) -> serde_json::Value {
    serde_json::from_str(&etcd.ctl(&["get", "--print-value-only", VIEW])).expect("it is JSON")
}

pub fn registered(etcd: &Etcd) -> usize {
    etcd.ctl(&["get", "--prefix", "--keys-only", "/filbert/test/members/"]).split_whitespace().count()
}
