//! Links against a scripted owner, in simulated time and over real connections.

mod breaker;
mod expiry;
mod forward;
mod over_grpc;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::cluster::view::Member;
use crate::command::{Command, Delete, Set, Unavailable, Verb};
use crate::pb;
use crate::pb::outcome::Kind;
use crate::pb::{EncodedOp, Projection};
use crate::peer::completions::ReplyTo;
use crate::peer::identity::Identity;
use crate::peer::link::{Dialer, Link, Redirected};
use crate::peer::options::Options;
use crate::peer::receive::{Batch, Broken, Executor, Giver};
use crate::peer::transport::Transport;
use crate::peer::{Answer, PendingOp};
use crate::store::TooManyFlushes;
use crate::testkit::network::Network;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_millis(250);

/// How far from its deadline an answer may come.
const LATE: Duration = Duration::from_millis(10);

/// An owner that does as it is told, and remembers what it executed.
struct Owner {
    epoch: AtomicU64,
    /// How long it thinks about a batch before it looks at the clock.
    thinks: Mutex<Duration>,
    kind: Mutex<Kind>,
    executed: Mutex<Vec<Executed>>,
    /// Batches that have come, and those that it has looked at.
    arrived: AtomicU64,
    batches: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Executed {
    key: Bytes,
    epoch: u64,
    batch: u64,
    at: Instant,
}

impl Owner {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: AtomicU64::new(1),
            thinks: Mutex::default(),
            kind: Mutex::new(Kind::Deleted),
            executed: Mutex::default(),
            arrived: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        })
    }

    fn keys(&self) -> Vec<Bytes> {
        self.executed.lock().iter().map(|executed| executed.key.clone()).collect()
    }
}

impl Executor for Owner {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn execute(&self, batch: &mut Batch) -> Result<pb::Outcomes, Broken> {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let thinks = *self.thinks.lock();
        if thinks > Duration::ZERO {
            sleep(thinks).await;
        }
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        let (now, kind) = (Instant::now(), *self.kind.lock());
        let (epoch, expires) = (batch.epoch, batch.expires);
        let mut outcomes = BytesMut::new();
        while let Some(operation) = batch.take()? {
            let kind = if now >= expires { Kind::Unavailable } else { kind };
            if !matches!(kind, Kind::Unavailable | Kind::WrongOwner) {
                let key = Bytes::copy_from_slice(operation.key);
                self.executed.lock().push(Executed { key, epoch, batch: number, at: now });
            }
            pb::put_kind(operation.id, kind, &mut outcomes);
        }
        Ok(pb::Outcomes { outcomes: outcomes.freeze(), now_micros: 0, epoch: self.epoch() })
    }

    async fn load(&self, _: pb::LoadRequest) -> Result<pb::Outcome, Broken> {
        Ok(pb::Outcome { kind: Kind::NotFound.into(), ..pb::Outcome::default() })
    }

    fn flush_prefix(&self, _: &[u8]) -> Result<u64, TooManyFlushes> {
        Ok(self.epoch())
    }

    fn giver(self: Arc<Self>, _: String, _: u64, _: u64) -> Box<dyn Giver> {
        unreachable!("links ask for no items")
    }
}

fn identity(id: &str) -> Identity {
    Identity { cluster: "test".to_owned(), id: id.to_owned() }
}

fn member(id: &str, peer_addr: &str) -> Member {
    Member {
        id: id.to_owned(),
        incarnation: 1,
        peer_addr: peer_addr.to_owned(),
        memcached_addr: String::new(),
        weight: 100,
        zone: String::new(),
    }
}

/// The caller `a`, with a link to the owner `b`.
struct Caller {
    link: Option<Link>,
    tasks: TaskTracker,
    stop: CancellationToken,
    redirected: mpsc::Receiver<Redirected>,
}

impl Caller {
    fn new(transport: Arc<dyn Transport>, options: Options, to: Member) -> Self {
        let (sender, redirected) = mpsc::channel(2);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let dialer = Dialer {
            stats: Arc::default(),
            transport,
            me: Arc::new(identity("a")),
            options: Arc::new(options),
            redirected: sender,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        Self { link: Some(Link::open(&dialer, to)), tasks, stop, redirected }
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("not dropped yet")
    }

    fn send(&self, key: impl Into<Bytes>, epoch: u64) -> Awaited {
        let (op, awaited) = op(key, epoch, Instant::now() + TIMEOUT);
        self.link().send(op);
        awaited
    }
}

/// A network of the two, which they have used already.
async fn connected(options: Options) -> (Network, Arc<Owner>, Caller) {
    let (network, owner) = (Network::new(1), Owner::new());
    network.start(identity("b"), owner.clone());
    let caller = Caller::new(network.transport("a"), options, member("b", ""));
    assert!(caller.send("first", 1).await_outcome().await.is_ok());
    (network, owner, caller)
}

fn op(key: impl Into<Bytes>, epoch: u64, deadline: Instant) -> (PendingOp, Awaited) {
    op_of(Verb::Delete(Delete::default()), key, epoch, deadline)
}

fn op_of(verb: Verb<'_>, key: impl Into<Bytes>, epoch: u64, deadline: Instant) -> (PendingOp, Awaited) {
    let (sender, receiver) = oneshot::channel();
    (
        PendingOp::new(encoded(&key.into(), verb), epoch, deadline, ReplyTo::Call(sender)),
        Awaited { deadline, receiver },
    )
}

/// A command as it travels.
pub(crate) fn encoded(key: &[u8], verb: Verb<'_>) -> EncodedOp {
    let clock = Clock::manual(1_700_000_000);
    let at = pb::Clocked { clock: &clock, now: clock.now() };
    pb::pack(&Command { key, key_binary: false, verb }, at, Projection::Value, &mut BytesMut::new())
}

/// A `set` of a value and nothing else.
pub(crate) fn set_of(value: &[u8]) -> Verb<'_> {
    Verb::Set(Set { value, ..Set::PLAIN })
}

/// The other end of an operation.
struct Awaited {
    deadline: Instant,
    receiver: oneshot::Receiver<Answer>,
}

impl Awaited {
    /// What came of it; it must come in time.
    async fn await_outcome(self) -> Result<Kind, Unavailable> {
        let answer = self.receiver.await.expect("every operation is answered");
        assert!(Instant::now() <= self.deadline + LATE, "answered late");
        answer.result.map(|outcome| outcome.kind())
    }

    /// Whether it has been answered by now.
    fn is_answered(&mut self) -> bool {
        !self.receiver.is_empty()
    }
}
