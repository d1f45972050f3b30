//! The pid file (`-P`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tracing::warn;

use crate::process::rights::Rights;

/// The file that names this process, there as long as this is.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Written to under another name and moved, so that nobody reads an empty file.
    temporary: PathBuf,
    file: File,
    rights: Rights,
}

/// Why it cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("-P {}: {error}", path.display())]
pub(super) struct Error {
    path: PathBuf,
    error: io::Error,
}

impl PidFile {
    /// Finds out whether it can be written, while there is somebody to tell.
    pub fn open(path: PathBuf, rights: Rights) -> Result<Self, Error> {
        if let Some(other) = running(&path) {
            warn!("the pid file {} names a process that runs: {other}", path.display());
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let opened = rights.root_first(|| {
            // What a start that was killed left. A new file is asked for, so that root follows no
            // link that somebody else put there.
            let _ = fs::remove_file(&temporary);
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)
        });
        match opened {
            Ok(file) => Ok(Self { path, temporary, file, rights }),
            Err(error) => Err(Error { path, error }),
        }
    }

    /// Writes the id of the process as it is now.
    pub fn write(&self) -> Result<(), Error> {
        let line = format!("{}\n", std::process::id());
        self.file
            .write_all_at(line.as_bytes(), 0)
            .and_then(|()| self.rights.root_first(|| fs::rename(&self.temporary, &self.path)))
            .map_err(|error| Error { path: self.path.clone(), error })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone unless the start failed.
        if self.temporary.exists() {
            let _ = self.rights.root_first(|| fs::remove_file(&self.temporary));
        }
        // A file that another process has put its own id into since is that one's.
        if read_pid(&self.path) != Some(Pid::this()) {
            return;
        }
        if let Err(error) = self.rights.root_first(|| fs::remove_file(&self.path)) {
            warn!("cannot remove the pid file {}: {error}", self.path.display());
        }
    }
}

fn read_pid(path: &Path) -> Option<Pid> {
    let number = fs::read_to_string(path).ok()?.trim().parse::<i32>().ok()?;
    // 0 and below mean groups of processes to kill().
    (number > 0).then(|| Pid::from_raw(number))
}

/// The process that a pid file names, if that runs and is not this one: in a container, the
/// process before this had the same number.
fn running(path: &Path) -> Option<Pid> {
    let pid = read_pid(path).filter(|pid| *pid != Pid::this())?;
    match kill(pid, None) {
        // Another user's process runs all the same.
        Ok(()) | Err(Errno::EPERM) => Some(pid),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_start_that_fails_leaves_no_file() {
        let folder = folder();
        fs::write(folder.path().join("pid.tmp"), "left over").expect("written");
        drop(PidFile::open(folder.path().join("pid"), Rights::default()).expect("writable"));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn another_process_keeps_its_pid_file() {
        let path = folder().path().join("pid");
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        let file = PidFile::open(path.clone(), Rights::default()).expect("writable");
        file.write().expect("writable");
        fs::write(&path, "1\n").expect("written");
        drop(file);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "1\n");
        fs::remove_dir_all(path.parent().expect("a parent")).expect("removed");
    }

    #[test]
    fn a_pid_file_that_cannot_be_written_is_named() {
        let path = "/nowhere/filbert.pid".into();
        let error = PidFile::open(path, Rights::default()).expect_err("no folder").to_string();
        assert!(error.starts_with("-P /nowhere/filbert.pid: No such file"), "{error}");
    }

    #[test]
    fn a_process_that_runs_is_told_from_one_that_does_not() {
        let folder = folder();
        let path = folder.path().join("pid");
        for (text, expected) in
            [("1", Some(1)), ("0", None), ("-1", None), ("me", None), ("2147483647", None)]
        {
            fs::write(&path, text).expect("written");
            assert_eq!(running(&path).map(Pid::as_raw), expected, "{text}");
        }
        fs::write(&path, std::process::id().to_string()).expect("written");
        assert_eq!(running(&path), None, "this process itself");
    }
}
