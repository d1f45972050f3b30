//! Parses a line into its request; and the classic commands. `decode` takes lines out of a stream.

mod decode;

use crate::command::{Arithmetic, Command, Delete, Get, Set, SetMode, Verb};
use crate::item::{Exptime, KEY_MAX};
use crate::protocol::admin::{self, AdminCommand};
use crate::protocol::error::ProtocolError;
use crate::protocol::line::{Line, Multiget, Store, key, value_len};
use crate::protocol::meta;
use crate::protocol::reply::{Classic, Reply};
use crate::protocol::token::{Tokens, integer, loose_integer, loose_number, loose_number_u32, number};

/// Parses one line, without its end. A base64-encoded key is decoded into `key_buffer`.
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
        b"mn" => Ok(Line::Admin(AdminCommand::NoOp)),
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
        let quiet = quiet_errors(name) && error != ProtocolError::BadFormat && tokens.end_in_noreply();
        Line::Refused { error, quiet, skip: 0 }
    })
}

/// Whether a line begins like one of the commands that have no limit of length.
pub fn begins_multiget(line: &[u8]) -> bool {
    line.starts_with(b"get ") || line.starts_with(b"gets ")
}

fn quiet_errors(name: &[u8]) -> bool {
    matches!(name, b"touch" | b"delete" | b"incr" | b"decr" | b"flush_all" | b"verbosity" | b"cache_memlimit")
}

fn multiget(keys: Tokens<'_>, cas: bool) -> Line<'_> {
    if keys.is_empty() {
        return Line::refused(ProtocolError::BadFormat);
    }
    Line::Get(Multiget { cas, touch: None }, keys.0.len())
}

fn gat(mut tokens: Tokens<'_>, cas: bool) -> Result<Line<'_>, ProtocolError> {
    let exptime = tokens.next().ok_or(ProtocolError::BadFormat)?;
    if tokens.is_empty() {
        return Err(ProtocolError::BadFormat);
    }
    let exptime = integer(exptime).ok_or(ProtocolError::InvalidExptime)?;
    Ok(Line::Get(Multiget { cas, touch: Some(Exptime::from_wire(exptime)) }, tokens.0.len()))
}

/// `<key> <flags> <exptime> <bytes> [<cas>] [noreply]`
fn store(mut tokens: Tokens<'_>, mode: SetMode, cas: bool) -> Line<'_> {
    let quiet = tokens.end_in_noreply();
    let (Some(key), Some(flags), Some(exptime), Some(len)) =
        (tokens.next_key(), tokens.next(), tokens.next(), tokens.next())
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
        received: None,
        flags,
        exptime: Exptime::from_wire(exptime),
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

fn one<'a>(key: &'a [u8], verb: Verb<'a>, reply: Classic, quiet: bool) -> Line<'a> {
    Line::Key(Command { key, key_binary: false, verb }, Reply::Classic(reply, quiet))
}

/// `<key> <exptime> [noreply]`
fn touch(mut tokens: Tokens<'_>) -> Result<Line<'_>, ProtocolError> {
    let quiet = tokens.end_in_noreply();
    let name = tokens.next();
    let exptime = tokens.next().ok_or(ProtocolError::BadFormat)?;
    let name = key(name)?;
    let exptime = integer(exptime).ok_or(ProtocolError::InvalidExptime)?;
    let get = Get { touch: Some(Exptime::from_wire(exptime)), ..Get::PLAIN };
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
    let quiet = tokens.end_in_noreply();
    let name = tokens.next();
    let delta = tokens.next().ok_or(ProtocolError::BadFormat)?;
    let name = key(name)?;
    let delta = number(delta).ok_or(ProtocolError::InvalidDelta)?;
    let sum = Arithmetic { decrement, delta, ..Arithmetic::PLAIN };
    Ok(one(name, Verb::Arithmetic(sum), Classic::Arithmetic, quiet))
}
