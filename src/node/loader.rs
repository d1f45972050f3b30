//! The thread that asks origins.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cache::Cache;
use crate::cache::clustered::ClusterContext;
use crate::cache::loads::{Started, runner};
use crate::groups::Group;
use crate::server::ServerContext;
use crate::stats::Counters;

/// How long an origin may take to be tried out.
const TRIAL_PATIENCE: Duration = Duration::from_secs(10);

/// The thread, and where groups go whose origins it is to try out: those that come at HUP, behind those of the start.
pub(super) struct Loader {
    pub(super) thread: JoinHandle<()>,
    pub(super) newcomers: mpsc::UnboundedSender<Arc<Group>>,
}

/// Runs loads until the node stops.
///
/// # Errors
/// The system refuses a thread.
pub(super) fn start(
    context: Arc<ServerContext>,
    cluster: Option<Arc<ClusterContext>>,
    started: mpsc::UnboundedReceiver<Started>,
) -> io::Result<Loader> {
    let (newcomers, coming) = mpsc::unbounded_channel();
    // The other end is here.
    context.loads.groups().iter().for_each(|group| _ = newcomers.send(group.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heartbeat = context.watchdog.watch("loader");
    let thread = std::thread::Builder::new().name("loader".into()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(heartbeat.keep());
            tokio::spawn(try_out_all(coming));
            let links = CancellationToken::new();
            // Reads that waited were counted when they came.
            let counters = Arc::<Counters>::default();
            let cache = Cache::start(&context.store, &context.loads, cluster, counters, links.clone());
            runner::run(context.loads.clone(), cache, started, context.stop.clone()).await;
            links.cancel();
        });
    })?;
    Ok(Loader { thread, newcomers })
}

/// Tries out the origins of groups as they come, each for itself.
async fn try_out_all(mut coming: mpsc::UnboundedReceiver<Arc<Group>>) {
    while let Some(group) = coming.recv().await {
        tokio::spawn(try_out(group));
    }
}

/// Warns of an origin that cannot be asked when its group comes.
async fn try_out(group: Arc<Group>) {
    let Some(origin) = &group.origin else { return };
    let why = match timeout(TRIAL_PATIENCE, origin.try_out()).await {
        Ok(Ok(())) => return,
        Ok(Err(failed)) => failed.to_string(),
        Err(_) => format!("no answer within {TRIAL_PATIENCE:?}"),
    };
    warn!(group = group.options.name, "the origin cannot be asked now: {why}");
}
