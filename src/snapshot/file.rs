//! The names that a snapshot has.
//!
//! | name | what it is |
//! |---|---|
//! | `FILE` | a whole snapshot, until the next start takes it |
//! | `FILE.tmp` | one that is being written |
//! | `FILE.loading` | one that is being read back; no start reads what has this name |
//! | `FILE.refused` | one that could not be used |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::snapshot::format::{HEADER_BYTES, Header, Malformed};

/// Values are for this user alone.
const MODE: u32 = 0o600;

/// A clock that was set back by less than this does not make a snapshot come from the future.
const CLOCK_SLACK: u64 = 60;

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

/// Finds out whether a snapshot could be written; leaves nothing.
pub(super) fn try_to_write(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    drop(create(path)?);
    fs::remove_file(temporary(path))
}

/// A new file that [`publish`] gives the name.
pub(super) fn create(path: &Path) -> io::Result<File> {
    // What another run has left there may be readable for others.
    match fs::remove_file(temporary(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
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
/// It cannot be used, and was moved aside.
pub(super) fn take(path: &Path, max_age: Duration, now: u64) -> Result<Option<Found>, Refused> {
    let name = with_suffix(path, "loading");
    let refuse = |why: Why| Refused { why, moved: move_aside(&name, path) };
    // Of a start that was cut off: clients may have written since.
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Refused { why: error.into(), moved: None });
        }
        _ => {}
    }
    match fs::rename(path, &name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Refused { why: error.into(), moved: None }),
        Ok(()) => {}
    }
    look(&name, path, max_age, now).map(Some).map_err(refuse)
}

/// Reads what a snapshot says of itself, and whether that is acceptable.
fn look(name: &Path, path: &Path, max_age: Duration, now: u64) -> Result<Found, Why> {
    sync_directory(path)?;
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

/// Puts changes of names on the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
