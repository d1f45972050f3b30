//! Membership through etcd.
//!
//! What stands there, all under `/filbert/<cluster>/`:
//!
//! - `view`: the agreed view with its epoch; replaced by compare-and-swap, without a lease.
//! - `members/<id>`: a node that is there, with the lease it keeps alive.
//! - `doubts/<id>`: whom that node has not reached for long; same lease.
//! - `reached/<id>`: whom that node has reached of those who would enter the view, or who are to
//!   let it in; same lease.
//! - `acks/<id>`: the epoch that node has come to; same lease.
//!
//! One task holds a session with one endpoint after another; another looks at the clock, so
//! that the standing is right while etcd keeps silent. What both know is the ledger.

mod admission;
pub mod calls;
mod check;
pub mod client;
mod endpoint;
pub mod health;
mod ledger;
mod peers;
mod records;
mod session;
mod wishes;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::contacts::{Contacts, Timing};
use crate::cluster::etcd::calls::Connect;
use crate::cluster::etcd::health::Health;
use crate::cluster::etcd::ledger::Ledger;
use crate::cluster::etcd::session::Node;
use crate::cluster::moment::now;
use crate::cluster::seat::Seat;
use crate::cluster::view::Member;
use crate::cluster::{Error, Hooks, Membership, Task};
use crate::watchdog::Watchdog;

/// Requests for a flush generation that wait; each is bounded in time, too.
const FLUSH_QUEUE: usize = 16;

/// Views from peers that wait to be looked at.
const LEARNED_QUEUE: usize = 4;

/// How this node takes part in a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's name: nodes of one name and one etcd find each other.
    pub cluster: String,
    /// etcd's client addresses, `host:port` or a URL; the next one is tried when one fails.
    pub endpoints: Vec<String>,
    /// The user in etcd, when it asks for one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// PEM file of the authorities that etcd's certificate must come from; with it, endpoints
    /// without a scheme are `https`.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to etcd.
    pub cert: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub key: Option<PathBuf>,
    /// This node's id, the same after a restart ([`default_node_id`]).
    pub node_id: String,
    /// Where other nodes reach this one, `host:port`.
    pub peer_addr: String,
    /// Where clients reach this one, `host:port`.
    pub memcached_addr: String,
    /// Its share of the keys in relation to the others'; 100 is usual.
    pub weight: u32,
    /// Where it stands, for people.
    pub zone: String,
    /// How long the others wait for a node that does not answer; etcd counts in seconds and has a
    /// minimum of 1.5 times its election timeout.
    pub lease_ttl: Duration,
    /// The deadline of each call to etcd, the connection included.
    pub call_timeout: Duration,
    /// How long less than half of the members may be without a lease before the rest takes them
    /// for lost. Half of it is how long a node without etcd serves on when it does not reach
    /// *every* other member.
    pub forsake_after: Duration,
    /// Whether every thread of this node goes on: while one does not, the node lets go of its lease.
    pub watchdog: Arc<Watchdog>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            endpoints: Vec::new(),
            user: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
            node_id: String::new(),
            peer_addr: String::new(),
            memcached_addr: String::new(),
            weight: 100,
            zone: String::new(),
            lease_ttl: Duration::from_secs(5),
            call_timeout: Duration::from_secs(1),
            forsake_after: Duration::from_secs(60),
            watchdog: Arc::default(),
        }
    }
}

/// A password that does not show in logs.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An id for a node that was not given one: its host's name and the port of its peers.
pub fn default_node_id(port: u16) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{port}", host.as_deref().unwrap_or("localhost"))
}

/// Starts to take part in a cluster, and returns at once: joining goes on in tasks of `tracker`
/// until `stop` is cancelled, and the standing is `Joining` until it has succeeded. To be gone
/// without a word to the others, cancel `stop`; to part properly, [`Membership::leave`] first.
///
/// # Errors
/// [`Error::Options`] for what no retry could mend. An etcd that is not there is logged and tried
/// again.
pub fn join(
    options: Options,
    hooks: Arc<dyn Hooks>,
    contacts: Arc<dyn Contacts>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Result<Membership, Error> {
    options.check()?;
    let Part { membership, session, watch } = part(options.clone(), options, hooks, contacts);
    tracker.spawn(stop.clone().run_until_cancelled_owned(session));
    tracker.spawn(stop.run_until_cancelled_owned(watch));
    Ok(membership)
}

/// A node's part in a cluster: a membership that comes true while both tasks run.
#[derive(Debug)]
pub struct Part<S, W> {
    /// The node's window on its cluster.
    pub membership: Membership,
    /// Talks to etcd for ever.
    pub session: S,
    /// Looks at the clock and the pings for ever.
    pub watch: W,
}

/// As [`join`], with any way to etcd, and with nothing that runs yet.
pub fn part(
    connect: impl Connect + Sync,
    options: Options,
    hooks: Arc<dyn Hooks>,
    contacts: Arc<dyn Contacts>,
) -> Part<impl Future<Output = ()> + Send + 'static, impl Future<Output = ()> + Send + 'static> {
    let seat = Seat::new(options.member(), hooks);
    let (flushes, requests) = mpsc::channel(FLUSH_QUEUE);
    let (learned, mut views) = mpsc::channel(LEARNED_QUEUE);
    let health = Arc::new(Health::new(options.timing().lives_in_etcd()));
    let task = Task {
        health: health.clone(),
        flushes,
        learned,
        heard: Arc::new(Notify::new()),
        patience: options.call_timeout * 3,
        leaving: CancellationToken::new(),
        left: CancellationToken::new(),
    };
    let membership = Membership::new(&seat, options.timing(), Arc::new(task.clone()));
    let (tick, watchdog) = (options.tick(), options.watchdog.clone());
    let ledger = Arc::new(Mutex::new(Ledger::new(seat, contacts, &options)));
    let leaving = task.leaving.clone();
    let node = Node::new(options, connect, Arc::clone(&ledger), health, requests, &task);
    let (talking, looking) = (watchdog.watch("etcd"), watchdog.watch("membership"));
    let watch = looking.along(async move {
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let learned = tokio::select! {
                _ = ticks.tick() => None,
                Some(view) = views.recv() => Some(view),
            };
            let mut ledger = ledger.lock();
            if let Some((epoch, view)) = learned {
                ledger.take(epoch, view);
            }
            if leaving.is_cancelled() && !ledger.seat.is_leaving() {
                ledger.seat.leave();
            }
            ledger.look(now());
        }
    });
    Part { membership, session: talking.along(node.run()), watch }
}

impl Options {
    fn login(&self) -> Option<(&str, &str)> {
        Some((self.user.as_deref()?, &self.password.as_ref()?.0))
    }

    fn member(&self) -> Member {
        Member {
            id: self.node_id.clone(),
            incarnation: 0,
            peer_addr: self.peer_addr.clone(),
            memcached_addr: self.memcached_addr.clone(),
            weight: self.weight,
            zone: self.zone.clone(),
        }
    }

    /// How long nodes with this lease go by what they heard of each other.
    pub fn timing(&self) -> Timing {
        Timing::of(self.lease_ttl)
    }

    /// How often the clock is looked at.
    fn tick(&self) -> Duration {
        (self.lease_ttl / 20).clamp(Duration::from_millis(20), Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show() {
        let options = Options { password: Some(Password("secret".to_owned())), ..Options::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
