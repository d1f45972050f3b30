//! The log of the process, on stderr or at the configured target: one line for each event that is worth waking for, for
//! people or for machines, and never enough lines to hide one another. Code that logs never waits for the line to be
//! written.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

mod limits;
mod line;
mod out;
mod target;
mod writer;

use limits::Limits;
use out::Out;
pub use target::{Error, Target};
pub use writer::Writer;

/// How long the end of the process waits for the last lines to be written.
pub const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Marks the lines about clients' commands. Their authors check the `verbosity` of the server, which clients can raise,
/// and not the level of the log.
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

/// The content, target and form of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// Where they go.
    pub target: Target,
    /// How often `-v` was given: 0 says what an operator should know, 1 adds debug, 2 all.
    pub verbosity: u8,
}

/// How many errors and warnings there were, those that were not written included, and how many
/// lines were lost. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    errors: AtomicU64,
    warnings: AtomicU64,
    lost: AtomicU64,
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

    /// Lines so far that were lost, because nobody read them in time or the system could not write them.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn lose(&self, lines: u64) {
        self.0.lost.fetch_add(lines, Ordering::Relaxed);
    }

    fn count(&self, level: Level) {
        match level {
            Level::ERROR => self.0.errors.fetch_add(1, Ordering::Relaxed),
            Level::WARN => self.0.warnings.fetch_add(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

/// The log of the process. Dropping it waits for the last lines, for a second at most.
#[must_use = "dropping it ends the log"]
pub struct Started {
    /// What was counted.
    pub lines: Lines,
    /// The way out, which [`Writer::flow`] opens.
    pub writer: Writer,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.writer.flush(FLUSH_PATIENCE);
    }
}

/// Takes the log lines of the whole process from here on, panics included.
///
/// # Errors
/// Nothing can be written there.
///
/// # Panics
/// When it was called before, and there was no error.
pub fn start(options: &Options) -> Result<Started, Error> {
    let out = Out::open(&options.target)?;
    let lines = Lines::default();
    let writer = Writer::new(out, options.format, lines.clone());
    let level = match options.verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The lines of libraries matter only when something is wrong.
    let ours = Targets::new()
        .with_target("filbert", level)
        .with_target(CLIENTS, LevelFilter::TRACE)
        .with_default(LevelFilter::WARN);
    let log = Log {
        format: options.format,
        lines: lines.clone(),
        limits: Limits::default(),
        out: {
            let writer = writer.clone();
            move |level, line| writer.push(level, line)
        },
    };
    tracing_subscriber::registry().with(log).with(ours).init();
    panic::set_hook(Box::new(say_panic));
    Ok(Started { lines, writer })
}

/// Writes a text to stderr that is not an event of the log, if that can be done within a second.
pub fn say(text: &str) {
    if let Ok(mut stderr) = Out::open(&Target::Stderr)
        && stderr.is_ready(FLUSH_PATIENCE)
    {
        stderr.write(&[(Level::ERROR, format!("{text}\n"))], Some(Instant::now() + FLUSH_PATIENCE));
    }
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

/// Hands events as lines to `out`.
struct Log<O> {
    format: Format,
    lines: Lines,
    limits: Limits<Identifier>,
    out: O,
}

impl<S: Subscriber, O: Fn(Level, String) + 'static> Layer<S> for Log<O> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        self.lines.count(*metadata.level());
        // A user who asks for more than the usual wants to see all of it.
        let left_out = if *metadata.level() > Level::INFO {
            0
        } else {
            match self.limits.admit(metadata.callsite(), Instant::now()) {
                Some(left_out) => left_out,
                None => return,
            }
        };
        (self.out)(*metadata.level(), line::of(event, self.format, left_out));
    }
}

#[cfg(test)]
mod tests;
