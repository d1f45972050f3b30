//! The classic commands: a line in, what it asks for out.

use crate::command::{Arithmetic, Command, Delete, Get, Set, SetMode, Verb};
use crate::item::{Exptime, KEY_MAX};
use crate::protocol::admin::{self, Admin};
use crate::protocol::error::ProtocolError;
use crate::protocol::meta;
use crate::protocol::reply::{Classic, Reply};
use crate::protocol::token::{Tokens, integer, loose_integer, loose_number, loose_number_u32, number};

/// Longest value in bytes that a line may announce (proto_parser.c, `INT_MAX - 2`).
const VALUE_MAX: i32 = i32::MAX - 2;

/// What a line asks for. Storage commands have their value still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// `get`, `gets`, `gat`, `gats`: the keys are in the rest of the line.
    Get(Multiget),
    /// A storage command, which wants its value.
    Store(Store<'a>),
    /// Any other operation on one key.
    Key(Command<'a>, Reply<'a>),
    /// Everything that is not about one key.
    Admin(Admin<'a>),
    /// Not understood; so many bytes behind the line are its value, and to be skipped.
    Refused {
        /// Why.
        error: ProtocolError,
        /// Whether `noreply` hides it.
        quiet: bool,
        /// Bytes to skip, the line end of the value included.
        skip: usize,
    },
    /// Somebody speaks HTTP: close without a word.
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
        let verb = Verb::Get(Get { touch: self.touch, ..Get::PLAIN });
        (Command { key, key_binary: false, verb }, Reply::Value { cas: self.cas, last })
    }
}

/// The line of a storage command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'a> {
    /// Where it goes, decoded.
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

/// Understands one line, without its end. A base64-encoded key is decoded into `key_buffer`.
pub fn parse<'a>(line: &'a [u8], key_buffer: &'a mut [u8; KEY_MAX]) -> Line<'a> {
    // No blank stands before a command.
    let (name, tokens) = line.split_at(line.iter().position(|&byte| byte == b' ').unwrap_or(line.len()));
    let tokens = Tokens(tokens);
    let result = match name {
        b"get" => return multiget(tokens, false),
        b"gets" => return multiget(tokens, true),
        b"mg" => meta::get(tokens, key_buffer),
        b"ms" => return meta::set(tokens, key_buffer),
        b"md" => meta::delete(tokens, key_buffer),
        b"ma" => meta::arithmetic(tokens, key_buffer),
        b"mn" => Ok(Line::Admin(Admin::NoOp)),
        b"me" => meta::inspect(tokens, key_buffer),
        b"set" => return store(tokens, SetMode::Set, false),
        b"add" => return store(tokens, SetMode::Add, false),
        b"replace" => return store(tokens, SetMode::Replace, false),
        b"append" => return store(tokens, SetMode::Append, false),
        b"prepend" => return store(tokens, SetMode::Prepend, false),
        b"cas" => return store(tokens, SetMode::Set, true),
        b"gat" => gat(tokens, false),
        b"gats" => gat(tokens, true),
        b"touch" => touch(tokens),
        b"delete" => delete(tokens),
        b"incr" => arithmetic(tokens, false),
        b"decr" => arithmetic(tokens, true),
        _ => match admin::parse(name, tokens) {
            Some(result) => result.map(Line::Admin),
            None if tokens.last_token().is_some_and(|token| token.starts_with(b"HTTP/")) => Ok(Line::Http),
            None => Err(ProtocolError::Unknown),
        },
    };
    result.unwrap_or_else(|error| {
        // noreply hides what is wrong with the words of a line, but not that it is no line.
        let quiet = quiet_errors(name) && error != ProtocolError::BadFormat && is_noreply(tokens);
        Line::Refused { error, quiet, skip: 0 }
    })
}

/// Whether a line begins like one of the commands whose length has no limit.
pub fn begins_multiget(line: &[u8]) -> bool {
    line.starts_with(b"get ") || line.starts_with(b"gets ")
}

fn quiet_errors(name: &[u8]) -> bool {
    matches!(name, b"touch" | b"delete" | b"incr" | b"decr" | b"flush_all" | b"verbosity" | b"cache_memlimit")
}

