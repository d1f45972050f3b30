//! The `filbert` command: reads its configuration, binds, sets the process up and runs a node.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use filbert::config::{self, ConfigError, Launch, Outcome};
use filbert::logs::{self, Format, Started, Target};
use filbert::process::rights::Rights;
use filbert::{local_cluster, node, process};
use tracing::{error, info, warn};

/// sysexits.h, EX_OSERR: what memcached exits with when it cannot listen or become a user.
const SYSTEM_REFUSED: u8 = 71;

fn main() -> ExitCode {
    let (args, environment): (Vec<_>, Vec<_>) =
        (std::env::args_os().collect(), std::env::vars_os().collect());
    match config::load(args.iter().cloned(), environment.iter().cloned()) {
        Ok(Outcome::Print(text)) => {
            // A reader that has seen enough (filbert -h | head) is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Launch(launch)) => {
            let rights = Rights::of(launch.process.user.as_deref());
            match rights.user_first(|| logs::start(&launch.logs)) {
                Ok(log) => run(*launch, &log, &rights),
                Err(error) => fail(&error, launch.logs.format, ExitCode::from(SYSTEM_REFUSED)),
            }
        }
        Ok(Outcome::LocalCluster(options)) => match local_cluster::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, ExitCode::FAILURE),
        },
        Ok(Outcome::DieWithParent(child)) => complain(&child.exec(), ExitCode::FAILURE),
        Err(refusal) => refuse(&refusal, config::log_format(&args, &environment)),
    }
}

fn complain(what: &dyn Display, code: ExitCode) -> ExitCode {
    logs::say(&format!("filbert: {what}"));
    code
}

/// Says why it does not start, to the person who typed it or to whoever collects the log.
fn refuse(refusal: &ConfigError, format: Format) -> ExitCode {
    fail(refusal, format, ExitCode::from(ConfigError::EXIT_CODE))
}

fn fail(why: &dyn Display, format: Format, code: ExitCode) -> ExitCode {
    let options = logs::Options { format, ..logs::Options::default() };
    match format {
        Format::Text => complain(why, code),
        Format::Json => match logs::start(&options) {
            Ok(_log) => {
                error!("{why}");
                code
            }
            Err(error) => complain(&error, code),
        },
    }
}

/// Runs a node until a signal stops it.
fn run(mut launch: Launch, log: &Started, rights: &Rights) -> ExitCode {
    (launch.node.log_lines, launch.node.log_writer) = (log.lines.clone(), log.writer.clone());
    for warning in &launch.warnings {
        warn!("{warning}");
    }
    let unix = launch.node.server.unix.clone();
    let sockets: Vec<&Path> = unix.iter().map(|unix| unix.path.as_path()).collect();

    // Bound as root, for low ports; in the foreground, so that what fails is seen; and before
    // there are threads, which going into the background would lose.
    let started = process::prepare(launch.process, rights).map_err(Failure::from).and_then(|prepared| {
        let bound = node::bind(&launch.node, rights)?;
        if let Some((uid, gid)) = prepared.user() {
            log.writer.give_to(uid, gid).map_err(Failure::LogFile)?;
        }
        // What waits would be written twice: by the process in the background, too.
        log.writer.flush(logs::FLUSH_PATIENCE);
        let pid_file_guard = prepared.apply(&sockets)?;
        log.writer.flow().map_err(node::Error::from)?;
        Ok((bound, pid_file_guard))
    });
    let (bound, pid_file_guard) = match started {
        Ok(started) => started,
        Err(failure) => {
            error!("{failure}");
            let code = ExitCode::from(SYSTEM_REFUSED);
            // Who has typed it looks at the terminal.
            return if launch.logs.target == Target::Stderr { code } else { complain(&failure, code) };
        }
    };
    info!("{} starts", config::version().trim_end());
    let ended = node::run(bound, launch.node);
    drop(pid_file_guard);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure}");
            match failure {
                node::Error::Snapshot(_) => ExitCode::from(SYSTEM_REFUSED),
                _ => ExitCode::FAILURE,
            }
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
    #[error("giving the log file to the user of -u: {0}")]
    LogFile(io::Error),
}
