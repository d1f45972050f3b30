//! The way out of the log: a bounded queue, and a thread that writes its lines. Code that logs waits neither for a disk
//! nor for a reader that does not read.
//!
//! A process that goes into the background would lose that thread. Before the thread starts, the code that logs writes
//! its own lines, as far as that does not block.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, info, warn};

use crate::logs::out::{Out, PIECE_BYTES};
use crate::logs::{Format, Lines, line};

/// How much may wait to be written; further lines are lost and counted. It holds some ten thousand usual lines: more
/// than a second of `-vv` under load.
const QUEUE_BYTES: usize = 2 << 20;

/// What a line costs in the queue besides its text.
const ENTRY_BYTES: usize = 64;

/// The way out. Clones share one; by default there is none.
#[derive(Clone, Default)]
pub struct Writer(Option<Arc<WriterInner>>);

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

struct WriterInner {
    format: Format,
    lines: Lines,
    queue: Mutex<Queue>,
    /// Something is to be done.
    news: Condvar,
    /// Nothing is left to be done.
    idle: Condvar,
}

struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Lines lost since the last entry.
    lost: u64,
    /// Where lines go; missing while somebody writes.
    out: Option<Out>,
    /// Whether the thread runs.
    flows: bool,
}

enum Entry {
    Line {
        level: Level,
        text: String,
        /// Lines lost between the one before and this.
        lost_before: u64,
    },
    /// The file is to be opened again.
    Reopen,
}

impl Writer {
    /// Writes to `out`, by hand until [`Writer::flow`].
    pub(super) fn new(out: Out, format: Format, lines: Lines) -> Self {
        let queue = Queue { entries: VecDeque::new(), bytes: 0, lost: 0, out: Some(out), flows: false };
        let (news, idle) = (Condvar::new(), Condvar::new());
        Self(Some(Arc::new(WriterInner { format, lines, queue: Mutex::new(queue), news, idle })))
    }

    /// Hands a line over. Never waits for it to be written.
    pub(super) fn push(&self, level: Level, text: String) {
        let Some(inner) = &self.0 else { return };
        let mut queue = inner.queue.lock();
        // What was asked for besides the usual leaves room for the rest.
        let limit = if level > Level::INFO { QUEUE_BYTES / 2 } else { QUEUE_BYTES };
        if queue.bytes + text.len() > limit {
            queue.lost += 1;
            inner.lines.lose(1);
            return;
        }
        queue.bytes += text.len() + ENTRY_BYTES;
        let lost_before = std::mem::take(&mut queue.lost);
        queue.entries.push_back(Entry::Line { level, text, lost_before });
        if queue.flows {
            inner.news.notify_one();
        } else {
            drop(queue);
            inner.write_by_hand(Instant::now());
        }
    }

    /// Opens the file again, after all earlier lines have been written to the old one: a log rotator has moved that
    /// away. Any other target stays as it is.
    pub fn reopen(&self) {
        let Some(inner) = &self.0 else { return };
        let mut queue = inner.queue.lock();
        // One is enough, however often it was asked for.
        if !matches!(queue.entries.back(), Some(Entry::Reopen)) {
            queue.entries.push_back(Entry::Reopen);
        }
        inner.news.notify_one();
    }

    /// Starts the thread that writes from here on.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn flow(&self) -> io::Result<()> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        inner.queue.lock().flows = true;
        let run = {
            let inner = inner.clone();
            move || inner.run()
        };
        let started = std::thread::Builder::new().name("log".into()).spawn(run);
        if started.is_err() {
            inner.queue.lock().flows = false;
        }
        started.map(drop)
    }

    /// Waits until everything is written, but not longer than this.
    pub fn flush(&self, patience: Duration) {
        let Some(inner) = &self.0 else { return };
        let until = Instant::now() + patience;
        let mut queue = inner.queue.lock();
        if !queue.flows {
            drop(queue);
            return inner.write_by_hand(until);
        }
        while queue.has_work() || queue.out.is_none() {
            if inner.idle.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
    }

    /// Makes this user the owner of the log file, if this process has made it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) -> io::Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        inner.queue.lock().out.as_ref().map_or(Ok(()), |out| out.give_to(uid, gid))
    }
}

