//! Asks every member of the view, all the time, whether it is there.
//!
//! Each has its own task and its own connection, so that none waits for another one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::beats::{Beats, Stuck};
use crate::cluster::contacts::{Contact, Contacts, Timing};
use crate::cluster::etcd;
use crate::cluster::view::{Member, View};
use crate::cluster::{Membership, State};
use crate::pb;
use crate::pb::peer_client::PeerClient;
use crate::peer::grpc::{Grpc, MESSAGE_BYTES_MAX, innermost};
use crate::peer::identity::Identity;
use crate::peer::options::Options;
use crate::peer::transport::Error;

/// Asks the members.
pub struct Pings {
    me: Arc<Identity>,
    grpc: Grpc,
    timing: Timing,
    beats: Arc<Beats>,
    /// By id and incarnation.
    peers: Mutex<BTreeMap<(String, u64), Peer>>,
    /// The view that is followed.
    view: Mutex<Arc<View>>,
}

struct Peer {
    contact: Contact,
    /// Whether answers have come.
    is_proven: bool,
    channel: Option<Channel>,
    /// Ends its task, which it has when it is in the view.
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
            beats: membership.beats.clone(),
            peers: Mutex::default(),
            view: Mutex::default(),
        })
    }

    /// Who this node is to its peers.
    pub fn me(&self) -> &Arc<Identity> {
        &self.me
    }

    /// How it calls them.
    pub fn grpc(&self) -> &Grpc {
        &self.grpc
    }

    /// Pings the members of the view, and follows it, in tasks of `tracker`, until `stop` is
    /// cancelled. Views that members are ahead with are handed to the membership.
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

    /// The thread of this node that stands still, if one does: then no ping is answered, for others
    /// are not to count on it.
    pub fn stuck(&self) -> Option<Stuck> {
        self.beats.stuck()
    }

    /// How long a lease of this node is, as others are told.
    pub fn lease_millis(&self) -> u64 {
        u64::try_from(self.timing.lease_ttl().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a ping of late has reached a node of the present view.
    pub fn reaches(&self, id: &str) -> bool {
        let peers = self.peers.lock();
        peers.iter().any(|((of, _), peer)| of == id && peer.is_reached(self.timing))
    }

    /// The members of the view, this node included, in the order of their ids, each with the
    /// connection over which it has answered its last ping.
    pub(super) fn members(&self) -> Vec<(Member, Option<Channel>)> {
        let view = self.view.lock().clone();
        let peers = self.peers.lock();
        let channel = |member: &Member| peers.get(&key(member)).and_then(|peer| peer.channel.clone());
        view.members.values().map(|member| (member.clone(), channel(member))).collect()
    }

    /// Takes over who is in the view; returns those that are to be pinged from now on, each until
    /// its token is cancelled.
    fn follow(&self, state: &State, stop: &CancellationToken) -> Vec<(Member, CancellationToken)> {
        let members = &state.view.members;
        *self.view.lock() = state.view.clone();
        let mut peers = self.peers.lock();
        peers.retain(|(id, incarnation), peer| {
            let is_member = members.get(id).is_some_and(|member| member.incarnation == *incarnation);
            if !is_member && let Some(pinging) = peer.pinging.take() {
                pinging.cancel();
                return false;
            }
            // The membership hears of a view first, and may have asked about a member already.
            is_member || peer.contact.answered.is_some_and(|heard| heard.elapsed() < self.timing.lease_ttl())
        });
        let mut new = Vec::new();
        for member in members.values().filter(|member| member.id != self.me.id) {
            let peer = peers.entry(key(member)).or_insert_with(Peer::unheard);
            if peer.pinging.is_none() {
                let pinging = stop.child_token();
                peer.pinging = Some(pinging.clone());
                new.push((member.clone(), pinging));
            }
        }
        new
    }
}

impl Contacts for Pings {
    /// One that was never heard of is heard of now.
    fn contact(&self, member: &Member) -> Contact {
        self.peers.lock().entry(key(member)).or_insert_with(Peer::unheard).contact
    }
}

fn key(member: &Member) -> (String, u64) {
    (member.id.clone(), member.incarnation)
}

impl Peer {
    fn unheard() -> Self {
        let contact = Contact { answered: Some(Instant::now()), ..Contact::default() };
        Self { contact, is_proven: false, channel: None, pinging: None }
    }

    fn is_reached(&self, timing: Timing) -> bool {
        self.is_proven && self.contact.is_reachable(Instant::now(), timing)
    }
}

/// Pings one member.
struct Pinger {
    pings: Arc<Pings>,
    membership: Membership,
    member: Member,
    /// Whether it was said that its lease is another one.
    lease_told: AtomicBool,
}

impl Pinger {
    async fn run(self) {
        let patience = self.pings.timing.ping_interval();
        let mut ticks = interval(patience);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut channel = None;
        loop {
            ticks.tick().await;
            let asked = timeout(patience, self.ask(channel.take())).await.unwrap_or(Err(Error::Silent));
            match asked {
                Ok(open) => channel = Some(open),
                // The next ping takes a new connection: an old one may be silent for long after
                // the network has healed.
                Err(error) => {
                    debug!(peer = self.member.id, "no answer to a ping: {error}");
                    self.update(|peer| peer.channel = None);
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
            return Err(Error::Ended("another process answers there".to_owned()));
        }
        if reply.lease_millis != lease_millis && !self.lease_told.swap(true, Ordering::Relaxed) {
            warn!(
                peer = self.member.id,
                "its --lease-ttl is another one ({} ms): the two do not answer for each other when etcd is down",
                reply.lease_millis
            );
        }
        self.update(|peer| {
            peer.channel = Some(channel.clone());
            peer.is_proven = true;
            peer.contact.answered = Some(sent);
            if reply.reaches_caller {
                peer.contact.vouched = Some(sent);
            }
            peer.contact.epoch = reply.epoch;
        });
        if reply.epoch > self.membership.state().epoch {
            let reply = client.view(pb::ViewRequest { call }).await?.into_inner();
            let view: View = serde_json::from_slice(&reply.view_json)
                .map_err(|why| Error::Ended(format!("its view cannot be read: {}", innermost(&why))))?;
            self.membership.learn(reply.epoch, view);
        }
        Ok(channel)
    }

    /// Changes what is known of the member, if it is still the same.
    fn update(&self, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.pings.peers.lock().get_mut(&key(&self.member)) {
            change(peer);
        }
    }
}
