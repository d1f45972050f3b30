//! The HTTP server: health, metrics, a small JSON API and the status page, for operators and for people who have no
//! memcached client at hand.
//!
//! It has a thread of its own, so that a walk through all keys or a slow reader keeps no client of the cache waiting.
//! `listen` bounds the cost of a connection, `guard` checks who may ask.

mod cluster;
mod drain;
mod groups;
mod guard;
mod health;
mod history;
mod incidents;
mod items;
mod keys;
mod listen;
mod page;
mod problem;
mod stats;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cache::clustered::ClusterContext;
use crate::cluster::etcd::default_node_id;
use crate::logs::Lines;
use crate::server::ServerContext;
use crate::server::admin::incidents::Incidents;
use crate::server::admin::page::Page;
use crate::server::admin::problem::Problem;
use crate::server::metrics::{Exporter, Requests};
use crate::stats::Counters;
use crate::store::Caller;
pub use guard::{Token, TokenError};
pub use listen::{Error, bind};

/// How often timings are handed on to the metrics when nobody asks for them.
const KEEP_UP: Duration = Duration::from_secs(5);

/// The name of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How the HTTP server listens and what it shows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen, `host:port`; port 0 picks a free one.
    pub listen: String,
    /// Whether this is the default address: when it is taken, the node runs without HTTP.
    pub is_default: bool,
    /// Where browsers reach it, `host:port`, when that is not the address it listens on.
    pub advertise: Option<String>,
    /// A file with the token that requests need.
    pub token_file: Option<PathBuf>,
    /// Whether metrics carry memcached_exporter's names, too.
    pub memcached_names: bool,
}

/// What the handlers share.
pub struct Admin {
    /// This node's name.
    name: String,
    /// Where its clients come in.
    memcached_addr: String,
    context: Arc<ServerContext>,
    /// This thread's way to the items.
    cache: Cache,
    counters: Arc<Counters>,
    exporter: Exporter,
    requests: Arc<Requests>,
    token: Option<Token>,
    page: Page,
    incidents: Incidents,
}

/// Answers HTTP in a thread of its own until the server stops. The last request is still answered if that takes no
/// longer than the time allowed.
///
/// # Errors
/// The system has no thread or no descriptor to give.
pub fn start(
    listener: TcpListener,
    options: &Options,
    token: Option<Token>,
    context: Arc<ServerContext>,
    memcached_addr: String,
    cluster: Option<Arc<ClusterContext>>,
    log_lines: Lines,
) -> io::Result<JoinHandle<()>> {
    let requests = Arc::<Requests>::default();
    let node = (context.clone(), cluster.clone());
    let exporter = Exporter::new(node, requests.clone(), log_lines, options.memcached_names);
    let exporter = exporter.map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counters = context.registry.block();
    let name = match &cluster {
        Some(shared) => shared.me.id.clone(),
        None => {
            let port = memcached_addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            default_node_id(port.unwrap_or(0))
        }
    };
    let heartbeat = context.watchdog.watch("http");
    std::thread::Builder::new().name("http".into()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(heartbeat.keep());
            let stop = context.stop.clone();
            // Outlives the requests, whose commands may still be on their way.
            let links = CancellationToken::new();
            let cache =
                Cache::start(&context.store, &context.loads, cluster, counters.clone(), links.clone());
            let page = Page::new();
            let counted = requests.clone();
            let admin = Admin {
                name,
                memcached_addr,
                context,
                cache,
                counters,
                exporter,
                requests,
                token,
                page,
                incidents: Incidents::default(),
            };
            let admin = Arc::new(admin);
            let kept_up = stop.clone().run_until_cancelled_owned(keep_up(admin.clone()));
            let watched = stop.clone().run_until_cancelled_owned(history::watch(admin.clone()));
            tokio::join!(listen::serve(listener, router(admin), counted, stop), kept_up, watched);
            links.cancel();
        });
    })
}

async fn keep_up(admin: Arc<Admin>) {
    let mut ticks = interval(KEEP_UP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // While a node starts, there is other work for its CPUs.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        admin.exporter.keep_up().await;
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/api/v1/items/{*key}", get(items::read).put(items::write).delete(items::remove))
        .route("/api/v1/owner/{*key}", get(cluster::owner))
        .route("/api/v1/cluster", get(cluster::show))
        .route("/api/v1/drain", post(drain::begin))
        .route("/api/v1/stats", get(stats::show))
        .route("/api/v1/history", get(history::show))
        .route("/api/v1/keys", get(keys::list))
        .route("/api/v1/groups", get(groups::list))
        .route("/api/v1/groups/{name}/flush", post(groups::flush))
        .fallback(async || {
            Problem::not_found("there is no such path; / and /api/v1/openapi.json show what there is")
        })
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn_with_state(admin.clone(), guard::admit))
        .with_state(admin)
}

async fn page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    admin.page.show()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], admin.exporter.render().await)
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("admin/openapi.json"))
}

impl Admin {
    /// What the threads of the node share, when it is in a cluster.
    fn cluster(&self) -> Option<&ClusterContext> {
        self.cache.cluster().map(|clustered| clustered.context())
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(self.context.store.clock().now(), &self.counters, 0)
    }
}