impl Queue {
    fn has_work(&self) -> bool {
        !self.entries.is_empty() || self.lost > 0
    }

    /// The next piece of work, as large as one write may be.
    fn next(&mut self, format: Format, unsaid: &mut u64) -> Work {
        let mut piece = Piece::default();
        loop {
            match self.entries.front() {
                Some(Entry::Reopen) if piece.bytes == 0 => {
                    self.entries.pop_front();
                    return Work::Reopen;
                }
                Some(Entry::Line { text, lost_before, .. })
                    if piece.bytes == 0
                        || *lost_before == 0 && piece.text_len() + text.len() <= PIECE_BYTES =>
                {
                    let Some(Entry::Line { level, text, lost_before }) = self.entries.pop_front() else {
                        break;
                    };
                    piece.bytes += text.len() + ENTRY_BYTES;
                    piece.lost += lost_before;
                    piece.lines.push((level, text));
                }
                None if piece.bytes == 0 => {
                    piece.lost += std::mem::take(&mut self.lost);
                    break;
                }
                _ => break,
            }
        }
        piece.lost += std::mem::take(unsaid);
        if piece.lost > 0 {
            piece.lines.insert(0, (Level::WARN, line::of_loss(piece.lost, format)));
        }
        Work::Write(piece)
    }
}

enum Work {
    Write(Piece),
    Reopen,
}

/// Lines that are written at once.
#[derive(Default)]
struct Piece {
    lines: Vec<(Level, String)>,
    /// What they take of the queue.
    bytes: usize,
    /// Lines lost before them; the first line says so.
    lost: u64,
}

impl Piece {
    fn text_len(&self) -> usize {
        self.lines.iter().map(|(_, text)| text.len()).sum()
    }
}

impl WriterInner {
    /// Writes without end.
    fn run(&self) {
        let mut queue = self.queue.lock();
        loop {
            while !queue.has_work() {
                self.idle.notify_all();
                self.news.wait(&mut queue);
            }
            let Some(mut out) = queue.out.take() else { return };
            let work = queue.next(self.format, &mut out.unsaid);
            drop(queue);
            let bytes = match work {
                Work::Write(piece) => self.write(&mut out, piece, None),
                Work::Reopen => {
                    self.reopen(&mut out);
                    0
                }
            };
            queue = self.queue.lock();
            queue.bytes -= bytes;
            queue.out = Some(out);
        }
    }

    /// Writes what can be written until then, while there is no thread for it.
    fn write_by_hand(&self, until: Instant) {
        let mut queue = self.queue.lock();
        while queue.has_work() {
            let Some(mut out) = queue.out.take() else { return };
            let is_ready = out.is_ready(until.saturating_duration_since(Instant::now()));
            let work = is_ready.then(|| queue.next(self.format, &mut out.unsaid));
            drop(queue);
            let bytes = match work {
                Some(Work::Write(piece)) => self.write(&mut out, piece, Some(until)),
                Some(Work::Reopen) | None => 0,
            };
            queue = self.queue.lock();
            queue.bytes -= bytes;
            queue.out = Some(out);
            if !is_ready {
                return;
            }
        }
    }

    /// Writes a piece, waiting for room until then; returns its size in the queue. Lines that could not be written are
    /// reported when writing works again.
    fn write(&self, out: &mut Out, piece: Piece, until: Option<Instant>) -> usize {
        let unwritten = out.write(&piece.lines, until);
        // The line that reports losses is not one of the logged lines.
        let said = piece.lines.len() as u64 - u64::from(piece.lost > 0);
        let lost = unwritten.min(said);
        self.lines.lose(lost);
        out.unsaid += lost + if unwritten > said { piece.lost } else { 0 };
        piece.bytes
    }

    fn reopen(&self, out: &mut Out) {
        match out.reopen() {
            Ok(true) => info!("the log file was opened again"),
            Ok(false) => {}
            Err(error) => warn!("the log goes on where it was: cannot open {error}"),
        }
    }
}
