//! A pipe for what a process writes to its standard error, whose reader can stop reading, as a stalled log driver does.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use crate::support::server::eventually;

/// What a pipe takes without blocking when it is ready at all: pipe(7), `PIPE_BUF`.
const PIECE: usize = 4096;

/// How often the reader looks whether it should read.
const POLL: Duration = Duration::from_millis(5);

/// A pipe that is read into a file.
pub struct Pipe {
    writer: PipeWriter,
    state: Arc<State>,
    dir: TempDir,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stalls: AtomicBool,
    /// The reader has seen that.
    stalled: AtomicBool,
    ends: AtomicBool,
}

impl Pipe {
    /// One that is read.
    pub fn new() -> Pipe {
        let (reader, writer) = io::pipe().expect("the system has a pipe");
        let dir = TempDir::new().expect("a temporary directory can be made");
        let file = File::create(dir.path().join("log")).expect("the directory is writable");
        let state = Arc::<State>::default();
        let seen = state.clone();
        let reader = thread::spawn(move || read(reader, file, &seen));
        Pipe { writer, state, dir, reader: Some(reader) }
    }

    /// The end that a process writes to.
    pub fn stdio(&self) -> Stdio {
        self.writer.try_clone().expect("the system has a descriptor").into()
    }

    /// What was read so far.
    pub fn text(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stops reading. The pipe is full when this returns.
    pub fn stall(&self) {
        self.state.stalls.store(true, Ordering::SeqCst);
        eventually("the reader stops", || self.state.stalled.load(Ordering::SeqCst));
        let filler = [&[b'#'; PIECE - 1][..], b"\n"].concat();
        while is(&self.writer, PollFlags::POLLOUT) {
            let _ = (&self.writer).write(&filler);
        }
    }

    /// It is read again.
    pub fn flow(&self) {
        self.state.stalls.store(false, Ordering::SeqCst);
    }
}

fn is(end: &impl AsFd, wanted: PollFlags) -> bool {
    poll(&mut [PollFd::new(end.as_fd(), wanted)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn read(mut reader: PipeReader, mut file: File, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while !state.ends.load(Ordering::SeqCst) {
        let stalls = state.stalls.load(Ordering::SeqCst);
        state.stalled.store(stalls, Ordering::SeqCst);
        if stalls || !is(&reader, PollFlags::POLLIN) {
            thread::sleep(POLL);
            continue;
        }
        let Ok(read) = reader.read(&mut buffer) else { return };
        file.write_all(&buffer[..read]).expect("the file is writable");
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
