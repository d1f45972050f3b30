//! The token of requests, from a file that others replace while the server runs.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::warn;

use crate::origin::Invalid;

/// How often it is looked whether the file has changed, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How old what was read may be: time stamps of files do not tell all changes.
const READ_INTERVAL: Duration = Duration::from_secs(60);

/// Servers commonly refuse headers over 8 KiB (nginx: `large_client_header_buffers`).
const LEN_MAX: usize = 8000;

/// A token that follows its file.
pub struct Token {
    path: PathBuf,
    current: Arc<Mutex<Current>>,
}

/// The result of reading the file the last time it held a token.
struct Current {
    header: HeaderValue,
    /// When the file was changed, as it was read.
    modified: Option<SystemTime>,
    read: Instant,
    looked: Instant,
    /// That the file cannot be used was already logged.
    told: bool,
}

impl Token {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or holds no token, which is never quoted.
    pub fn load(path: &Path) -> Result<Self, Invalid> {
        let (header, modified) = read(path)
            .map_err(|why| Invalid::new("bearer-token-file", format!("{}: {why}", path.display())))?;
        let now = Instant::now();
        let current = Current { header, modified, read: now, looked: now, told: false };
        Ok(Self { path: path.to_owned(), current: Arc::new(Mutex::new(current)) })
    }

    /// The value of `Authorization`. Looks at the file once a second, on a thread for what blocks. While the file
    /// cannot be used, the token stays what it was. Cancellation safe.
    pub async fn header(&self) -> HeaderValue {
        if self.is_due() {
            let (path, current) = (self.path.clone(), Arc::clone(&self.current));
            // Fails only while the runtime ends.
            let _ = spawn_blocking(move || refresh(&path, &current)).await;
        }
        self.current.lock().header.clone()
    }

    fn is_due(&self) -> bool {
        let mut current = self.current.lock();
        let is_due = current.looked.elapsed() >= LOOK_INTERVAL;
        if is_due {
            current.looked = Instant::now();
        }
        is_due
    }
}

fn refresh(path: &Path, current: &Mutex<Current>) {
    let (before, read_at) = {
        let current = current.lock();
        (current.modified, current.read)
    };
    if modified(path) == before && read_at.elapsed() < READ_INTERVAL {
        return;
    }
    let fresh = read(path);
    let mut current = current.lock();
    match fresh {
        Ok((header, modified)) => {
            let looked = current.looked;
            *current = Current { header, modified, read: Instant::now(), looked, told: false };
        }
        Err(why) if !current.told => {
            current.told = true;
            warn!(file = %path.display(), %why, "an origin's bearer-token-file cannot be read: the last token stays");
        }
        Err(_) => {}
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|about| about.modified()).ok()
}

/// The header, and when the file was changed before it was read.
fn read(path: &Path) -> Result<(HeaderValue, Option<SystemTime>), String> {
    let modified = modified(path);
    let mut bytes = Vec::new();
    // Blanks around it do not count, but there is no reason for many.
    let most = 2 * LEN_MAX as u64;
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    let token = bytes.trim_ascii();
    if !(1..=LEN_MAX).contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
        return Err(format!("holds no token (allowed: 1 to {LEN_MAX} characters of ASCII, without blanks)"));
    }
    let refuse = |_| "holds a token that cannot be sent".to_owned();
    let mut header = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(refuse)?;
    // Not shown by anything that shows headers, and not put into HTTP/2's table of them.
    header.set_sensitive(true);
    Ok((header, modified))
}
