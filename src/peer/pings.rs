//! Pings every member of the view all the time, and every node that waits to enter it.
//!
//! Each has its own task and its own connection, so that none waits for another one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::cluster::etcd;
use crate::cluster::failure_detector::{Contact, FailureDetector, Timing};
use crate::cluster::view::{Member, View};
use crate::cluster::{Membership, State};
use crate::pb;
use crate::pb::peer_client::PeerClient;
use crate::peer::grpc::{Grpc, MESSAGE_BYTES_MAX};
use crate::peer::identity::Identity;
use crate::peer::options::Options;
use crate::peer::transport::Error;
use crate::peer::transport::innermost;
use crate::watchdog::{Stuck, Watchdog};

/// How soon and how often a node is asked again that has not answered yet: it may have registered a moment before it
/// takes calls.
const EARLY: Duration = Duration::from_millis(50);
/// See [`EARLY`].
const EARLY_TRIES: u32 = 5;

/// How long one reason for silence is reported before another one is.
const TROUBLE_LASTS: Duration = Duration::from_secs(10);

/// Asks the members.
pub struct Pings {
    me: Arc<Identity>,
    grpc: Grpc,
    timing: Timing,
    watchdog: Arc<Watchdog>,
    /// By id and incarnation.
    peers: Mutex<BTreeMap<(String, u64), Peer>>,
    /// The view that is followed.
    view: Mutex<Arc<View>>,
    /// A hash of this node's groups.
    groups_digest: AtomicU64,
    /// Whether this node takes items over.
    moves: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

struct Peer {
    contact: Contact,
    /// Why it does not answer, and since when that is known.
    trouble: Option<(String, Instant)>,
    channel: Option<Channel>,
    /// A hash of its groups.
    groups_digest: Option<u64>,
    /// The hash of this node's groups when it was said that they differ.
    groups_told: Option<u64>,
    /// Ends its task, which it has while it is asked.
    pinging: Option<CancellationToken>,
}

impl Pings {
    /// Pings nobody before [`Pings::start`].
    pub fn new(membership: &etcd::Options, peer: &Options) -> Arc<Self> {
        let me = Identity { cluster: membership.cluster.clone(), id: membership.node_id.clone() };
        Arc::new(Self {
            me: Arc::new(me),
            grpc: Grpc::new(Arc::new(peer.clone())),
            timing: membership.timing(),
            watchdog: membership.watchdog.clone(),
            peers: Mutex::default(),
            view: Mutex::default(),
            groups_digest: AtomicU64::default(),
            moves: OnceLock::new(),
        })
    }

    /// This node's identity for its peers.
    pub fn me(&self) -> &Arc<Identity> {
        &self.me
    }

    /// How it calls them.
    pub fn grpc(&self) -> &Grpc {
        &self.grpc
    }

