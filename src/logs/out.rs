//! Where lines end up: stderr, a file, or the system's log.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};
use nix::unistd::{self, Gid, Uid};
use tracing::Level;

use crate::logs::target::{Error, Target};

/// Lines are written together up to this size: pipe(7), `PIPE_BUF`, what a pipe takes whole, and
/// without blocking once it is ready.
pub(super) const PIECE_BYTES: usize = 4096;

/// syslog(3)'s own socket.
const SYSLOG: &str = "/dev/log";

/// How the system's log calls us.
const IDENT: &std::ffi::CStr = c"filbert";

/// An open end of the log.
pub(super) struct Out {
    end: End,
    /// The last line was written in part.
    torn: bool,
    /// Lines that could not be written, and that no line has told of.
    pub unsaid: u64,
}

enum End {
    Stderr(io::Stderr),
    File {
        path: PathBuf,
        file: File,
        /// Whether it was not there before.
        is_new: bool,
    },
    Syslog,
}

impl Out {
    /// # Errors
    /// The file cannot be opened, or nobody takes messages to the system's log.
    pub fn open(target: &Target) -> Result<Self, Error> {
        let end = match target {
            Target::Stderr => End::Stderr(io::stderr()),
            Target::File(path) => {
                let (file, is_new) = open(path).map_err(|error| Error::File { path: path.clone(), error })?;
                End::File { path: path.clone(), file, is_new }
            }
            Target::Syslog => {
                // syslog(3) would say nothing of it.
                UnixDatagram::unbound().and_then(|socket| socket.connect(SYSLOG)).map_err(Error::Syslog)?;
                openlog(Some(IDENT), LogFlags::LOG_PID | LogFlags::LOG_NDELAY, Facility::LOG_DAEMON)
                    .map_err(|errno| Error::Syslog(errno.into()))?;
                End::Syslog
            }
        };
        Ok(Self { end, torn: false, unsaid: 0 })
    }

    /// Makes a user the owner of a file that was made here. One that was there is left alone:
    /// where others may write to its folder, its name may lead anywhere.
    pub fn give_to(&self, uid: Uid, gid: Gid) -> io::Result<()> {
        match &self.end {
            End::File { file, is_new: true, .. } if file.metadata()?.uid() != uid.as_raw() => {
                Ok(unistd::fchown(file, Some(uid), Some(gid))?)
            }
            _ => Ok(()),
        }
    }

    /// Opens a file again; `false` when the target is not a file.
    ///
    /// # Errors
    /// Says which file, and why; the old one stays open.
    pub fn reopen(&mut self) -> Result<bool, String> {
        let End::File { path, file, .. } = &mut self.end else { return Ok(false) };
        *file = open(path).map_err(|error| format!("{}: {error}", path.display()))?.0;
        self.torn = false;
        Ok(true)
    }

    /// Whether a piece can be written without waiting, within this time.
    pub fn is_ready(&self, patience: Duration) -> bool {
        match self.fd() {
            // A datagram; what takes those rarely stops.
            None => true,
            Some(fd) => wait_for_room(fd, Some(patience)),
        }
    }

    /// Writes lines, waiting for room until then, or without a limit; returns how many were not written to their end.
    pub fn write(&mut self, lines: &[(Level, String)], until: Option<Instant>) -> u64 {
        if matches!(self.end, End::Syslog) {
            return lines.iter().filter(|(level, text)| !tell_syslog(*level, text)).count() as u64;
        }
        let mut piece = String::from(if self.torn { "\n" } else { "" });
        lines.iter().for_each(|(_, text)| piece.push_str(text));
        let mut rest = piece.as_bytes();
        while !rest.is_empty() {
            let Some(fd) = self.fd() else { break };
            let part = &rest[..rest.len().min(PIECE_BYTES)];
            match unistd::write(fd, part) {
                Ok(0) => break,
                Ok(written) => {
                    self.torn = rest[..written].last().map_or(self.torn, |&byte| byte != b'\n');
                    rest = &rest[written..];
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
                    if !wait_for_room(fd, patience) && patience.is_some() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        rest.iter().filter(|&&byte| byte == b'\n').count() as u64
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.end {
            End::Stderr(stderr) => Some(stderr.as_fd()),
            End::File { file, .. } => Some(file.as_fd()),
            End::Syslog => None,
        }
    }
}

/// Opens a log file; says whether it is new. A pipe without a reader is an error, instead of
/// being waited for.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let mut options = OpenOptions::new();
    options.append(true).mode(0o640).custom_flags(flags);
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok((options.create(true).open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Waits for room for a piece, for the given time or without a limit. A reader that is gone counts as room: the write
/// then reports it.
fn wait_for_room(fd: BorrowedFd<'_>, patience: Option<Duration>) -> bool {
    let timeout = patience
        .map_or(PollTimeout::NONE, |patience| PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX));
    poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout).is_ok_and(|ready| ready > 0)
}

/// Hands a line to the system's log, which adds the moment and the process itself.
fn tell_syslog(level: Level, text: &str) -> bool {
    let severity = match level {
        Level::ERROR => Severity::LOG_ERR,
        Level::WARN => Severity::LOG_WARNING,
        Level::INFO => Severity::LOG_INFO,
        _ => Severity::LOG_DEBUG,
    };
    let bare = if text.starts_with('{') { text } else { text.split_once(' ').map_or(text, |(_, rest)| rest) };
    syslog(Priority::new(severity, Facility::LOG_DAEMON), bare.trim()).is_ok()
}
