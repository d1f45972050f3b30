//! The thread that takes over items of this node's new slots.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cache::clustered::ClusterContext;
use crate::cache::moves::{Waiting, mover};
use crate::server::ServerContext;

/// Moves items until `stop` is cancelled.
///
/// # Errors
/// The system refuses a thread.
pub(super) fn start(
    context: &ServerContext,
    cluster: Arc<ClusterContext>,
    waiting: mpsc::Receiver<Waiting>,
    bytes_per_second: u64,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heartbeat = context.watchdog.watch("mover");
    let (store, loads, counters) = (context.store.clone(), context.loads.clone(), context.registry.block());
    std::thread::Builder::new().name("mover".into()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(heartbeat.keep());
            let cache = Cache::start(&store, &loads, Some(cluster), counters, stop.clone());
            if let Some(clustered) = cache.cluster() {
                let moved = mover::run(clustered.clone(), waiting, bytes_per_second);
                stop.run_until_cancelled(moved).await;
            }
        });
    })
}
