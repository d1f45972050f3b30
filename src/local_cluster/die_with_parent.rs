//! Processes that end when the one that started them does, even by `kill -9`.
//!
//! The kernel does that for a process that asks for it itself (`PR_SET_PDEATHSIG`) and keeps the
//! promise when the process becomes another program. So a child is first this executable, which
//! asks, and then becomes what is wanted.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::Command;

/// The first word of a command line that means [`DieWithParent::exec`].
pub const WORD: &str = "local-cluster-child";

/// What a child is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DieWithParent {
    /// The process that it is to end with.
    pub parent: u32,
    /// The program that it becomes, and its arguments.
    pub command: Vec<OsString>,
}

/// A command that becomes `program` with the arguments that are added and dies with the calling thread:
/// it must start it, and stay for as long.
pub(super) fn command(program: &OsStr) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(WORD).arg(std::process::id().to_string()).arg(program);
    Ok(command)
}

impl DieWithParent {
    /// Becomes the program.
    ///
    /// # Errors
    /// Returns only if that fails, or if the parent is gone.
    pub fn exec(self) -> io::Error {
        if let Err(error) = end_with_parent() {
            return error;
        }
        // It may have ended before the kernel was asked.
        if parent_id() != self.parent {
            return io::Error::other("the process that started this one is gone");
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return io::Error::other("no program is given");
        };
        let error = Command::new(program).args(arguments).exec();
        io::Error::new(error.kind(), format!("{}: {error}", program.display()))
    }
}

#[cfg(target_os = "linux")]
fn end_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

/// Other systems have no such signal: there only an orderly end of the parent takes the children
/// along.
#[cfg(not(target_os = "linux"))]
fn end_with_parent() -> io::Result<()> {
    Ok(())
}
