//! What is asked for in the binary protocol besides operations on a key.

use crate::command::Failure;
use crate::item::Exptime;
use crate::protocol::COMPATIBLE_VERSION;
use crate::protocol::binary::reply::{write_continue, write_done, write_error, write_lines, write_stat};
use crate::protocol::binary::{Ask, Head, Status};
use crate::protocol::token::Tokens;
use crate::server::cluster_tasks::Task;
use crate::server::connections::CloseReason;
use crate::server::session::{Next, Session};
use crate::stats::Counter;

/// The one way to log in (RFC 4616).
const MECHANISM: &[u8] = b"PLAIN";

impl Session {
    #[cold]
    pub(super) fn binary(&mut self, head: Head, ask: Ask<'_>) {
        match ask {
            Ask::NoOp => write_done(&mut self.out, head, &[]),
            Ask::Version => write_done(&mut self.out, head, COMPATIBLE_VERSION.as_bytes()),
            Ask::Quit => {
                write_done(&mut self.out, head, &[]);
                self.next = Next::Close(CloseReason::Normal);
            }
            Ask::Flush(delay) => self.binary_flush(head, delay),
            Ask::Stats(group) => self.binary_stats(head, group),
            Ask::Verbosity(level) => {
                self.set_verbosity(level);
                write_done(&mut self.out, head, &[]);
            }
            Ask::Mechanisms | Ask::Login { .. } if self.context.auth.is_none() => {
                write_error(&mut self.out, head, Status::Unknown);
            }
            Ask::Mechanisms => {
                // Begins anew, as memcached does (proto_bin.c, `init_sasl_conn`).
                self.logged_in = false;
                write_done(&mut self.out, head, MECHANISM);
            }
            Ask::Login { begins, mechanism, message } => self.sasl(head, begins, mechanism, message),
            Ask::Unstored { key, mode, command, status } => {
                let mut told = Vec::new();
                write_error(&mut told, head, status);
                let too_large = status == Status::TooLarge;
                let why = if too_large { Failure::TooLarge } else { Failure::OutOfMemory };
                self.unstored(key, mode, command, why, told);
            }
            Ask::Refused { status, closes } => {
                write_error(&mut self.out, head, status);
                if closes {
                    self.next = Next::Close(CloseReason::Error);
                }
            }
        }
    }

    fn binary_flush(&mut self, head: Head, delay: Exptime) {
        if !self.context.options.flush_allowed {
            return write_error(&mut self.out, head, Status::Auth);
        }
        self.counters.bump(Counter::CmdFlush);
        let task = Task::Flush { delay, quiet: false };
        if self.flush(delay, Task::Binary(head, task.into())) {
            write_done(&mut self.out, head, &[]);
        }
    }

    /// The statistics that the text protocol tells in lines, each in a packet of its own.
    fn binary_stats(&mut self, head: Head, group: &[u8]) {
        if group == b"cluster" && self.later(Task::Binary(head, Task::Stats.into())) {
            return;
        }
        if group.starts_with(b"cachedump") {
            // Told in lines of a kind that has no packets.
            return write_error(&mut self.out, head, Status::NotFound);
        }
        let out = std::mem::take(&mut self.out);
        self.stats(Tokens(group));
        let lines = std::mem::replace(&mut self.out, out);
        // The only one that is told in lines of another kind.
        if lines.starts_with(b"PREFIX ") || group == b"detail dump" && lines.starts_with(b"END") {
            write_stat(&mut self.out, head, b"detailed", &lines);
            return write_done(&mut self.out, head, &[]);
        }
        write_lines(&mut self.out, head, &lines);
    }

    fn sasl(&mut self, head: Head, begins: bool, mechanism: &[u8], message: &[u8]) {
        self.logged_in = false;
        if begins {
            self.login_begun = mechanism == MECHANISM;
        }
        if begins && self.login_begun && message.is_empty() {
            // The client speaks first: it is asked to.
            return write_continue(&mut self.out, head);
        }
        self.counters.bump(Counter::AuthCmds);
        self.logged_in = self.login_begun && self.allows(message);
        self.login_begun = false;
        if self.logged_in {
            write_done(&mut self.out, head, b"Authenticated");
        } else {
            self.counters.bump(Counter::AuthErrors);
            write_error(&mut self.out, head, Status::Auth);
        }
    }

    /// Whether these may log in: whom to act for, which may be left out and can be nobody else; who
    /// it is; the password.
    fn allows(&self, message: &[u8]) -> bool {
        let mut parts = message.split(|&byte| byte == 0);
        let (Some(acts_for), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let acts_for_itself = acts_for.is_empty() || acts_for == user;
        let allowed = self.context.auth.as_ref().is_some_and(|users| users.allow(user, password));
        acts_for_itself && allowed
    }
}
