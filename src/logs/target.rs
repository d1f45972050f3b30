//! Where lines are to go.

use std::io;
use std::path::PathBuf;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// To standard error.
    #[default]
    Stderr,
    /// To the end of a file, which is made when it is missing.
    File(PathBuf),
    /// To the system's log: syslogd's, or the journal.
    Syslog,
}

/// Why nothing can be logged where it was to be. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be written.
    #[error("--log-file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Nobody takes messages to the system's log.
    #[error("--log-syslog: no system log at /dev/log: {0}")]
    Syslog(io::Error),
}
