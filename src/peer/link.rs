//! The way from one thread to one member: a queue, a stream, and what came of each job.
//!
//! [`jobs`] holds what is on its way, [`batches`] makes messages of it, [`peer_clock`] says until
//! when the peer may execute it, and [`breaker`] when the peer is not to be asked. [`shared`]
//! ties them together.

pub mod batches;
pub mod breaker;
pub mod jobs;
pub mod peer_clock;
pub mod shared;
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
use crate::peer::Job;
use crate::peer::identity::Identity;
use crate::peer::link::batches::Batches;
pub use crate::peer::link::shared::Redirected;
use crate::peer::link::shared::Shared;
use crate::peer::link::stats::{AllStats, Stats};
use crate::peer::options::Options;
use crate::peer::transport::{Error, OutcomeStream, Transport};

/// What the links of a thread have in common.
#[derive(Clone)]
pub struct Dialer {
    /// How other nodes are reached.
    pub transport: Arc<dyn Transport>,
    /// Who calls.
    pub me: Arc<Identity>,
    /// How long to wait, and for how many.
    pub options: Arc<Options>,
    /// Where jobs go whose owner has changed.
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
/// Jobs leave in the order in which they were sent. Every one is answered by its deadline, give or
/// take some milliseconds. Dropping the link closes it: what it has taken is still sent and
/// answered.
#[derive(Debug)]
pub struct Link(Arc<Shared>);

impl Link {
    /// Begins to connect. Must be called within a runtime, where its tasks then run.
    pub fn open(dialer: &Dialer, to: Member) -> Self {
        let stats = dialer.stats.open(&to.id);
        let shared = Arc::new(Shared::new(&dialer.options, stats, dialer.redirected.clone()));
        let conversation = Conversation { shared: shared.clone(), dialer: dialer.clone(), to };
        dialer.tasks.spawn(conversation.run());
        dialer.tasks.spawn(keep_deadlines(shared.clone(), dialer.stop.clone()));
        Self(shared)
    }

    /// Sends a job on its way. Never waits: when too many wait already, or the member does not
    /// answer, the job is answered at once.
    pub fn send(&self, job: Job) {
        self.0.send(job);
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

/// Answers every job at its deadline at the latest, until the link is over.
async fn keep_deadlines(shared: Arc<Shared>, stop: CancellationToken) {
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    while !shared.is_over() {
        let next = shared.keep_deadlines();
        tokio::select! {
            biased;
            () = sleep_until_some(next) => {}
            () = shared.rearm.notified() => {}
            () = &mut stopped, if !stopping => {
                stopping = true;
                shared.close();
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
    shared: Arc<Shared>,
    dialer: Dialer,
    to: Member,
}

impl Conversation {
    async fn run(self) {
        loop {
            let stream = self.shared.next_stream();
            tokio::select! {
                biased;
                () = self.unwanted(stream) => {}
                error = self.converse(stream) => debug!(peer = self.to.id, "the stream ended: {error}"),
            }
            let pause = self.shared.lose();
            tokio::select! {
                biased;
                () = self.over() => break,
                () = sleep(pause) => {}
            }
        }
    }

    /// Until the link is over.
    async fn over(&self) {
        while !self.shared.is_over() {
            self.shared.changed.notified().await;
        }
    }

    /// Until the stream is no longer the present one, or the link is over.
    async fn unwanted(&self, stream: u64) {
        while self.shared.is_present(stream) && !self.shared.is_over() {
            self.shared.changed.notified().await;
        }
    }

    /// Opens a stream and hears what comes back, to the bitter end.
    async fn converse(&self, stream: u64) -> Error {
        let Dialer { transport, me, options, .. } = &self.dialer;
        let batches = Batches::new(self.shared.clone(), stream, me.call(&self.to.id));
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
        if let Err(error) = self.shared.hear(stream, greeting) {
            return error.into();
        }
        debug!(peer = self.to.id, "connected");
        loop {
            let heard = match next(&mut outcomes).await {
                Ok(message) => self.shared.hear(stream, message),
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