pub(super) fn is_noreply(tokens: Tokens<'_>) -> bool {
    tokens.last_token() == Some(b"noreply")
}

fn multiget(tokens: Tokens<'_>, cas: bool) -> Line<'_> {
    match tokens.clone().next() {
        Some(_) => Line::Get(Multiget { cas, touch: None }),
        None => Line::refused(ProtocolError::BadFormat),
    }
}

fn gat(mut tokens: Tokens<'_>, cas: bool) -> Result<Line<'_>, ProtocolError> {
    let exptime = tokens.next().ok_or(ProtocolError::BadFormat)?;
    tokens.next().ok_or(ProtocolError::BadFormat)?;
    let exptime = integer(exptime).ok_or(ProtocolError::InvalidExptime)?;
    Ok(Line::Get(Multiget { cas, touch: Some(Exptime::from_wire(exptime.into())) }))
}

/// `<key> <flags> <exptime> <bytes> [<cas>] [noreply]`
fn store(mut tokens: Tokens<'_>, mode: SetMode, cas: bool) -> Line<'_> {
    let quiet = is_noreply(tokens);
    let (Some(key), Some(flags), Some(exptime), Some(len)) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return Line::refused(ProtocolError::BadFormat);
    };
    let Some(value_len) = value_len(len) else { return Line::refused(ProtocolError::BadFormat) };
    let refused = Line::Refused { error: ProtocolError::BadFormat, quiet, skip: value_len + 2 };

    let compare = if cas { tokens.next().and_then(loose_number) } else { None };
    let (Some(flags), Some(exptime)) = (loose_number_u32(flags), loose_integer(exptime)) else {
        return refused;
    };
    if key.len() > KEY_MAX || (cas && compare.is_none()) {
        return refused;
    }
    let set = Set {
        mode,
        value: &[],
        flags,
        exptime: Exptime::from_wire(exptime.into()),
        compare,
        new_cas: None,
        invalidate: false,
        vivify: None,
    };
    Line::Store(Store {
        key,
        key_binary: false,
        set,
        value_len,
        reply: Reply::Classic(Classic::Store, quiet),
    })
}

/// The length of a value; `None` is none that may be announced.
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

fn one<'a>(key: &'a [u8], verb: Verb<'a>, reply: Classic, quiet: bool) -> Line<'a> {
    Line::Key(Command { key, key_binary: false, verb }, Reply::Classic(reply, quiet))
}

/// `<key> <exptime> [noreply]`
fn touch(mut tokens: Tokens<'_>) -> Result<Line<'_>, ProtocolError> {
    let quiet = is_noreply(tokens);
    let name = tokens.next();
    let exptime = tokens.next().ok_or(ProtocolError::BadFormat)?;
    let name = key(name)?;
    let exptime = integer(exptime).ok_or(ProtocolError::InvalidExptime)?;
    let get = Get { touch: Some(Exptime::from_wire(exptime.into())), ..Get::PLAIN };
    Ok(one(name, Verb::Get(get), Classic::Touch, quiet))
}

/// `<key> [0] [noreply]`: a delay of 0 is all that is left of an old argument.
fn delete(mut tokens: Tokens<'_>) -> Result<Line<'_>, ProtocolError> {
    let name = key(tokens.next())?;
    let quiet = match (tokens.next(), tokens.next(), tokens.next()) {
        (None | Some(b"0"), None, None) => false,
        (Some(b"noreply"), None, None) | (Some(b"0"), Some(b"noreply"), None) => true,
        _ => return Err(ProtocolError::DeleteUsage),
    };
    Ok(one(name, Verb::Delete(Delete::default()), Classic::Delete, quiet))
}

/// `<key> <delta> [noreply]`
fn arithmetic(mut tokens: Tokens<'_>, decrement: bool) -> Result<Line<'_>, ProtocolError> {
    let quiet = is_noreply(tokens);
    let name = tokens.next();
    let delta = tokens.next().ok_or(ProtocolError::BadFormat)?;
    let name = key(name)?;
    let delta = number(delta).ok_or(ProtocolError::InvalidDelta)?;
    let sum = Arithmetic { decrement, delta, ..Arithmetic::PLAIN };
    Ok(one(name, Verb::Arithmetic(sum), Classic::Arithmetic, quiet))
}
