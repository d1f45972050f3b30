//! Streams and calls between nodes of one process. Messages take their time, get lost or get stuck, as a test says. With
//! tokio's time paused and one thread, a seed replays everything.

mod node;

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::cluster::view::Member;
use crate::pb;
use crate::peer::identity::Identity;
use crate::peer::link::batches::Batches;
use crate::peer::receive::Executor;
use crate::peer::transport::{Calling, Error, MoveRequests, MoveStream, Opening, Transport};
use crate::peer::yielder::generate;
use crate::testkit::network::node::{Messages, Node, Serve};

/// Messages on their way in one direction of a stream; then it is as if HTTP/2 had no room.
const ON_THEIR_WAY: usize = 256;

/// A network that exists in memory; cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Inside>);

/// How long a message takes.
#[derive(Debug, Clone, Copy)]
pub enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// Anything from the first to the second. Messages of a stream do not overtake each other.
    Between(Duration, Duration),
}

/// What happens to messages while a direction is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// They never arrive, and nobody is told.
    Lost,
    /// They arrive when it has healed, as TCP would have it.
    Held,
    /// The caller hears that its stream has broken. What was on its way arrives all the same.
    Broken,
}

struct Inside {
    state: Mutex<State>,
    /// Rung at every change of a cut.
    changed: Notify,
    /// The tasks of all streams.
    tasks: TaskTracker,
}

struct State {
    nodes: BTreeMap<String, Node>,
    delays: BTreeMap<Way, Delay>,
    cuts: BTreeMap<Way, Cut>,
    random: u64,
}

/// From one node to another.
type Way = (String, String);

/// A message on its way, and when it arrives.
type Sent<T> = (Instant, T);

impl Network {
    /// Without nodes; messages take no time.
    pub fn new(seed: u64) -> Self {
        let state = State {
            nodes: BTreeMap::new(),
            delays: BTreeMap::new(),
            cuts: BTreeMap::new(),
            // The generator must not begin with 0.
            random: seed.wrapping_mul(2).wrapping_add(1),
        };
        Self(Arc::new(Inside { state: Mutex::new(state), changed: Notify::new(), tasks: TaskTracker::new() }))
    }

    /// Adds a node, which executes what others send it; one of its name is killed.
    pub fn start<E: Executor>(&self, me: Identity, executor: Arc<E>) {
        self.kill(&me.id);
        let id = me.id.clone();
        self.0.state.lock().nodes.insert(id, Node::new(me, executor));
    }

    /// Ends a node without a word: it executes nothing more, and its callers' streams break.
    pub fn kill(&self, id: &str) {
        if let Some(node) = self.0.state.lock().nodes.remove(id) {
            node.end.cancel();
        }
    }

    /// How a node of that id reaches the others, by their ids.
    pub fn transport(&self, from: &str) -> Arc<dyn Transport> {
        Arc::new(FromNode { network: self.clone(), id: from.to_owned() })
    }

    /// Sets how long messages take from one node to another.
    pub fn delay(&self, from: &str, to: &str, delay: Delay) {
        self.0.state.lock().delays.insert(way(from, to), delay);
    }

    /// Cuts one direction.
    pub fn cut(&self, from: &str, to: &str, cut: Cut) {
        self.0.state.lock().cuts.insert(way(from, to), cut);
        self.0.changed.notify_waiters();
    }

    /// Mends one direction.
    pub fn heal(&self, from: &str, to: &str) {
        self.0.state.lock().cuts.remove(&way(from, to));
        self.0.changed.notify_waiters();
    }

