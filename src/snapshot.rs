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

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{info, warn};

use crate::snapshot::file::Found;
use crate::snapshot::save::Abandoned;
use crate::store::Store;

/// Where a node keeps its items while it is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// An older one is not read: what it holds may have changed where it came from.
    pub max_age: Duration,
}

/// The directory of the snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--snapshot {0}: cannot write there: {1}")]
pub struct Error(PathBuf, #[source] io::Error);

/// The snapshot of a node that runs.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    loader: Option<JoinHandle<()>>,
}

impl Snapshot {
    /// Takes the snapshot away from its name, if there is one that can be used, and begins to read it into the store. To
    /// be called before clients are served.
    ///
    /// # Errors
    /// No snapshot could be written when the node stops. That one cannot be read is no error: it is moved aside, and the
    /// log says why.
    pub fn begin(options: &Options, store: &Arc<Store>) -> Result<Self, Error> {
        let Options { path, max_age } = options;
        file::try_to_write(path).map_err(|error| Error(path.clone(), error))?;
        let now = store.clock().unix(store.clock().now());
        let loader = match file::take(path, *max_age, now) {
            Ok(None) => None,
            Ok(Some(found)) => Some(begin_loading(found, path, store).map_err(|e| Error(path.clone(), e))?),
            Err(why) => {
                say_refused(path, &why);
                None
            }
        };
        Ok(Self { path: path.clone(), loader })
    }

    /// Writes what the store holds, when nobody uses it any more; `is_abandoned` breaks off. No failure keeps a node
    /// from stopping: the log tells of it.
    pub fn end(self, store: &Store, is_abandoned: impl Fn() -> bool) {
        let path = self.path.display();
        if let Some(loader) = self.loader {
            // What it has not brought yet is not lost. A panic was logged when it happened.
            _ = loader.join();
        }
        match save::save(store, &self.path, &is_abandoned) {
            Ok(Ok(saved)) => info!("snapshot {path} written: {saved}"),
            Ok(Err(Abandoned)) => warn!("snapshot {path} not written: told to stop at once"),
            Err(error) => warn!("snapshot {path} not written: {error}"),
        }
    }
}

fn begin_loading(found: Found, path: &Path, store: &Arc<Store>) -> io::Result<JoinHandle<()>> {
    info!("snapshot {} of {} s ago: reading {} items back", path.display(), found.age, found.header.items);
    store.raise_cas(found.header.cas);
    store.expect_arrivals(found.header.items);
    let (path, loaded_into) = (path.to_owned(), store.clone());
    let loader = std::thread::Builder::new().name("snapshot".into());
    let loader = loader.spawn(move || {
        match load::load(&found, &loaded_into) {
            Ok(loaded) => {
                info!("snapshot {} read back: {loaded}", path.display());
                found.remove();
            }
            Err(why) => say_refused(&path, &found.refuse(&path, why)),
        }
        loaded_into.end_arrivals();
    });
    if loader.is_err() {
        store.end_arrivals();
    }
    loader
}

fn say_refused(path: &Path, why: &file::Refused) {
    warn!("snapshot {} not read: {why}", path.display());
}

#[cfg(test)]
mod tests;