    /// Pings the members of the view and the nodes that wait to enter it, as both change, in tasks of `tracker`, until
    /// `stop` is cancelled. Newer views from members are handed to the membership.
    pub fn start(self: &Arc<Self>, membership: Membership, tracker: &TaskTracker, stop: CancellationToken) {
        let pings = Arc::clone(self);
        let pingers = tracker.clone();
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut views = membership.clone();
            let mut state = membership.state();
            loop {
                for (member, pinging) in pings.follow(&state, &stop) {
                    let (pings, membership) = (pings.clone(), membership.clone());
                    let pinger = Pinger { pings, membership, member, lease_told: AtomicBool::new(false) };
                    pingers.spawn(pinging.run_until_cancelled_owned(pinger.run()));
                }
                let Some(next) = views.changed().await else { break };
                state = next;
            }
        }));
    }

    /// The thread of this node that stands still, if one does: then no ping is answered, because others must not count
    /// on this node.
    pub fn stuck(&self) -> Option<Stuck> {
        self.watchdog.stuck()
    }

    /// How long a lease of this node is, as others are told.
    pub fn lease_millis(&self) -> u64 {
        u64::try_from(self.timing.lease_ttl().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a recent ping has reached a node of the present view.
    pub fn reaches(&self, id: &str) -> bool {
        let view = self.view.lock().clone();
        let Some(member) = view.members.get(id) else { return false };
        let peers = self.peers.lock();
        peers.get(&key(member)).is_some_and(|peer| peer.contact.is_reached(Instant::now(), self.timing))
    }

    /// `moves` says from now on whether this node takes items over of slots that have come to it.
    pub fn watch_moves(&self, moves: impl Fn() -> bool + Send + Sync + 'static) {
        // Only the first one counts.
        _ = self.moves.set(Box::new(moves));
    }

    /// Whether this node, or a member that it reaches, may still take items over under the view of this epoch.
    pub fn may_move(&self, epoch: u64) -> bool {
        let (now, view) = (Instant::now(), self.view.lock().clone());
        let peers = self.peers.lock();
        let mut others = view.members.values().filter_map(|member| peers.get(&key(member)));
        others.any(|peer| peer.contact.may_move(epoch, now, self.timing)) || self.is_moving()
    }

    /// From now on this node has other groups, with this hash.
    pub fn set_groups_digest(&self, digest: u64) {
        self.groups_digest.store(digest, Ordering::Relaxed);
    }

    /// A hash of this node's groups.
    pub fn groups_digest(&self) -> u64 {
        self.groups_digest.load(Ordering::Relaxed)
    }

    /// The members of the view whose groups are not those of this node, by what they last said.
    pub fn with_other_groups(&self) -> Vec<String> {
        let (view, own) = (self.view.lock().clone(), self.groups_digest());
        let peers = self.peers.lock();
        let differs = |member: &&Member| {
            let peer = peers.get(&key(member));
            peer.and_then(|peer| peer.groups_digest).is_some_and(|digest| digest != own)
        };
        view.members.values().filter(differs).map(|member| member.id.clone()).collect()
    }

    /// The members of the view, this node included, in the order of their ids, each with the
    /// connection over which it has answered its last ping.
    pub(super) fn members(&self) -> Vec<(Member, Option<Channel>)> {
        let view = self.view.lock().clone();
        let peers = self.peers.lock();
        let channel = |member: &Member| peers.get(&key(member)).and_then(|peer| peer.channel.clone());
        view.members.values().map(|member| (member.clone(), channel(member))).collect()
    }

    /// Takes over the members of the view and the nodes that wait to enter it. Returns those to ping from this moment
    /// on, each until its token is cancelled.
    fn follow(&self, state: &State, stop: &CancellationToken) -> Vec<(Member, CancellationToken)> {
        let others = state.view.members.values().filter(|member| member.id != self.me.id);
        let candidates = state.candidates.iter().map(|candidate| &candidate.member);
        // By id alone they might be two.
        let asked: BTreeMap<_, _> = others.chain(candidates).map(|member| (key(member), member)).collect();
        *self.view.lock() = state.view.clone();
        let mut peers = self.peers.lock();
        peers.retain(|key, peer| {
            let is_asked = asked.contains_key(key);
            if !is_asked && let Some(pinging) = peer.pinging.take() {
                pinging.cancel();
                return false;
            }
            // The membership hears of a view first, and may have asked about a member already.
            is_asked || peer.contact.answered.is_some_and(|heard| heard.elapsed() < self.timing.lease_ttl())
        });
        let mut new = Vec::new();
        for (key, member) in asked {
            let peer = peers.entry(key).or_insert_with(Peer::unheard);
            if peer.pinging.is_none() {
                let pinging = stop.child_token();
                peer.pinging = Some(pinging.clone());
                new.push((member.clone(), pinging));
            }
        }
        new
    }
}

/// First contact with a node.
impl FailureDetector for Pings {
    fn contact(&self, member: &Member) -> Contact {
        self.peers.lock().entry(key(member)).or_insert_with(Peer::unheard).contact
    }

    fn is_moving(&self) -> bool {
        self.moves.get().is_some_and(|moves| moves())
    }

    fn trouble(&self, member: &Member) -> Option<String> {
        Some(self.peers.lock().get(&key(member))?.trouble.as_ref()?.0.clone())
    }
}

fn key(member: &Member) -> (String, u64) {
    (member.id.clone(), member.incarnation)
}

impl Peer {
    fn unheard() -> Self {
        let contact = Contact { answered: Some(Instant::now()), ..Contact::default() };
        Self { contact, trouble: None, channel: None, groups_digest: None, groups_told: None, pinging: None }
    }

    /// It has not answered. Returns whether that is news.
    fn miss(&mut self, why: String) -> bool {
        self.channel = None;
        let is_news =
            self.trouble.as_ref().is_none_or(|(known, at)| *known != why && at.elapsed() >= TROUBLE_LASTS);
        if is_news {
            self.trouble = Some((why, Instant::now()));
        }
        is_news
    }
}

/// Pings one member.
struct Pinger {
    pings: Arc<Pings>,
    membership: Membership,
    member: Member,
    /// Whether its different lease was reported.
    lease_told: AtomicBool,
}

impl Pinger {
    async fn run(self) {
        let patience = self.pings.timing.ping_interval();
        let mut ticks = interval(patience);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut channel = None;
        let mut early = EARLY_TRIES;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = sleep(EARLY), if early > 0 => early -= 1,
            }
            let asked = timeout(patience, self.ask(channel.take())).await.unwrap_or(Err(Error::Silent));
            match asked {
                Ok(open) => (channel, early) = (Some(open), 0),
                // The next ping takes a new connection: an old one may be silent for long after
                // the network has healed.
                Err(error) => {
                    debug!(peer = self.member.id, "no answer to a ping: {error}");
                    self.update(|peer| peer.miss(error.to_string()));
                }
            }
        }
    }

    async fn ask(&self, channel: Option<Channel>) -> Result<Channel, Error> {
        let channel = match channel {
            Some(channel) => channel,
            None => self.pings.grpc.connect(&self.member).await?,
        };
        let mut client = PeerClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let call = Some(self.pings.me.call(&self.member.id));
        let sent = Instant::now();
        let lease_millis = self.pings.lease_millis();
        let reply = client.ping(pb::PingRequest { call: call.clone(), lease_millis }).await?.into_inner();
        if reply.incarnation != self.member.incarnation {
            return Err(Error::Ended("another process with this id answers there".to_owned()));
        }
        if reply.lease_millis != lease_millis && !self.lease_told.swap(true, Ordering::Relaxed) {
            warn!(
                peer = self.member.id,
                "its --lease-ttl is another one ({} ms): the two do not answer for each other when etcd is down",
                reply.lease_millis
            );
        }
        let own = self.pings.groups_digest();
        self.update(|peer| {
            // Said once for each pair of configurations.
            let told = peer.groups_digest.replace(reply.groups_digest) == Some(reply.groups_digest);
            if reply.groups_digest != own && !(told && peer.groups_told == Some(own)) {
                peer.groups_told = Some(own);
                warn!(
                    peer = self.member.id,
                    "its groups are not those of this node: all nodes should have the same"
                );
            }
            let is_news = peer.trouble.take().is_some() || !peer.contact.is_proven;
            peer.channel = Some(channel.clone());
            peer.contact.is_proven = true;
            peer.contact.answered = Some(sent);
            if reply.reaches_caller {
                peer.contact.granted = Some(sent);
            }
            peer.contact.epoch = reply.epoch;
            peer.contact.is_moving = reply.is_moving;
            is_news
        });
        let state = self.membership.state();
        let is_member = state.view.members.get(&self.member.id) == Some(&self.member);
        if reply.epoch > state.epoch && is_member {
            let reply = client.view(pb::ViewRequest { call }).await?.into_inner();
            let view: View = serde_json::from_slice(&reply.view_json)
                .map_err(|why| Error::Ended(format!("its view cannot be read: {}", innermost(&why))))?;
            self.membership.learn(reply.epoch, view);
        }
        Ok(channel)
    }

    /// Changes the state of the member, if it is still the same, and passes on news.
    fn update(&self, change: impl FnOnce(&mut Peer) -> bool) {
        let is_news = self.pings.peers.lock().get_mut(&key(&self.member)).is_some_and(change);
        if is_news {
            self.membership.heard();
        }
    }
}
