//! The context of a command that is not about one key, and what it leaves to do.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::cache::turn::Turn;
use crate::clock::Seconds;
use crate::protocol::admin::Crawler;
use crate::protocol::reply::write_line;
use crate::server::ServerContext;
use crate::server::connections::CloseReason;
use crate::server::memcached::commands::task::Task;

/// What a command works with.
pub(in crate::server::memcached) struct Scope<'a, 'turn> {
    pub(super) context: &'a ServerContext,
    pub(super) turn: &'a mut Turn<'turn>,
    /// Where its reply goes.
    pub(super) out: &'a mut Vec<u8>,
    /// Whether commands came before this one in the same read, and their replies have not been sent
    /// yet; those with `noreply` count, too (memcached.c, `resp_has_stack`).
    pub(super) is_pipelined: bool,
}

/// What is left to do.
pub(in crate::server::memcached) enum Done {
    /// Nothing.
    Now,
    /// Treat it, and everything before it, as answered.
    Sent,
    /// Go on like this.
    Next(Next),
    /// Run this, which replies later.
    Later(Task),
}

/// What a connection does after its batch.
pub(in crate::server::memcached) enum Next {
    /// Reads on.
    Read,
    /// Closes, once the replies are sent.
    Close(CloseReason),
    /// Shows all items, from this shard on.
    Dump(Crawler, usize),
    /// Shows events, until the client closes.
    Watch(mpsc::Receiver<Bytes>),
}

impl<'a, 'turn> Scope<'a, 'turn> {
    pub(in crate::server::memcached) fn new(
        context: &'a ServerContext,
        turn: &'a mut Turn<'turn>,
        out: &'a mut Vec<u8>,
        is_pipelined: bool,
    ) -> Self {
        Self { context, turn, out, is_pipelined }
    }

    /// Answers one line.
    pub(super) fn answer(&mut self, line: &str) -> Done {
        write_line(self.out, line);
        Done::Now
    }

    /// When the command came in.
    pub(super) fn now(&self) -> Seconds {
        self.turn.now()
    }

    /// Runs this on a node that is in a cluster; `None` on one that is alone.
    pub(super) fn in_cluster(&self, task: Task) -> Option<Done> {
        self.turn.cluster().map(|_| Done::Later(task))
    }
}
