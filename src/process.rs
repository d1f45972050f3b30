//! The process around a node: its file limit, the background, its pid file, its user.
//!
//! In two steps, because the listeners are bound between them. [`prepare`] does all that can go
//! wrong while there is still somebody in front of the terminal; [`Prepared::apply`] goes into
//! the background, writes the pid file and gives root away. Both must run before any thread is
//! started: going into the background keeps the calling thread only, and the other threads
//! would keep root.

use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{self, Gid, Uid, User};
use tracing::warn;

pub mod memory;
mod pid_file;
pub mod rights;
pub mod signals;

use crate::process::pid_file::PidFile;
use crate::process::rights::{Rights, is_root};

/// How the process runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run in the background (`-d`).
    pub daemon: bool,
    /// Whether a process in the background still writes to the terminal it came from (`-v`;
    /// memcached.c: `daemonize(maxcore, settings.verbose)`).
    pub keep_output: bool,
    /// Where to write the process id (`-P`).
    pub pid_file: Option<PathBuf>,
    /// The user to run as, when started as root (`-u`).
    pub user: Option<String>,
    /// Client connections that the file limit has to allow (`-c`).
    pub connections: u64,
    /// Files that connections between nodes need at least, and that they can use at most.
    pub peer_files: Option<RangeInclusive<u64>>,
}

/// Files that are open beside those of clients and other nodes: listeners, what the runtime waits
/// with, logs, certificates while they are read, connections to etcd and of HTTP.
const OTHER_FILES: u64 = 192;

/// Why the process cannot run as told. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system allows fewer open files than there may be clients.
    #[error(
        "-c {connections} needs as many open files, and the system allows {allowed}: raise the limit (ulimit -n, LimitNOFILE=), start as root, or lower -c"
    )]
    FileLimit {
        /// Client connections wanted.
        connections: u64,
        /// Open files allowed.
        allowed: u64,
    },
    /// There is no such user.
    #[error("-u {0}: there is no such user")]
    NoSuchUser(String),
    /// A call to the system failed.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: String,
        /// What the system says.
        error: Errno,
    },
}

/// A process that has what it needs, and is still in the foreground and still root.
#[derive(Debug)]
pub struct Prepared {
    daemon: bool,
    keep_output: bool,
    pid_file: Option<PidFile>,
    user: Option<User>,
    rights: Rights,
}

/// The pid file, if there is one. Dropping this removes it.
#[derive(Debug)]
#[must_use = "dropping it removes the pid file"]
pub struct PidFileGuard {
    _pid_file: Option<PidFile>,
}

/// Raises the file limit, looks the user up and opens the pid file. One that cannot be written is
/// only warned of (memcached util.c, `save_pid`).
///
/// # Errors
///
/// A limit that cannot be raised far enough, an unknown user.
pub fn prepare(options: Options, rights: &Rights) -> Result<Prepared, Error> {
    allow_files(options.connections, options.peer_files.unwrap_or(0..=0))?;
    let user = whom_to_run_as(options.user)?;
    let pid_file = options.pid_file.map(|path| PidFile::open(path, rights.clone()));
    let pid_file = pid_file.and_then(|opened| opened.inspect_err(|error| warn!("{error}")).ok());
    let Options { daemon, keep_output, .. } = options;
    Ok(Prepared { daemon, keep_output, pid_file, user, rights: rights.clone() })
}

impl Prepared {
    /// The user and group that the process will be given to.
    pub fn user(&self) -> Option<(Uid, Gid)> {
        self.user.as_ref().map(|user| (user.uid, user.gid))
    }

    /// Goes into the background, writes the pid file and gives root away. `sockets` are unix
    /// sockets that were bound as root, and go to the user with the rest.
    ///
    /// The parent of a process that goes into the background exits here, with 0.
    ///
    /// # Errors
    ///
    /// Calls that the system refuses.
    pub fn apply(self, sockets: &[&Path]) -> Result<PidFileGuard, Error> {
        if let Some(user) = &self.user {
            give_away(sockets, user, &self.rights)?;
        }
        if self.daemon {
            go_into_background(self.keep_output)?;
        }
        // Before root is given away: only root may write to /run, where pid files go.
        if let Some(Err(error)) = self.pid_file.as_ref().map(PidFile::write) {
            warn!("{error}");
        }
        if let Some(user) = &self.user {
            become_user(user)?;
        }
        Ok(PidFileGuard { _pid_file: self.pid_file })
    }
}

/// Says what would be warned of at a start, and changes nothing.
///
/// # Errors
///
/// An unknown user.
pub fn check(options: &Options) -> Result<Option<String>, Error> {
    match &options.user {
        Some(name) if is_root() => look_up(name).map(|_| None),
        Some(name) => Ok(Some(user_without_effect(name))),
        None => Ok(None),
    }
}

