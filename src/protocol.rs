//! memcached's protocols: bytes to requests, and outcomes to bytes. No IO and no clock.
//!
//! [`codec::Codec`] finds the requests in what has been read, [`text`] and [`meta`] understand
//! a line, [`reply`] writes the answers; [`binary`] does both for the binary protocol. The norm is
//! memcached's doc/protocol.txt; where that is silent, memcached 1.6.45 itself.

pub mod admin;
pub mod binary;
pub mod codec;
pub mod error;
pub mod line;
pub mod meta;
pub mod output;
pub mod reply;
pub mod text;
pub mod token;

use crate::command::{Command, Failure, SetMode};
use crate::protocol::admin::AdminCommand;
use crate::protocol::binary::{Ask, Head};
use crate::protocol::error::ProtocolError;
use crate::protocol::reply::Reply;

/// The version that clients receive: numbers alone, or libmemcached refuses the server. Ours is in `stats` as
/// `filbert_version`, and in `filbert --version`.
pub const COMPATIBLE_VERSION: &str = "1.6.45";

/// One thing a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// An operation on one key, and how its outcome is answered. A multiget is one of these
    /// for each key.
    Key(Command<'a>, Reply<'a>),
    /// A multiget has ended with a key that has been asked for already, or with a blank.
    End,
    /// Everything that is not about one key.
    Admin(AdminCommand<'a>),
    /// It could not be understood; the text says why. Quiet when `noreply` hides even that.
    Refused {
        /// Why.
        error: ProtocolError,
        /// Whether the client wants to hear of it.
        quiet: bool,
    },
    /// A value over the item limit, or without memory to read it into, which is not read. The item under the key is
    /// dropped where memcached drops it.
    Unstored {
        /// The key of the value.
        key: &'a [u8],
        /// [`SetMode::Set`] drops the old value.
        mode: SetMode,
        /// The command's name ([`crate::command::Set::name`]).
        command: &'static str,
        /// Why.
        why: Failure,
        /// How it is answered.
        reply: Reply<'a>,
    },
    /// The request of a packet of the binary protocol that is not an operation on one key.
    Binary(Head, Ask<'a>),
    /// Before login: `user password`, the value of a `set`.
    Login(&'a [u8]),
}

#[cfg(test)]
mod tests;
