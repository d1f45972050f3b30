//! Logging in: a user and a password, in text or by SASL.

use crate::auth::Users;
use crate::protocol::binary::reply::{write_continue, write_done, write_error};
use crate::protocol::binary::{Head, Status};
use crate::server::memcached::commands::scope::{Done, Scope};
use crate::stats::Counter;

/// The one mechanism of SASL (RFC 4616).
pub(super) const MECHANISM: &[u8] = b"PLAIN";

/// A client's progress in its login.
#[derive(Debug)]
pub(in crate::server::memcached) struct Login {
    /// Whether requests are taken yet.
    is_done: bool,
    /// Whether a login has begun that may take more than one request.
    begun: bool,
}

impl Login {
    /// Of a client that has just come.
    pub(in crate::server::memcached) fn new(is_asked_for: bool) -> Self {
        Self { is_done: !is_asked_for, begun: false }
    }

    /// Whether requests are taken yet.
    #[inline]
    pub(in crate::server::memcached) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes `user password`, the value of a `set`.
    pub(in crate::server::memcached) fn text(&mut self, scope: &mut Scope<'_, '_>, login: &[u8]) -> Done {
        let mut words = login.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            return scope.answer("CLIENT_ERROR bad authentication token format");
        };
        let counters = scope.turn.counters();
        counters.bump(Counter::AuthCmds);
        if scope.context.auth.as_ref().is_none_or(|users| users.allow(user, password)) {
            self.is_done = true;
            scope.answer("STORED")
        } else {
            counters.bump(Counter::AuthErrors);
            scope.answer("CLIENT_ERROR authentication failure")
        }
    }

    /// Names the mechanisms of SASL. Begins anew, as memcached does (proto_bin.c, `init_sasl_conn`).
    pub(super) fn mechanisms(&mut self, scope: &mut Scope<'_, '_>, head: Head) {
        self.is_done = false;
        write_done(scope.out, head, MECHANISM);
    }

    /// Takes a step of SASL.
    pub(super) fn sasl(
        &mut self,
        scope: &mut Scope<'_, '_>,
        head: Head,
        (begins, mechanism, message): (bool, &[u8], &[u8]),
    ) {
        self.is_done = false;
        if begins {
            self.begun = mechanism == MECHANISM;
        }
        if begins && self.begun && message.is_empty() {
            // The client speaks first: the reply asks for its message.
            return write_continue(scope.out, head);
        }
        let counters = scope.turn.counters();
        counters.bump(Counter::AuthCmds);
        self.is_done = self.begun && allows(scope.context.auth.as_ref(), message);
        self.begun = false;
        if self.is_done {
            write_done(scope.out, head, b"Authenticated");
        } else {
            counters.bump(Counter::AuthErrors);
            write_error(scope.out, head, Status::Auth);
        }
    }
}

/// Whether a message of PLAIN is right. It holds the user to act for (empty, or the same user), the user, and the
/// password.
fn allows(users: Option<&Users>, message: &[u8]) -> bool {
    let mut parts = message.split(|&byte| byte == 0);
    let (Some(acts_for), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let acts_for_itself = acts_for.is_empty() || acts_for == user;
    acts_for_itself && users.is_some_and(|users| users.allow(user, password))
}
