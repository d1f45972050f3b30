//! Builds every room of a node once, and starts and stops it: wiring only.

mod bound;
mod cluster;
mod loader;
mod mover;
mod options;
mod running;
mod sweeper;

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use bound::{Bound, bind};
pub use options::{ClusterOptions, Error, GroupsOptions, Options, ReadGroups};

use crate::node::running::Running;
use crate::process::signals;

/// A second signal to stop that comes earlier is the same one, from a terminal and a supervisor, or from both ways to stop.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Runs a node until INT, TERM or USR1, or a `shutdown` command. HUP reloads certificates and
/// users.
///
/// # Errors
/// The system refuses something that a node needs.
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

    let log_writer = options.log_writer.clone();
    let mut running = Running::start(bound, options)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = graceful.recv() => break,
            () = running.context.leave.cancelled() => break,
            _ = reload.recv() => {
                log_writer.reopen();
                let mut problems = running.context.reload();
                problems.extend(running.reload_groups().err());
                problems.iter().for_each(|problem| warn!("not reloaded: {problem}"));
                if problems.is_empty() {
                    info!("reloaded");
                }
            }
            Some(ended) = running.acceptors.join_next() => {
                ended.map_err(io::Error::other)??;
            }
        }
    }

    running.context.leave.cancel();
    info!("stopping");
    let (at_once, began) = (CancellationToken::new(), Instant::now());
    let mut stopping = std::pin::pin!(running.stop(&at_once));
    loop {
        tokio::select! {
            () = &mut stopping => return Ok(()),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if began.elapsed() >= IMPATIENCE {
            at_once.cancel();
        }
    }
}
