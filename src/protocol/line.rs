//! The request in a line, and the parts that the commands of every kind read in the same way.

use crate::command::{Command, Get, Set, Verb};
use crate::item::{Exptime, KEY_MAX};
use crate::protocol::admin::AdminCommand;
use crate::protocol::error::ProtocolError;
use crate::protocol::reply::Reply;
use crate::protocol::token::integer;

/// Longest value in bytes that a line may announce (proto_parser.c, `INT_MAX - 2`).
const VALUE_MAX: i32 = i32::MAX - 2;

/// The request in a line. The value of a storage command is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// `get`, `gets`, `gat`, `gats`. Of its keys there is one at least; they are in so many bytes at the end of the line.
    Get(Multiget, usize),
    /// A storage command; its value follows.
    Store(Store<'a>),
    /// Any other operation on one key.
    Key(Command<'a>, Reply<'a>),
    /// Everything that is not about one key.
    Admin(AdminCommand<'a>),
    /// Not understood; this many bytes after the line are its value, and must be skipped.
    Refused {
        /// Why.
        error: ProtocolError,
        /// Whether `noreply` hides it.
        quiet: bool,
        /// Bytes to skip, the line end of the value included.
        skip: usize,
    },
    /// A client that speaks HTTP: close without a reply.
    Http,
}

/// How each key of a multiget is read and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiget {
    /// `gets`, `gats`: the answer has the CAS token.
    pub cas: bool,
    /// `gat`, `gats`: the new expiry time.
    pub touch: Option<Exptime>,
}

impl Multiget {
    /// The command for one key, the last of the line or not.
    #[inline]
    pub fn request<'a>(self, key: &'a [u8], last: bool) -> (Command<'a>, Reply<'a>) {
        let verb = Verb::Get(Get { touch: self.touch, loads: true, ..Get::PLAIN });
        (Command { key, key_binary: false, verb }, Reply::Value { cas: self.cas, last })
    }
}

/// The line of a storage command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'a> {
    /// Its key, decoded.
    pub key: &'a [u8],
    /// Whether the key came base64-encoded.
    pub key_binary: bool,
    /// Everything but the value, which is empty here.
    pub set: Set<'a>,
    /// Bytes of the value, without its line end.
    pub value_len: usize,
    /// How the outcome is answered.
    pub reply: Reply<'a>,
}

impl<'a> Line<'a> {
    pub(super) fn refused(error: ProtocolError) -> Self {
        Self::Refused { error, quiet: false, skip: 0 }
    }
}

/// The length of a value; `None` when it is not allowed.
pub(super) fn value_len(token: &[u8]) -> Option<usize> {
    integer(token).filter(|len| (0..=VALUE_MAX).contains(len)).map(|len| len.unsigned_abs() as usize)
}

/// A key that is not too long.
pub(super) fn key(token: Option<&[u8]>) -> Result<&[u8], ProtocolError> {
    match token {
        Some(key) if key.len() <= KEY_MAX => Ok(key),
        Some(_) => Err(ProtocolError::KeyTooLong),
        None => Err(ProtocolError::BadFormat),
    }
}
