//! The signals of a node, between the moment that others learn of the process and the moment that
//! it listens to them.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

/// Keeps the signals of a node waiting, in this thread and those it starts. Called before a port file or pid file tells
/// others which process to signal: TERM would end the process on the spot, and leave the files behind.
///
/// # Errors
///
/// The system refuses, which it has no reason to.
pub fn hold() -> Result<(), Errno> {
    all().thread_block()
}

/// Takes the signals again, those that waited at once. Called when each has its handler, in the
/// thread that called [`hold`], before it starts others.
///
/// # Errors
///
/// As [`hold`].
pub fn release() -> Result<(), Errno> {
    all().thread_unblock()
}

fn all() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGHUP].into_iter().collect()
}
