//! The thread that asks origins.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cache::clustered::ClusterContext;
use crate::cache::loads::{Started, runner};
use crate::server::ServerContext;
use crate::stats::Counters;

/// Runs loads until the node stops.
///
/// # Errors
/// The system refuses a thread.
pub(super) fn start(
    context: Arc<ServerContext>,
    cluster: Option<Arc<ClusterContext>>,
    started: mpsc::UnboundedReceiver<Started>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heartbeat = context.watchdog.watch("loader");
    std::thread::Builder::new().name("loader".into()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(heartbeat.keep());
            let links = CancellationToken::new();
            // Reads that waited were counted when they came.
            let counters = Arc::<Counters>::default();
            let cache = Cache::start(&context.store, &context.loads, cluster, counters, links.clone());
            runner::run(context.loads.clone(), cache, started, context.stop.clone()).await;
            links.cancel();
        });
    })
}
