//! Counting for `stats detail`.

use crate::command::{Command, Verb};
use crate::server::ServerContext;
use crate::server::prefix::Event;

/// Counts a command under its key's prefix, and whether it hit.
pub(super) fn count_prefix(context: &ServerContext, command: &Command<'_>, hit: bool) {
    match command.verb {
        Verb::Get(get) if get.touch.is_none() => context.prefixes.count(command.key, Event::Get { hit }),
        Verb::Set(_) => context.prefixes.count(command.key, Event::Set),
        Verb::Delete(_) => context.prefixes.count(command.key, Event::Delete),
        _ => {}
    }
}
