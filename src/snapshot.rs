//! Warm restarts: a node that is alone writes its items to a file when it stops, and reads them back when it starts.
//!
//! A value that was overwritten or deleted must never come back. So a snapshot is written when nothing can be written
//! any more; it loses its name before the first client is served, so that a crash finds none; and what clients write
//! while it is read back wins ([`Store::expect_arrivals`](crate::store::Store::expect_arrivals)). What cannot be relied
//! on is a miss.

mod file;
mod format;
mod load;
mod save;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::unix_seconds;
use crate::snapshot::file::Found;
use crate::snapshot::save::Abandoned;
use crate::store::Store;

/// How often the end of reading is looked for.
const LOADED_POLL: Duration = Duration::from_millis(20);

/// Where a node keeps its items while it is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// An older one is not read: what it holds may have changed where it came from.
    pub max_age: Duration,
}

/// The snapshot cannot be used as it must be.
#[derive(Debug, thiserror::Error)]
#[error("--snapshot {0}: cannot write there: {1}")]
pub struct Error(PathBuf, #[source] io::Error);

impl Options {
    /// Opens the file that a process locks while it uses the snapshot.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn open_lock(&self) -> Result<File, Error> {
        file::open_lock(&self.path).map_err(|error| Error(self.path.clone(), error))
    }
}

/// A snapshot that no other process uses.
#[derive(Debug)]
pub struct Claim {
    options: Options,
    _lock: File,
}

impl Claim {
    /// Waits until no other process uses the snapshot: one that is being stopped may still write it.
    ///
    /// # Errors
    /// Another process goes on using it.
    pub fn new(options: &Options, lock: File) -> Result<Self, Error> {
        file::lock(&lock, &options.path).map_err(|error| Error(options.path.clone(), error))?;
        Ok(Self { options: options.clone(), _lock: lock })
    }
}

/// The snapshot of a node that runs.
#[derive(Debug)]
pub struct Snapshot {
    claim: Claim,
    loader: Option<Loader>,
}

/// The thread that reads.
#[derive(Debug)]
struct Loader {
    thread: JoinHandle<()>,
    /// To break it off.
    stop: Arc<AtomicBool>,
}

impl Snapshot {
    /// Takes the snapshot away from its name, if there is one that can be used, and begins to read it into the store. To
    /// be called before clients are served.
    ///
    /// # Errors
    /// It may still have its name. That it cannot be read is no error: it is moved aside, and the log says why.
    pub fn begin(claim: Claim, store: &Arc<Store>) -> Result<Self, Error> {
        let Options { path, max_age } = &claim.options;
        let error = |error| Error(path.clone(), error);
        let loader = match file::take(path, *max_age, unix_seconds()).map_err(error)? {
            Ok(None) => None,
            Ok(Some(found)) => Some(Loader::begin(found, path, store).map_err(error)?),
            Err(why) => {
                say_refused(path, &why);
                None
            }
        };
        Ok(Self { claim, loader })
    }

    /// Writes what the store holds, when nobody uses it any more; `is_abandoned` breaks off. No failure keeps a node
    /// from stopping: the log tells of it.
    pub fn end(self, store: &Store, is_abandoned: impl Fn() -> bool) {
        let path = &self.claim.options.path;
        if let Some(loader) = self.loader {
            // What it has not brought yet is not lost.
            loader.end(&is_abandoned);
        }
        match save::save(store, path, unix_seconds(), &is_abandoned) {
            Ok(Ok(saved)) => info!("snapshot {} written: {saved}", path.display()),
            Ok(Err(Abandoned)) => warn!("snapshot {} not written: told to stop at once", path.display()),
            Err(error) => warn!("snapshot {} not written: {error}", path.display()),
        }
    }
}

impl Loader {
    fn begin(found: Found, path: &Path, store: &Arc<Store>) -> io::Result<Self> {
        let (age, items) = (found.age, found.header.items);
        info!("snapshot {} of {age} s ago: reading {items} items back", path.display());
        store.raise_cas(found.header.cas);
        store.expect_arrivals();
        let since = store.clock().now();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, loaded_into, stopped) = (path.to_owned(), store.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            match load::load(&found, &loaded_into, since, &stopped) {
                Ok(loaded) => {
                    info!("snapshot {} read back: {loaded}", path.display());
                    found.remove();
                }
                Err(why) => say_refused(&path, &found.refuse(&path, why)),
            }
            loaded_into.end_arrivals();
        })?;
        Ok(Self { thread, stop })
    }

    /// Waits until everything is read, or `is_abandoned`.
    fn end(self, is_abandoned: &dyn Fn() -> bool) {
        while !self.thread.is_finished() {
            self.stop.store(is_abandoned(), Ordering::Relaxed);
            sleep(LOADED_POLL);
        }
        // A panic was logged when it happened.
        _ = self.thread.join();
    }
}

fn say_refused(path: &Path, why: &file::Refused) {
    warn!("snapshot {} not read: {why}", path.display());
}

#[cfg(test)]
mod tests;