/// Raises the limit of open files to what `connections` clients need, and other nodes besides.
fn allow_files(connections: u64, peers: RangeInclusive<u64>) -> Result<(), Error> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("reading the limit of open files"))?;
    let beside = connections.saturating_add(OTHER_FILES);
    let (needed, wanted) = (beside.saturating_add(*peers.start()), beside.saturating_add(*peers.end()));
    if soft >= wanted {
        return Ok(());
    }
    // Only root may raise the hard limit; to try is how to find out.
    let raise = |to: u64| setrlimit(Resource::RLIMIT_NOFILE, to, hard.max(to)).is_ok();
    if raise(wanted) || hard < needed && raise(needed) {
        return Ok(());
    }
    let allowed = hard.min(wanted);
    setrlimit(Resource::RLIMIT_NOFILE, allowed, hard).map_err(failed("raising the limit of open files"))?;
    if allowed < connections {
        return Err(Error::FileLimit { connections, allowed });
    }
    // memcached asks for as many files as clients and no more, so that what starts there starts
    // here.
    if allowed < needed {
        let others = if *peers.end() > 0 { " and other nodes" } else { "" };
        warn!(
            "the system allows {allowed} open files: with -c {connections} the last few clients{others} may be refused"
        );
    }
    Ok(())
}

/// Open files that the limit leaves beside those of the given number of clients and the usual ones.
pub fn files_beside(connections: u64) -> u64 {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    allowed.saturating_sub(connections.saturating_add(OTHER_FILES))
}

/// The user of `-u`, where there is root to give away.
fn whom_to_run_as(name: Option<String>) -> Result<Option<User>, Error> {
    match name {
        Some(name) if is_root() => look_up(&name).map(Some),
        Some(name) => {
            warn!("{}", user_without_effect(&name));
            Ok(None)
        }
        None => {
            // memcached refuses here. Containers and first tries run as root, and ought to work.
            if is_root() {
                warn!("running as root: give a user to run as with -u");
            }
            Ok(None)
        }
    }
}

fn look_up(name: &str) -> Result<User, Error> {
    let user = User::from_name(name).map_err(failed("looking the user of -u up"))?;
    user.ok_or_else(|| Error::NoSuchUser(name.to_owned()))
}

/// "only when run as root" (memcached.c, usage).
fn user_without_effect(name: &str) -> String {
    format!("-u {name} has no effect: only root can become another user")
}

#[cfg(not(target_vendor = "apple"))]
fn go_into_background(keep_output: bool) -> Result<(), Error> {
    // To / as memcached does, so that no mounted directory is held; config made the paths
    // absolute.
    unistd::daemon(false, keep_output).map_err(failed("going into the background (-d)"))
}

#[cfg(target_vendor = "apple")]
fn go_into_background(_keep_output: bool) -> Result<(), Error> {
    Err(failed("going into the background (-d), which launchd does better")(Errno::ENOTSUP))
}

/// Makes `user` the owner of unix sockets that were bound as root.
fn give_away(sockets: &[&Path], user: &User, rights: &Rights) -> Result<(), Error> {
    for socket in sockets {
        let give = || match std::fs::metadata(socket) {
            // Made as the user, where only that one may.
            Ok(file) if file.uid() == user.uid.as_raw() => Ok(()),
            _ => unistd::chown(*socket, Some(user.uid), Some(user.gid)),
        };
        rights.root_first(give).map_err(failed(&format!("giving {} to the user of -u", socket.display())))?;
    }
    Ok(())
}

/// Becomes `user` for good.
fn become_user(user: &User) -> Result<(), Error> {
    let what = format!("becoming the user {}", user.name);
    // The groups first: a user who is not root may not change them.
    match set_groups(user) {
        // There is less to give away than root has, as in a container: memcached goes on too.
        Err(Errno::EPERM) => warn!("{what}: the system keeps this process's groups"),
        result => result.map_err(failed(&what))?,
    }
    unistd::setgid(user.gid).map_err(failed(&what))?;
    unistd::setuid(user.uid).map_err(failed(&what))
}

#[cfg(not(target_vendor = "apple"))]
fn set_groups(user: &User) -> Result<(), Errno> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    unistd::initgroups(&name, user.gid)
}

#[cfg(target_vendor = "apple")]
fn set_groups(_user: &User) -> Result<(), Errno> {
    Ok(())
}

fn failed(what: &str) -> impl FnOnce(Errno) -> Error {
    let what = what.to_owned();
    move |error| Error::System { what, error }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn the_pid_file_is_there_while_the_process_is() {
        let folder = folder();
        let path = folder.path().join("pid");
        let options = Options { pid_file: Some(path.clone()), connections: 1, ..Options::default() };
        let prepared = prepare(options, &Rights::default()).expect("possible");
        assert!(!path.exists(), "not before the process has its final id");

        let pid_file_guard = prepared.apply(&[]).expect("nothing to change");
        let text = fs::read_to_string(&path).expect("written");
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(pid_file_guard);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing is left");
    }

    #[test]
    fn users_are_looked_up_where_they_matter() {
        let user = whom_to_run_as(Some("no-such-user-here".into()));
        if Uid::effective().is_root() {
            assert_eq!(user.expect_err("unknown").to_string(), "-u no-such-user-here: there is no such user");
            let root = whom_to_run_as(Some("root".into())).expect("known").expect("looked up");
            assert!(root.uid.is_root());
        } else {
            assert!(user.expect("only warned of").is_none());
        }
        assert!(whom_to_run_as(None).expect("allowed").is_none());
    }

    #[test]
    fn a_file_limit_that_cannot_be_had_is_an_error() {
        // More than the kernel's fs.nr_open allows anybody, root too.
        let error = allow_files(1 << 40, 0..=0).expect_err("too many").to_string();
        assert!(
            error.starts_with("-c 1099511627776 needs as many open files, and the system allows "),
            "{error}"
        );
        allow_files(1, 0..=0).expect("few enough");
    }
}
