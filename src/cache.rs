//! The decisions: which node owns a key, and may this node answer for it at this moment?
//!
//! A [`Cache`] is one thread's way to the items, on a node that is alone or in a cluster. Commands are executed within
//! a [`turn`], which is the only code that knows generations and the right to serve. A thread looks keys up in
//! [`routing`]; [`ownership`] makes a new one whenever the cluster changes, and makes sure that nobody acts on an older
//! one. [`clustered`] executes what peers send, and sends what peers own. Commands that must wait for a routing wait in
//! `parked`, in order.

pub mod clustered;
pub mod handovers;
mod links;
mod load_calls;
pub mod loads;
pub mod moves;
pub mod ownership;
mod parked;
pub mod pauses;
mod prefix_flush;
pub mod routing;
pub mod routing_watch;
mod serve;
pub mod turn;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cache::clustered::{ClusterContext, Clustered};
use crate::cache::loads::Loads;
use crate::cache::turn::Turn;
use crate::clock::Seconds;
use crate::command::{Command, Failure, Outcome, Unavailable, Verb};
use crate::pb;
use crate::stats::{Counter, Counters};
use crate::store::{Caller, Store};

/// One thread's way to the items; cheap to clone.
#[derive(Clone)]
pub enum Cache {
    /// Every key is this node's.
    Alone(Arc<Alone>),
    /// The cluster says which node owns a key.
    Clustered(Arc<Clustered>),
}

/// The parts of a thread on a node that is alone.
pub struct Alone {
    store: Arc<Store>,
    loads: Arc<Loads>,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

/// A connection's memory of the standstills of its thread.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The last one that the connection was not there for.
    pauses: u64,
    /// Whether it may have waited for long to be accepted.
    is_late: bool,
}

/// A thread's part in a cluster, whose tasks run in the thread's own runtime until `stop`.
///
/// # Panics
/// Outside of a runtime.
pub fn join(
    context: Arc<ClusterContext>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) -> Arc<Clustered> {
    let (clustered, redirected) = Clustered::new(context, counters, stop);
    let clustered = Arc::new(clustered);
    let routing_watch = clustered.routing_watch.clone();
    clustered.spawn(parked::run(Arc::downgrade(&clustered), routing_watch, redirected));
    clustered
}

/// Counts a command for an owner that could not be asked: a reader takes that for a miss, and sees no error.
#[cold]
pub fn count_unavailable(counters: &Counters, verb: &Verb<'_>) {
    let is_read = matches!(verb, Verb::Get(_) | Verb::Inspect);
    counters.bump(if is_read { Counter::UnavailableReads } else { Counter::UnavailableWrites });
}

impl Cache {
    /// For one more thread of a node, whose tasks run in the thread's own runtime until `stop`. Without a cluster the
    /// node is alone with its store.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(
        store: &Arc<Store>,
        loads: &Arc<Loads>,
        cluster: Option<Arc<ClusterContext>>,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        let Some(context) = cluster else {
            let (store, loads) = (store.clone(), loads.clone());
            return Self::Alone(Arc::new(Alone { store, loads, counters, stop }));
        };
        let clustered = join(context, counters, stop);
        let watched = clustered.clone();
        clustered.spawn(pauses::watch(move || _ = watched.pauses().ended()));
        Self::Clustered(clustered)
    }

    /// This thread's part in the cluster; `None` on a node that is alone.
    pub fn cluster(&self) -> Option<&Arc<Clustered>> {
        match self {
            Self::Alone(_) => None,
            Self::Clustered(clustered) => Some(clustered),
        }
    }

    /// Whether what lies under a key lies here, as far as that is known now; in a cluster, not where the key is not known.
    pub fn is_here(&self, key: Option<&[u8]>) -> bool {
        self.cluster().is_none_or(|clustered| {
            key.is_some_and(|key| clustered.routing_handle().hold().place(key).is_here())
        })
    }

    /// This node's memory.
    pub fn store(&self) -> &Store {
        match self {
            Self::Alone(alone) => &alone.store,
            Self::Clustered(clustered) => &clustered.context().store,
        }
    }

    /// The version of the present routing; 0 on a node that is alone.
    #[inline]
    pub fn version(&self) -> u64 {
        self.cluster().map_or(0, |clustered| clustered.routing_handle().hold().version)
    }

    /// Notes that a connection is new to this thread.
    pub fn arrive(&self) -> Arrival {
        match self {
            Self::Alone(_) => Arrival { pauses: 0, is_late: false },
            Self::Clustered(clustered) => Arrival {
                pauses: clustered.pauses().before_now(),
                is_late: clustered.context().pauses.is_just_over(),
            },
        }
    }

    /// Whether bytes read on a connection may have waited there for very long: its client may have given up, and have
    /// written something newer through another node. Never true on a node that is alone.
    #[inline]
    pub fn is_stale(&self, arrival: Arrival) -> bool {
        match self {
            Self::Alone(_) => false,
            Self::Clustered(clustered) => arrival.is_late || clustered.pauses().ended() != arrival.pauses,
        }
    }

    /// Runs something until the thread stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Alone(alone) => _ = tokio::spawn(alone.stop.clone().run_until_cancelled_owned(task)),
            Self::Clustered(clustered) => clustered.spawn(task),
        }
    }

    /// Has the owner execute one command, wherever that is, and shows the outcome. Cancellation safe; a command is
    /// executed even if nobody waits for it.
    pub async fn execute<R>(&self, command: &Command<'_>, show: impl FnOnce(Outcome<'_>) -> R) -> R {
        let unavailable = |why| Outcome::Failed(Failure::Unavailable(why));
        match self {
            Self::Alone(alone) => {
                let (store, now) = (&alone.store, alone.store.clock().now());
                let loads = alone.loads.active();
                let capped = loads.and_then(|loads| loads.cap(command, store.clock(), now));
                let caller = Caller::new(now, &alone.counters, 0);
                let shown = store.execute(&caller, capped.as_ref().unwrap_or(command), show);
                loads.inspect(|loads| loads.note_write(command));
                shown
            }
            Self::Clustered(clustered) => match clustered.call(command).await.result {
                Ok(message) => {
                    show(pb::view(&message, command.key).unwrap_or(unavailable(Unavailable::Unanswered)))
                }
                Err(why) => {
                    count_unavailable(clustered.counters(), &command.verb);
                    show(unavailable(why))
                }
            },
        }
    }

    /// Begins a batch of commands from this connection at this time.
    #[inline]
    pub fn begin(&self, now: Seconds, connection: u64) -> Turn<'_> {
        match self {
            Self::Alone(alone) => {
                Turn::alone(&alone.store, &alone.loads, Caller::new(now, &alone.counters, connection))
            }
            Self::Clustered(clustered) => clustered.begin(now, connection),
        }
    }
}
