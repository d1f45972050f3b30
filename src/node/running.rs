//! A node while it runs: every room, built once.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cache::loads::{Loads, Started};
use crate::clock::Clock;
use crate::events::Events;
use crate::groups::{Group, Groups};
use crate::node::bound::{Bound, BoundHttp, http_addr};
use crate::node::cluster::Member;
use crate::node::loader;
use crate::node::options::{Error, GroupsOptions, Options, ReadGroups};
use crate::node::sweeper::sweep_until_stopped;
use crate::process;
use crate::server::ServerContext;
use crate::server::admin;
use crate::server::connections::Connections;
use crate::server::history::History;
use crate::server::listen::Bound as Listening;
use crate::server::peer::Service;
use crate::server::prefix::Prefixes;
use crate::server::quota::Quota;
use crate::server::strangers::Strangers;
use crate::server::worker::{Workers, accept, ended};
use crate::snapshot::Snapshot;
use crate::stats::Registry;
use crate::store::Store;
use crate::watchdog::Watchdog;

/// How much longer than the grace period threads may take to end; after that they are left behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// The parts that have been started.
pub(super) struct Running {
    pub(super) context: Arc<ServerContext>,
    pub(super) acceptors: JoinSet<io::Result<()>>,
    member: Option<Member>,
    workers: Workers,
    /// The threads of these two, where there are such.
    http_and_loader: Vec<JoinHandle<()>>,
    sweeper: JoinHandle<()>,
    unix_path: Option<PathBuf>,
    snapshot: Option<Snapshot>,
    read_groups: Option<ReadGroups>,
    /// Where groups go whose origins are to be tried out.
    newcomers: Option<UnboundedSender<Arc<Group>>>,
}

impl Running {
    /// Starts every thread.
    ///
    /// # Errors
    /// The system refuses something that a node needs.
    pub(super) fn start(mut bound: Bound, options: Options) -> Result<Self, Error> {
        let memcached_addr = bound.listening.first().map_or_else(String::new, Listening::address);
        let unix_path = options.server.unix.as_ref().map(|unix| unix.path.clone());
        let (sweep, sweep_asked) = sync_channel(1);
        let log_lines = options.log_lines.clone();
        let GroupsOptions { at_start: groups, read_again: read_groups } = options.groups.clone();
        let (context, started) = context(&mut bound, options, sweep)?;
        let watchdog = context.watchdog.clone();
        tokio::spawn(watchdog.watch("main").keep());

        let (listener, member) = match bound.peers {
            None => (None, None),
            Some((listener, mut options)) => {
                options.membership.watchdog = watchdog.clone();
                let files = process::files_beside(context.options.max_connections as u64);
                let service =
                    |membership: &_, pings: &_| Service::new(context.clone(), membership, pings, files);
                (Some(listener), Some(Member::join(options, &context, service)?))
            }
        };
        let workers = Workers::start(&context, member.as_ref().map(|member| &member.cluster))?;
        if let (Some(listener), Some(member)) = (listener, &member) {
            member.accept(listener, workers.peer_inboxes())?;
        }
        let cluster = || member.as_ref().map(|member| member.cluster.shared.clone());
        // Nearly last, since a start that fails after this has lost it; and before clients are served.
        let snapshot = bound.snapshot.map(|claim| Snapshot::begin(claim, &context.store)).transpose()?;
        let http = bound.http.map(|BoundHttp { listener, options: http, token }| {
            admin::start(listener, &http, token, context.clone(), memcached_addr, cluster(), log_lines)
        });
        let http = http.transpose()?;
        // Groups may also come at HUP.
        let has_loads = !groups.is_empty() || read_groups.is_some();
        let loader = has_loads.then(|| loader::start(context.clone(), cluster(), started)).transpose()?;
        let sweeper = std::thread::Builder::new().name("sweeper".into()).spawn({
            let (context, heartbeat) = (context.clone(), watchdog.watch("sweeper"));
            move || sweep_until_stopped(&context, &sweep_asked, &heartbeat)
        })?;
        let mut acceptors = JoinSet::new();
        for listening in bound.listening {
            info!("listening on {}", listening.name());
            let (counters, cluster) =
                (context.registry.block(), member.as_ref().map(|member| member.cluster.clone()));
            acceptors.spawn(accept(context.clone(), counters, listening, workers.inboxes(), cluster));
        }

        let (loader, newcomers) = loader.map(|loader| (loader.thread, loader.newcomers)).unzip();
        Ok(Self {
            context,
            acceptors,
            member,
            workers,
            http_and_loader: http.into_iter().chain(loader).collect(),
            sweeper,
            unix_path,
            snapshot,
            read_groups,
            newcomers,
        })
    }

