//! Requests of the binary protocol besides operations on a key.

use crate::item::Exptime;
use crate::protocol::COMPATIBLE_VERSION;
use crate::protocol::binary::reply::{write_done, write_error, write_lines, write_stat};
use crate::protocol::binary::{Ask, Head, Status};
use crate::protocol::token::Tokens;
use crate::server::connections::CloseReason;
use crate::server::memcached::commands::login::Login;
use crate::server::memcached::commands::scope::{Done, Next, Scope};
use crate::server::memcached::commands::task::Task;
use crate::server::memcached::commands::{admin, stats};
use crate::stats::Counter;

#[cold]
pub(in crate::server::memcached) fn run(
    scope: &mut Scope<'_, '_>,
    login: &mut Login,
    head: Head,
    ask: Ask<'_>,
) -> Done {
    match ask {
        Ask::NoOp => write_done(scope.out, head, &[]),
        Ask::Version => write_done(scope.out, head, COMPATIBLE_VERSION.as_bytes()),
        Ask::Quit => {
            write_done(scope.out, head, &[]);
            return Done::Next(Next::Close(CloseReason::Normal));
        }
        Ask::Flush(delay) => return flush(scope, head, delay),
        Ask::Stats(group) => return statistics(scope, head, group),
        Ask::Verbosity(level) => {
            admin::set_verbosity(scope.context, level);
            write_done(scope.out, head, &[]);
        }
        Ask::Mechanisms | Ask::Login { .. } if scope.context.auth.is_none() => {
            write_error(scope.out, head, Status::Unknown);
        }
        Ask::Mechanisms => login.mechanisms(scope, head),
        Ask::Login { begins, mechanism, message } => login.sasl(scope, head, (begins, mechanism, message)),
        Ask::Refused { status, closes } => {
            write_error(scope.out, head, status);
            if closes {
                return Done::Next(Next::Close(CloseReason::Error));
            }
        }
    }
    Done::Now
}

fn flush(scope: &mut Scope<'_, '_>, head: Head, delay: Exptime) -> Done {
    if !scope.context.options.flush_allowed {
        write_error(scope.out, head, Status::Auth);
        return Done::Now;
    }
    scope.turn.counters().bump(Counter::CmdFlush);
    let task = Task::Flush { delay, quiet: false };
    if let Some(later) = scope.in_cluster(Task::Binary(head, task.into())) {
        return later;
    }
    scope.context.store.flush_all(&scope.turn.caller(), delay);
    write_done(scope.out, head, &[]);
    Done::Now
}

/// The statistics that the text protocol sends as lines, each in a packet of its own.
fn statistics(scope: &mut Scope<'_, '_>, head: Head, group: &[u8]) -> Done {
    if group == b"cluster"
        && let Some(later) = scope.in_cluster(Task::Binary(head, Task::Stats.into()))
    {
        return later;
    }
    if group.starts_with(b"cachedump") {
        // These lines have no form as packets.
        write_error(scope.out, head, Status::NotFound);
        return Done::Now;
    }
    let mut lines = Vec::new();
    stats::run(&mut Scope::new(scope.context, scope.turn, &mut lines, false), Tokens(group));
    // The only statistic with lines of another kind.
    if lines.starts_with(b"PREFIX ") || group == b"detail dump" && lines.starts_with(b"END") {
        write_stat(scope.out, head, b"detailed", &lines);
        write_done(scope.out, head, &[]);
    } else {
        write_lines(scope.out, head, &lines);
    }
    Done::Now
}
