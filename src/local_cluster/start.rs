//! What is to be started, and what is said when it cannot be.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// How long all of it may take to start.
pub(super) const START_LIMIT: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Nodes, at least one.
    pub nodes: u16,
    /// The first node's port for clients; the others' follow. A free one takes the place of one
    /// that is taken. 0: free ones for all.
    pub port: u16,
    /// What each node is told beside its addresses and its name.
    pub node_args: Vec<OsString>,
    /// Variables of the environment that the nodes must not see.
    pub hidden_variables: Vec<String>,
    /// Where the temporary directory is made.
    pub scratch: PathBuf,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no etcd on this machine.
    #[error("etcd is not on the PATH; on Debian and Ubuntu: apt-get install etcd-server")]
    NoEtcd,
    /// The system refused what is needed.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// etcd or a node ended before all was ready.
    #[error("{name} ended at start: {status}{said}")]
    Ended {
        /// Its name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it wrote, where that has not been shown already.
        said: String,
    },
    /// Something did not come about in time.
    #[error("not ready after {START_LIMIT:?}: {0}")]
    Late(String),
}

/// Writes a line to stderr, with whose it is before it.
pub(super) fn say(name: &str, line: &str) {
    // A terminal that is gone is no reason to stop what runs.
    _ = writeln!(io::stderr().lock(), "{name:<8} | {line}");
}

/// Turns what the system says into an error.
pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::System { what, error }
}
