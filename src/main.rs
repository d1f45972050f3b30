//! The `filbert` command: reads its configuration, binds, settles the process and runs a node.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use filbert::config::{self, Launch, Outcome, Refusal};
use filbert::{local_cluster, node, process};
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// sysexits.h, EX_OSERR: what memcached exits with when it cannot listen or become a user.
const SYSTEM_REFUSED: u8 = 71;

fn main() -> ExitCode {
    match config::load(std::env::args_os(), std::env::vars_os()) {
        Ok(Outcome::Print(text)) => {
            // A reader that has seen enough (filbert -h | head) is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Launch(launch)) => {
            log_to_stderr(launch.node.server.verbosity);
            run(*launch)
        }
        Ok(Outcome::LocalCluster(options)) => match local_cluster::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, ExitCode::FAILURE),
        },
        Ok(Outcome::Tether(tether)) => complain(&tether.tie(), ExitCode::FAILURE),
        Err(refusal) => complain(&refusal, ExitCode::from(Refusal::EXIT_CODE)),
    }
}

fn complain(what: &dyn Display, code: ExitCode) -> ExitCode {
    let _ = writeln!(io::stderr(), "filbert: {what}");
    code
}

/// Runs a node until a signal stops it.
fn run(launch: Launch) -> ExitCode {
    for warning in &launch.warnings {
        warn!("{warning}");
    }
    let unix = launch.node.server.unix.clone();
    let sockets: Vec<&Path> = unix.iter().map(|unix| unix.path.as_path()).collect();

    // Bound as root, for low ports; in the foreground, so that what fails is seen; and before
    // there are threads, which going into the background would lose.
    let started = process::prepare(launch.process).map_err(Failure::from).and_then(|prepared| {
        let bound = node::bind(&launch.node)?;
        Ok((bound, prepared.settle(&sockets)?))
    });
    let (bound, settled) = match started {
        Ok(started) => started,
        Err(failure) => {
            error!("{failure}");
            return ExitCode::from(SYSTEM_REFUSED);
        }
    };
    info!("{} starts", config::version().trim_end());
    let ended = node::run(bound, launch.node);
    drop(settled);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why a node did not get as far as running.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
}

/// Logs to stderr: what an operator should know always, more with each -v.
fn log_to_stderr(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // What the libraries do is nobody's business, unless something is wrong.
    let ours = Targets::new().with_target("filbert", level).with_default(LevelFilter::WARN);
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(io::stderr);
    tracing_subscriber::registry().with(lines).with(ours).init();
}
