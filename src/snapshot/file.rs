//! The names that a snapshot has.
//!
//! | name | what it is |
//! |---|---|
//! | `FILE` | a whole snapshot, until the next start takes it |
//! | `FILE.tmp` | one that is being written |
//! | `FILE.loading` | one that is being read back; no start reads what has this name |
//! | `FILE.refused` | one that could not be used |
//! | `FILE.lock` | empty, and locked by the process that uses these names |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use tracing::info;

use crate::snapshot::format::{HEADER_BYTES, Header, Malformed};

/// Values are for this user alone.
const MODE: u32 = 0o600;

/// A clock that was set back by less than this does not make a snapshot come from the future.
const CLOCK_SLACK: u64 = 60;

/// How long a start waits for a process that is still writing: clients may take five seconds to leave it, and a gigabyte
/// takes a few more.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

const LOCK_POLL: Duration = Duration::from_millis(20);

/// A snapshot that has lost its name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) header: Header,
    /// Seconds since it was written.
    pub(super) age: u64,
    name: PathBuf,
}

/// A snapshot that is not used: why, and where it is now.
#[derive(Debug, thiserror::Error)]
#[error("{why}{}", aside(moved))]
pub(super) struct Refused {
    #[source]
    why: Why,
    moved: Option<PathBuf>,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it is {age} s old, and --snapshot-max-age is {max} s")]
    TooOld { age: u64, max: u64 },
    #[error("it comes from the future, by {0} s: a clock is wrong")]
    Future(u64),
    #[error("it belongs to another user")]
    Owner,
    #[error("it is no file")]
    Kind,
    #[error("told to stop at once")]
    Abandoned,
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn aside(moved: &Option<PathBuf>) -> String {
    moved.as_ref().map_or_else(String::new, |moved| format!("; it is now {}", moved.display()))
}

impl Found {
    /// It was read, and is not needed any more.
    pub(super) fn remove(&self) {
        // The next start does.
        _ = fs::remove_file(&self.name);
    }

    /// It cannot be used after all.
    pub(super) fn refuse(&self, path: &Path, why: Why) -> Refused {
        Refused { why, moved: move_aside(&self.name, path) }
    }
}

/// Opens the file that is locked, in a directory whose names can be changed.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut options = OpenOptions::new();
    let lock = options.write(true).create(true).truncate(false).mode(MODE).open(with_suffix(path, "lock"))?;
    sync_directory(path)?;
    Ok(lock)
}

/// Waits until no other process has the lock.
pub(super) fn lock(file: &File, path: &Path) -> io::Result<()> {
    let until = Instant::now() + LOCK_PATIENCE;
    let mut is_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(io::Error::other("another process uses it"));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !std::mem::replace(&mut is_told, true) {
            info!("snapshot {}: another process still uses it, waiting", path.display());
        }
        sleep(LOCK_POLL);
    }
}

/// A new file that [`publish`] gives the name.
pub(super) fn create(path: &Path) -> io::Result<File> {
    // What another run has left there may be readable for others.
    remove(&temporary(path))?;
    OpenOptions::new().write(true).read(true).create_new(true).mode(MODE).open(temporary(path))
}

/// Gives what was written the name, once all of it is on the disk.
pub(super) fn publish(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(temporary(path), path)?;
    sync_directory(path)
}

/// Removes what was being written.
pub(super) fn abandon(path: &Path) {
    // It is overwritten by the next one.
    _ = fs::remove_file(temporary(path));
}

/// Takes the name from the snapshot, on the disk as well; `None` where there is none. `now` is Unix time.
///
/// # Errors
/// The outer one: it may still have its name, so that nobody may be served. The inner one: it cannot be used, and was
/// moved aside.
pub(super) fn take(path: &Path, max_age: Duration, now: u64) -> io::Result<Result<Option<Found>, Refused>> {
    let name = with_suffix(path, "loading");
    // Of a start that was cut off: clients may have written since.
    remove(&name)?;
    match fs::rename(path, &name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        renamed => renamed?,
    }
    sync_directory(path)?;
    let refuse = |why: Why| Refused { why, moved: move_aside(&name, path) };
    Ok(look(&name, max_age, now).map(Some).map_err(refuse))
}

/// Reads what a snapshot says of itself, and whether that is acceptable.
fn look(name: &Path, max_age: Duration, now: u64) -> Result<Found, Why> {
    let facts = fs::symlink_metadata(name)?;
    if !facts.is_file() {
        return Err(Why::Kind);
    }
    if facts.uid() != Uid::effective().as_raw() {
        return Err(Why::Owner);
    }
    let mut file = File::open(name)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Why::Malformed(Malformed::Magic),
        _ => error.into(),
    })?;
    let header = Header::decode(&header)?;
    let (age, max) = (now.saturating_sub(header.written), max_age.as_secs());
    if header.written > now + CLOCK_SLACK {
        return Err(Why::Future(header.written - now));
    }
    if age > max {
        return Err(Why::TooOld { age, max });
    }
    Ok(Found { file, header, age, name: name.to_owned() })
}

fn temporary(path: &Path) -> PathBuf {
    with_suffix(path, "tmp")
}

/// Where it is then, if it could be moved.
fn move_aside(name: &Path, path: &Path) -> Option<PathBuf> {
    let refused = with_suffix(path, "refused");
    fs::rename(name, &refused).ok().map(|()| refused)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    name.into()
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts changes of names on the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