    /// Reads the groups again; with a fault in them, the old ones stay.
    pub(super) fn reload_groups(&self) -> Result<(), String> {
        let Some(read) = &self.read_groups else { return Ok(()) };
        let loads = &self.context.loads;
        let before = loads.groups();
        let groups = Groups::new(&read.read()?, &before);
        loads.set_groups(groups.map_err(|(name, invalid)| format!("group {name:?}: {invalid}"))?);
        self.context.store.set_groups(&loads.groups().key_groups());
        if let Some(member) = &self.member {
            member.cluster.shared.pings.set_groups_digest(loads.groups().digest());
        }
        for group in loads.groups().iter() {
            let is_new = !before.iter().any(|other| Arc::ptr_eq(group, other));
            if let Some(newcomers) = self.newcomers.as_ref().filter(|_| is_new) {
                // The loader has gone only when the node stops.
                _ = newcomers.send(group.clone());
            }
        }
        Ok(())
    }

    /// Stops every thread: a member leaves its cluster first, while it still answers. Then writes a snapshot, unless told to
    /// stop `at_once`.
    pub(super) async fn stop(self, at_once: &CancellationToken) {
        let Self {
            context,
            mut acceptors,
            member,
            workers,
            http_and_loader,
            sweeper,
            unix_path,
            snapshot,
            ..
        } = self;
        if let Some(member) = &member {
            member.drain(context.options.grace, at_once).await;
        }
        context.watchdog.end();
        context.stop.cancel();
        context.drain();
        let until = Instant::now() + context.options.grace + PATIENCE;
        while acceptors.join_next().await.is_some() {}
        let mut all_ended = workers.join(until).await;
        for thread in http_and_loader {
            all_ended &= ended(thread, until).await;
        }
        if let Some(member) = member {
            all_ended &= member.end(until).await;
        }
        context.sweep_now();
        ended(sweeper, until).await;
        if let Some(path) = unix_path {
            // Another thread may have been faster.
            _ = std::fs::remove_file(path);
        }
        match snapshot {
            Some(snapshot) if all_ended => {
                let at_once = at_once.clone();
                let written = tokio::task::spawn_blocking(move || {
                    snapshot.end(&context.store, || at_once.is_cancelled())
                });
                // A panic was logged when it happened.
                _ = written.await;
            }
            Some(_) => warn!("no snapshot is written: a thread that may still change items stands still"),
            None => {}
        }
    }
}

/// The state that every listener needs, and the loads that start.
fn context(
    bound: &mut Bound,
    options: Options,
    sweep: SyncSender<()>,
) -> Result<(Arc<ServerContext>, UnboundedReceiver<Started>), Error> {
    let groups = Groups::new(&options.groups.at_start, &Groups::default());
    let (loads, started) = Loads::new(groups.map_err(|(name, invalid)| Error::Group(name, invalid))?);
    let watchdog = match &bound.peers {
        Some((_, cluster)) => Watchdog::new(cluster.membership.lease_ttl),
        None => Watchdog::default(),
    };
    let events = Events::default();
    let store = Store::new(&options.store, Clock::system(), events.clone());
    store.set_groups(&loads.groups().key_groups());
    let context = Arc::new(ServerContext {
        loads,
        store: Arc::new(store),
        events,
        registry: Registry::new(bound.http.is_some()),
        verbosity: AtomicU8::new(options.server.verbosity),
        connections: Connections::new(options.server.max_connections),
        strangers: Strangers::default(),
        requests: Quota::new(options.server.request_bytes),
        replies: Quota::new(options.server.reply_bytes),
        prefixes: Prefixes::new(options.server.prefix_delimiter),
        auth: bound.users.take(),
        certificates: bound.certificates.take(),
        watchdog: Arc::new(watchdog.held_by(options.held_by)),
        leave: CancellationToken::new(),
        stop: CancellationToken::new(),
        sweep,
        draining: AtomicBool::new(false),
        history: History::default(),
        http_addr: http_addr(bound.http.as_ref(), bound.peers.as_ref().map(|(_, options)| options)),
        options: options.server,
    });
    Ok((context, started))
}
