//! Builds every room of a node once, and starts and stops it: wiring only.

mod cluster;
mod options;

use std::io;
use std::net::{IpAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::auth::Users;
use crate::clock::Clock;
use crate::events::{Events, Kinds};
use crate::node::cluster::Member;
pub use crate::node::options::{ClusterOptions, Error, Options};
use crate::process::rights::Rights;
use crate::process::{self, signals};
use crate::server::ServerContext;
use crate::server::admin::{self, Token};
use crate::server::connections::Connections;
use crate::server::history::History;
use crate::server::listen::{self, Bound as Listening};
use crate::server::peer::Service;
use crate::server::prefix::Prefixes;
use crate::server::quota::Quota;
use crate::server::strangers::Strangers;
use crate::server::worker::{Workers, accept, ended};
use crate::stats::Registry;
use crate::store::{Caller, Store};
use crate::tls;
use crate::watchdog::{Heartbeat, Watchdog};

/// How often the store is looked through for expired items.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A sweep rests this many times as long as it worked: one twentieth of a core at most.
const SWEEP_REST: u32 = 19;

/// How much longer than the grace period threads may take to end, and then are left behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a node needs from outside, got hold of: sockets, certificates, users.
pub struct Bound {
    listening: Vec<Listening>,
    peers: Option<(TcpListener, ClusterOptions)>,
    certificates: Option<tls::Reloadable>,
    users: Option<Users>,
    http: Option<BoundHttp>,
}

struct BoundHttp {
    listener: TcpListener,
    options: admin::Options,
    token: Option<Token>,
}

/// Gets hold of all that can be missing or taken, before any thread is started. From here on
/// signals wait for [`run`], in the same thread. Files that only the user of `-u` may open are opened
/// by these `rights`.
///
/// # Errors
/// A port in use, a file that cannot be read or used.
pub fn bind(options: &Options, rights: &Rights) -> Result<Bound, Error> {
    let certificates =
        rights.root_first(|| options.server.tls.clone().map(tls::Reloadable::load).transpose())?;
    let users = rights.root_first(|| options.server.auth_file.as_ref().map(Users::load).transpose())?;
    let listening = match &options.server.unix {
        // It is to belong to the user.
        Some(_) => rights.user_first(|| listen::bind(&options.server))?,
        None => listen::bind(&options.server)?,
    };
    let http = options.http.as_ref().map(|http| bind_http(http, rights)).transpose()?.flatten();
    let peers = options.cluster.clone().map(|mut options| {
        let listener = cluster::bind(&mut options, &listening)?;
        Ok::<_, Error>((listener, options))
    });
    // Not earlier, so that a name server that does not answer can be interrupted.
    signals::hold().map_err(io::Error::from)?;
    if let Some(path) = &options.port_file {
        let http = http.as_ref().map(|http| &http.listener);
        rights.root_first(|| listen::write_port_file(path, &listening, http))?;
    }
    Ok(Bound { listening, peers: peers.transpose()?, certificates, users, http })
}

fn bind_http(options: &admin::Options, rights: &Rights) -> Result<Option<BoundHttp>, Error> {
    let token = rights.root_first(|| options.token_file.as_deref().map(Token::load).transpose())?;
    let listener = admin::bind(options)?;
    Ok(listener.map(|listener| BoundHttp { listener, options: options.clone(), token }))
}

/// Where browsers that see a page of another member reach this node's; empty when they do not.
fn http_addr(http: Option<&BoundHttp>, cluster: Option<&ClusterOptions>) -> String {
    let Some(BoundHttp { listener, options, .. }) = http else { return String::new() };
    if let Some(told) = &options.advertise {
        return told.clone();
    }
    let Ok(addr) = listener.local_addr() else { return String::new() };
    let peer_host = cluster.and_then(|cluster| cluster.membership.peer_addr.rsplit_once(':'));
    match peer_host.map(|(host, _)| host) {
        Some(host) if addr.ip().is_unspecified() => format!("{host}:{}", addr.port()),
        // Others have a loopback of their own.
        Some(host) if addr.ip().is_loopback() && !is_loopback(host) => String::new(),
        _ => addr.to_string(),
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse();
    host == "localhost" || ip.is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// Runs a node until INT, TERM or USR1, or a `shutdown` command. HUP reloads certificates and
/// users.
///
/// # Errors
/// The system refuses what a node cannot do without.
pub fn run(bound: Bound, options: Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_until_stopped(bound, options))
}

async fn run_until_stopped(bound: Bound, options: Options) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut graceful = signal(SignalKind::user_defined1())?;
    let mut reload = signal(SignalKind::hangup())?;
    signals::release().map_err(io::Error::from)?;

    let memcached_addr = bound.listening.first().map_or_else(String::new, Listening::address);
    let unix_path = options.server.unix.as_ref().map(|unix| unix.path.clone());
    let (sweep, sweep_asked) = sync_channel(1);
    let watchdog = match &bound.peers {
        Some((_, cluster)) => Watchdog::new(cluster.membership.lease_ttl),
        None => Watchdog::default(),
    };
    let watchdog = Arc::new(watchdog.held_by(options.held_by));
    tokio::spawn(watchdog.watch("main").keep());
    let events = Events::default();
    let context = Arc::new(ServerContext {
        store: Arc::new(Store::new(&options.store, Clock::system(), events.clone())),
        events,
        registry: Registry::new(bound.http.is_some()),
        verbosity: AtomicU8::new(options.server.verbosity),
        connections: Connections::new(options.server.max_connections),
        strangers: Strangers::default(),
        requests: Quota::new(options.server.request_bytes),
        replies: Quota::new(options.server.reply_bytes),
        prefixes: Prefixes::new(options.server.prefix_delimiter),
        auth: bound.users,
        certificates: bound.certificates,
        watchdog: watchdog.clone(),
        stop: CancellationToken::new(),
        sweep,
        draining: AtomicBool::new(false),
        history: History::default(),
        http_addr: http_addr(bound.http.as_ref(), bound.peers.as_ref().map(|(_, options)| options)),
        options: options.server,
    });

    let (listener, member) = match bound.peers {
        None => (None, None),
        Some((listener, mut options)) => {
            options.membership.watchdog = watchdog.clone();
            let files = process::files_beside(context.options.max_connections as u64);
            let service = |membership: &_, pings: &_| Service::new(context.clone(), membership, pings, files);
            (Some(listener), Some(Member::join(options, context.store.clone(), service)?))
        }
    };
    let workers = Workers::start(&context, member.as_ref().map(|member| &member.cluster))?;
    if let (Some(listener), Some(member)) = (listener, &member) {
        member.accept(listener, workers.peer_inboxes())?;
    }
    let http = bound.http.map(|BoundHttp { listener, options: http, token }| {
        let cluster = member.as_ref().map(|member| member.cluster.shared.clone());
        admin::start(listener, &http, token, context.clone(), memcached_addr, cluster, options.log_lines)
    });
    let http = http.transpose()?;
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

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = graceful.recv() => break,
            () = context.stop.cancelled() => break,
            _ = reload.recv() => {
                options.log_writer.reopen();
                let problems = context.reload();
                problems.iter().for_each(|problem| warn!("not reloaded: {problem}"));
                if problems.is_empty() {
                    info!("reloaded");
                }
            }
            Some(ended) = acceptors.join_next() => {
                ended.map_err(io::Error::other)??;
            }
        }
    }

    info!("stopping");
    if let Some(member) = &member {
        member.leave(context.options.grace).await;
    }
    watchdog.end();
    context.stop.cancel();
    context.drain();
    let until = Instant::now() + context.options.grace + PATIENCE;
    while acceptors.join_next().await.is_some() {}
    workers.join(until).await;
    if let Some(http) = http {
        ended(http, until).await;
    }
    if let Some(member) = member {
        member.end().await;
    }
    context.sweep_now();
    ended(sweeper, until).await;
    if let Some(path) = unix_path {
        // Somebody may have been faster.
        _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Drops expired items in the background, shard by shard, at a bounded share of one core.
fn sweep_until_stopped(context: &ServerContext, asked: &Receiver<()>, heartbeat: &Heartbeat) {
    let counters = context.registry.block();
    let mut due = Instant::now() + SWEEP_INTERVAL;
    while !context.stop.is_cancelled() {
        heartbeat.beat();
        let pause = due.saturating_duration_since(Instant::now());
        let at_once = asked.recv_timeout(pause.min(context.watchdog.interval())).is_ok();
        if context.stop.is_cancelled() {
            break;
        }
        if !at_once && Instant::now() < due {
            continue;
        }
        let caller = Caller::new(context.store.clock().now(), &counters, 0);
        // Where `cache_memlimit` has lowered the budget.
        while context.store.shrink(&caller) && !context.stop.is_cancelled() {
            heartbeat.beat();
        }
        if at_once || context.store.sweep_enabled() {
            sweep(context, &caller, at_once, heartbeat);
        }
        due = Instant::now() + SWEEP_INTERVAL;
    }
}

/// Looks through the whole store once.
fn sweep(context: &ServerContext, caller: &Caller<'_>, at_once: bool, heartbeat: &Heartbeat) {
    let mut since = Instant::now();
    let (mut checked, began) = (0, since);
    context.store.sweep(caller, |items| {
        checked += items;
        if at_once {
            heartbeat.beat();
        } else {
            heartbeat.sleep(since.elapsed() * SWEEP_REST);
        }
        since = Instant::now();
        if context.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if checked > 0 && context.events.watched(Kinds::SYSEVENTS) {
        context.events.tell(Kinds::SYSEVENTS, |line| {
            let elapsed = began.elapsed().as_secs();
            line.push_str(&format!("type=lru_crawler crawler=1 elapsed={elapsed} examined={checked}"));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::etcd;
    use crate::peer;

    #[test]
    fn pages_are_told_of_where_a_browser_reaches_them() {
        let told = |listen: &str, advertise: Option<&str>, peer_addr: &str| {
            let http = BoundHttp {
                listener: TcpListener::bind(listen).expect("a free port"),
                options: admin::Options {
                    listen: listen.to_owned(),
                    is_default: false,
                    token_file: None,
                    memcached_names: false,
                    advertise: advertise.map(str::to_owned),
                },
                token: None,
            };
            let port = http.listener.local_addr().expect("bound").port().to_string();
            let membership = etcd::Options { peer_addr: peer_addr.to_owned(), ..etcd::Options::default() };
            let cluster = ClusterOptions { membership, peer: peer::options::Options::default() };
            http_addr(Some(&http), Some(&cluster)).replace(&port, "PORT")
        };
        assert_eq!(told("127.0.0.1:0", None, "127.0.0.1:11212"), "127.0.0.1:PORT");
        assert_eq!(told("127.0.0.1:0", None, "cache-1:11212"), "", "nobody there would reach it");
        assert_eq!(told("0.0.0.0:0", None, "cache-1:11212"), "cache-1:PORT");
        assert_eq!(told("0.0.0.0:0", Some("localhost:9"), "cache-1:11212"), "localhost:9");
        assert_eq!(http_addr(None, None), "");
    }
}
