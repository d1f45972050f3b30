//! The way from one thread to one member: a queue, a stream, and the outcome of each operation.
//!
//! [`pending_ops`] holds the operations on their way, [`batches`] makes messages of them, [`peer_clock`] says until
//! when the peer may execute them, and [`breaker`] when the peer must not be asked. [`inner`] ties them together.

pub mod batches;
pub mod breaker;
pub mod inner;
pub mod peer_clock;
pub mod pending_ops;
pub mod stats;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::cluster::view::Member;
use crate::peer::PendingOp;
use crate::peer::identity::Identity;
use crate::peer::link::batches::Batches;
use crate::peer::link::inner::LinkInner;
pub use crate::peer::link::inner::Redirected;
use crate::peer::link::stats::{AllStats, Stats};
use crate::peer::options::Options;
use crate::peer::transport::{Error, OutcomeStream, Transport};

/// The state that the links of a thread share.
#[derive(Clone)]
pub struct Dialer {
    /// How other nodes are reached.
    pub transport: Arc<dyn Transport>,
    /// The caller.
    pub me: Arc<Identity>,
    /// How long to wait, and for how many.
    pub options: Arc<Options>,
    /// Takes the operations that have a new owner.
    pub redirected: mpsc::Sender<Redirected>,
    /// Counts what the links do.
    pub stats: Arc<AllStats>,
    /// Has the tasks of the links.
    pub tasks: TaskTracker,
    /// Closes all links.
    pub stop: CancellationToken,
}

/// The way from one thread to one member, in one incarnation and at one address.
///
/// Operations leave in the order in which they were sent. Every one is answered by its deadline, give or
/// take some milliseconds. Dropping the link closes it: what it has taken is still sent and
/// answered.
#[derive(Debug)]
pub struct Link(Arc<LinkInner>);

impl Link {
    /// Begins to connect. Must be called within a runtime, where its tasks then run.
    pub fn open(dialer: &Dialer, to: Member) -> Self {
        let stats = dialer.stats.open(&to.id);
        let inner = Arc::new(LinkInner::new(&dialer.options, stats, dialer.redirected.clone()));
        let conversation = Conversation { inner: inner.clone(), dialer: dialer.clone(), to };
        dialer.tasks.spawn(conversation.run());
        dialer.tasks.spawn(keep_deadlines(inner.clone(), dialer.stop.clone()));
        Self(inner)
    }

    /// Sends an operation on its way. Never waits: when too many wait already, or the member does not
    /// answer, the operation is answered at once.
    pub fn send(&self, op: PendingOp) {
        self.0.send(op);
    }

    /// What has been done so far, and is being done.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.0.stats
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Answers every operation at its deadline at the latest, until the link is over.
async fn keep_deadlines(inner: Arc<LinkInner>, stop: CancellationToken) {
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    while !inner.is_over() {
        let next = inner.keep_deadlines();
        tokio::select! {
            biased;
            () = sleep_until_some(next) => {}
            () = inner.rearm.notified() => {}
            () = &mut stopped, if !stopping => {
                stopping = true;
                inner.close();
            }
        }
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Keeps a stream to the member, one after another.
struct Conversation {
    inner: Arc<LinkInner>,
    dialer: Dialer,
    to: Member,
}

impl Conversation {
    async fn run(self) {
        loop {
            let stream = self.inner.next_stream();
            tokio::select! {
                biased;
                () = self.unwanted(stream) => {}
                error = self.converse(stream) => debug!(peer = self.to.id, "the stream ended: {error}"),
            }
            let pause = self.inner.lose();
            tokio::select! {
                biased;
                () = self.over() => break,
                () = sleep(pause) => {}
            }
        }
    }

    /// Until the link is over.
    async fn over(&self) {
        while !self.inner.is_over() {
            self.inner.changed.notified().await;
        }
    }

    /// Until the stream is no longer the present one, or the link is over.
    async fn unwanted(&self, stream: u64) {
        while self.inner.is_present(stream) && !self.inner.is_over() {
            self.inner.changed.notified().await;
        }
    }

    /// Opens a stream and reads outcomes until it ends.
    async fn converse(&self, stream: u64) -> Error {
        let Dialer { transport, me, options, .. } = &self.dialer;
        let batches = Batches::new(self.inner.clone(), stream, me.call(&self.to.id));
        let opening = async {
            let mut outcomes = transport.open(&self.to, batches).await?;
            let greeting = next(&mut outcomes).await?;
            Ok((outcomes, greeting))
        };
        let patience = options.connect_timeout + options.operation_timeout;
        let (mut outcomes, greeting) = match timeout(patience, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return error,
            Err(_) => return Error::Silent,
        };
        if let Err(error) = self.inner.hear(stream, greeting) {
            return error.into();
        }
        debug!(peer = self.to.id, "connected");
        loop {
            let heard = match next(&mut outcomes).await {
                Ok(message) => self.inner.hear(stream, message),
                Err(error) => return error,
            };
            if let Err(error) = heard {
                return error.into();
            }
        }
    }
}

async fn next(outcomes: &mut OutcomeStream) -> Result<crate::pb::Outcomes, Error> {
    outcomes.next().await.unwrap_or_else(|| Err(Error::Ended("the peer ended the stream".to_owned())))
}
