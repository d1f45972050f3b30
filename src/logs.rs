//! What the process says on stderr: one line for each event that is worth waking for, for people
//! or for machines, and never so many that they hide one another.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

mod limits;
mod line;

use limits::Limits;

/// What lines about the commands of clients are marked with. Whoever writes one has asked the
/// `verbosity` of the door, which clients can raise, and not the level of the log.
pub const CLIENTS: &str = "filbert::clients";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is said, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// How often `-v` was given: 0 says what an operator should know, 1 adds debug, 2 all.
    pub verbosity: u8,
}

/// How many errors and warnings there were, those that were not written included. Clones count
/// together.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    errors: AtomicU64,
    warnings: AtomicU64,
}

impl Lines {
    /// Errors so far.
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed)
    }

    /// Warnings so far.
    pub fn warnings(&self) -> u64 {
        self.0.warnings.load(Ordering::Relaxed)
    }

    fn count(&self, level: Level) {
        match level {
            Level::ERROR => self.0.errors.fetch_add(1, Ordering::Relaxed),
            Level::WARN => self.0.warnings.fetch_add(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

/// Takes what the whole process has to say from here on, panics included, to stderr.
///
/// # Panics
/// When it was called before.
pub fn start(options: &Options) -> Lines {
    let lines = Lines::default();
    let level = match options.verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // What the libraries do is nobody's business, unless something is wrong.
    let ours = Targets::new()
        .with_target("filbert", level)
        .with_target(CLIENTS, LevelFilter::TRACE)
        .with_default(LevelFilter::WARN);
    let log =
        Log { format: options.format, lines: lines.clone(), limits: Limits::default(), out: io::stderr };
    tracing_subscriber::registry().with(log).with(ours).init();
    panic::set_hook(Box::new(say_panic));
    lines
}

/// Says that a thread has panicked, in the words of the log.
fn say_panic(panicked: &panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let why = panicked.payload_as_str().unwrap_or("no text");
    let place = panicked.location().map(ToString::to_string).unwrap_or_default();
    // Only where RUST_BACKTRACE asks for one.
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            error!(thread, place, %backtrace, "a thread panicked, which is a bug: {why}");
        }
        _ => error!(thread, place, "a thread panicked, which is a bug: {why}"),
    }
}

/// Writes events as lines to `out`.
struct Log<O> {
    format: Format,
    lines: Lines,
    limits: Limits<Identifier>,
    out: fn() -> O,
}

impl<S: Subscriber, O: Write + 'static> Layer<S> for Log<O> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        self.lines.count(*metadata.level());
        // Who asks for more than the usual wants to see all of it.
        let left_out = if *metadata.level() > Level::INFO {
            0
        } else {
            match self.limits.admit(metadata.callsite(), Instant::now()) {
                Some(left_out) => left_out,
                None => return,
            }
        };
        let line = line::of(event, self.format, left_out);
        // At once, so that lines of several threads stay whole. Without stderr nobody reads it.
        _ = (self.out)().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests;