    /// Whether one direction is cut.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cut_of(&way(from, to)).is_some()
    }

    /// Returns when a message has arrived that leaves now; never when it is lost.
    ///
    /// # Errors
    /// The way is broken.
    pub async fn carry(&self, from: &str, to: &str) -> Result<(), Error> {
        let way = way(from, to);
        let broken = self.wait_for(|| self.cut_of(&way) == Some(Cut::Broken));
        tokio::select! {
            biased;
            () = broken => Err(Error::Ended("the network is cut".to_owned())),
            () = self.travel(&way) => Ok(()),
        }
    }

    /// How many tasks work for streams and calls that are not over.
    pub fn tasks(&self) -> usize {
        self.0.tasks.len()
    }

    fn cut_of(&self, way: &Way) -> Option<Cut> {
        self.0.state.lock().cuts.get(way).copied()
    }

    /// When a message arrives that leaves now; `None` when it is lost.
    fn arrival(&self, way: &Way) -> Option<Instant> {
        let mut state = self.0.state.lock();
        let delay = match state.delays.get(way) {
            None => Duration::ZERO,
            Some(&Delay::Fixed(delay)) => delay,
            Some(&Delay::Between(least, most)) => {
                least + (most.saturating_sub(least)).mul_f64(state.random())
            }
        };
        (state.cuts.get(way) != Some(&Cut::Lost)).then(|| Instant::now() + delay)
    }

    /// Returns when a message has arrived that leaves now; never when it is lost.
    async fn travel(&self, way: &Way) {
        match self.arrival(way) {
            Some(arrival) => sleep_until(arrival).await,
            None => pending().await,
        }
        self.passable(way).await;
    }

    /// Returns when nothing is held up on the way.
    async fn passable(&self, way: &Way) {
        self.wait_for(|| self.cut_of(way) != Some(Cut::Held)).await;
    }

    /// Returns when one of the two ways is broken.
    async fn broken(&self, there: &Way, back: &Way) {
        let is_broken = |way| self.cut_of(way) == Some(Cut::Broken);
        self.wait_for(|| is_broken(there) || is_broken(back)).await;
    }

    async fn wait_for(&self, condition: impl Fn() -> bool) {
        loop {
            let changed = self.0.changed.notified();
            if condition() {
                break;
            }
            changed.await;
        }
    }

    /// Puts each message on its way.
    async fn send<T>(
        &self,
        way: &Way,
        mut messages: impl Stream<Item = T> + Unpin,
        to: mpsc::Sender<Sent<T>>,
    ) {
        let mut last = Instant::now();
        while let Some(message) = messages.next().await {
            let Some(arrival) = self.arrival(way) else { continue };
            last = last.max(arrival);
            // The receiver may have gone; the sender goes on.
            _ = to.send((last, message)).await;
        }
    }

    /// Waits for the next message to arrive.
    async fn receive<T>(&self, way: &Way, from: &mut mpsc::Receiver<Sent<T>>) -> Option<T> {
        let (arrival, message) = from.recv().await?;
        sleep_until(arrival).await;
        self.passable(way).await;
        Some(message)
    }

    /// Opens a stream, which a node serves as `serve` says.
    async fn open<T: Send + 'static, R: Send + 'static>(
        self,
        there: Way,
        messages: impl Stream<Item = T> + Send + Unpin + 'static,
        serve: impl FnOnce(&Node) -> Serve<T, R>,
    ) -> Result<Pin<Box<dyn Stream<Item = Result<R, Error>> + Send>>, Error> {
        let back = way(&there.1, &there.0);
        let refused = |why: &str| Err(Error::Connect(there.1.clone(), why.to_owned()));
        for way in [&there, &back] {
            if self.cut_of(way) == Some(Cut::Broken) {
                return refused("the network is cut");
            }
            self.travel(way).await;
        }
        let node = self.0.state.lock().nodes.get(&there.1).cloned();
        let Some(node) = node else { return refused("nobody is there") };

        let (operations, arriving) = mpsc::channel(ON_THEIR_WAY);
        let (outcomes, returning) = mpsc::channel(ON_THEIR_WAY);
        let (answers, answered) = mpsc::channel(1);
        let outgoing = serve(&node)(self.clone().incoming(there.clone(), arriving));
        // What has left arrives, and is executed, even when the caller has gone.
        let network = self.clone();
        let (ways, end) = ((there, back), node.end);
        self.0.tasks.spawn(end.clone().run_until_cancelled_owned({
            let (network, way) = (network.clone(), ways.1.clone());
            async move { network.send(&way, outgoing, outcomes).await }
        }));
        self.0.tasks.spawn(async move {
            let gone = answers.clone();
            tokio::select! {
                biased;
                () = network.send(&ways.0, messages, operations) => {}
                () = network.answer(&ways.1, returning, answers.clone()) => {}
                () = network.broken(&ways.0, &ways.1) => {}
                () = end.cancelled() => {}
                () = gone.closed() => {}
            }
            _ = answers.send(Err(Error::Ended("the stream broke".to_owned()))).await;
        });
        Ok(Box::pin(ReceiverStream::new(answered)))
    }

    /// Makes a call: the question and the answer take their ways. What has left arrives, and is answered, even when the
    /// caller has gone.
    async fn call<T: Send + 'static>(
        self,
        there: Way,
        answer: impl FnOnce(&Node) -> Calling<T> + Send + 'static,
    ) -> Result<T, Error> {
        let back = way(&there.1, &there.0);
        let Some(arrival) = self.arrival(&there) else { return pending().await };
        let (sender, answered) = oneshot::channel();
        self.0.tasks.spawn({
            let (network, there) = (self.clone(), there.clone());
            async move {
                sleep_until(arrival).await;
                network.passable(&there).await;
                let node = network.0.state.lock().nodes.get(&there.1).cloned();
                let Some(node) = node else { return };
                let answer = answer(&node);
                if let Some(answer) = node.end.run_until_cancelled(answer).await {
                    _ = sender.send(answer);
                }
            }
        });
        let returned = async {
            let answer = answered.await.map_err(|_| Error::Ended("nobody is there".to_owned()))?;
            self.travel(&back).await;
            answer
        };
        tokio::select! {
            biased;
            () = self.broken(&there, &back) => Err(Error::Ended("the network is cut".to_owned())),
            answer = returned => answer,
        }
    }

    /// What arrives at a node.
    fn incoming<T: Send + 'static>(self, way: Way, mut arriving: mpsc::Receiver<Sent<T>>) -> Messages<T> {
        Box::pin(generate(|mut yielder| async move {
            while let Some(message) = self.receive(&way, &mut arriving).await {
                yielder.hand_out(message).await;
            }
            Ok(())
        }))
    }

    /// Hands the caller what arrives there.
    async fn answer<T>(
        &self,
        way: &Way,
        mut returning: mpsc::Receiver<Sent<Result<T, Status>>>,
        answers: mpsc::Sender<Result<T, Error>>,
    ) {
        while let Some(message) = self.receive(way, &mut returning).await {
            if answers.send(message.map_err(Error::from)).await.is_err() {
                break;
            }
        }
    }
}

impl State {
    /// The next number of the sequence from 0 to 1 (xorshift64*).
    fn random(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn way(from: &str, to: &str) -> Way {
    (from.to_owned(), to.to_owned())
}

/// One node's way to the others.
struct FromNode {
    network: Network,
    id: String,
}

impl Transport for FromNode {
    fn open(&self, to: &Member, batches: Batches) -> Opening {
        Box::pin(self.network.clone().open(way(&self.id, &to.id), batches, |node| node.serve.clone()))
    }

    fn move_items(&self, to: &Member, requests: MoveRequests) -> Calling<MoveStream> {
        Box::pin(self.network.clone().open(way(&self.id, &to.id), requests, |node| node.move_items.clone()))
    }

    fn load(&self, to: &Member, request: pb::LoadRequest) -> Calling<pb::Outcome> {
        let there = way(&self.id, &to.id);
        Box::pin(self.network.clone().call(there, move |node| (node.load)(request)))
    }

    fn flush_prefix(&self, to: &Member, request: pb::FlushPrefixRequest) -> Calling<pb::FlushPrefixReply> {
        let there = way(&self.id, &to.id);
        Box::pin(self.network.clone().call(there, move |node| (node.flush_prefix)(request)))
    }
}
