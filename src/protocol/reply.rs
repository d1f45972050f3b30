//! Outcomes to bytes, in the words of the classic and of the meta commands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::command::{Failure, Found, Outcome};
use crate::item::{ItemView, item_size};
use crate::protocol::binary;
use crate::protocol::binary::reply::Binary;
use crate::protocol::error::failure_line;
use crate::protocol::output::Output;
use crate::protocol::token::Tokens;

/// How the outcome of a command is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// One key of a multiget: `VALUE ...`, nothing for a miss, and `END` after the last.
    Value {
        /// Whether the CAS token is shown.
        cas: bool,
        /// Whether `END` follows.
        last: bool,
    },
    /// A classic command that answers one line, or none with `noreply`.
    Classic(Classic, bool),
    /// A meta command.
    Meta(Meta<'a>),
    /// A command of the binary protocol.
    Binary(Binary<'a>),
}

/// The classic commands that answer one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classic {
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`
    Store,
    /// `touch`
    Touch,
    /// `delete`
    Delete,
    /// `incr`, `decr`
    Arithmetic,
}

/// How a meta command is answered: its flags are gone through again, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta<'a> {
    /// Which command it was.
    pub verb: MetaVerb,
    /// The flags as they came.
    pub flags: Tokens<'a>,
    /// The key, decoded.
    pub key: &'a [u8],
    /// Whether the key came base64-encoded.
    pub key_binary: bool,
    /// `v`: the value is wanted.
    pub value: bool,
    /// `C` of an `mg`: the token of the value that the client has and does not need again.
    pub known: Option<u64>,
    /// `q`: the usual outcome is not sent.
    pub quiet: bool,
    /// Bytes of the value of an `ms`, for its flag `s`.
    pub value_len: usize,
}

/// The meta commands on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaVerb {
    /// `mg`
    Get,
    /// `ms`
    Set,
    /// `md`
    Delete,
    /// `ma`
    Arithmetic,
    /// `me`
    Inspect,
}

/// Writes the answer to a command after the content of `out`.
#[inline]
pub fn write(out: &mut Output, reply: &Reply<'_>, outcome: &Outcome<'_>) {
    match reply {
        Reply::Value { cas, last } => write_value(out, outcome, *cas, *last),
        Reply::Classic(_, true) => {}
        Reply::Classic(verb, false) => write_classic(out.writer(), *verb, outcome),
        Reply::Meta(meta) => write_meta(out, meta, outcome),
        Reply::Binary(binary) => binary::reply::write(out, binary, outcome),
    }
}

/// Writes one line, and its end.
pub fn write_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a number in decimal digits.
pub fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Longest `VALUE` line beyond its key, and `END`: names, blanks, numbers of 10, 10 and 20
/// digits, line ends.
const VALUE_LINE_MAX: usize = 64;

#[inline]
fn write_value(out: &mut Output, outcome: &Outcome<'_>, cas: bool, last: bool) {
    if let Outcome::Found(Found { item, .. }) = outcome {
        out.reserve_for(item, item.key.len() + VALUE_LINE_MAX);
        let line = out.writer();
        line.extend_from_slice(b"VALUE ");
        line.extend_from_slice(item.key);
        line.push(b' ');
        write_number(line, item.flags);
        line.push(b' ');
        write_number(line, item.value.len());
        if cas {
            line.push(b' ');
            write_number(line, item.cas);
        }
        line.extend_from_slice(b"\r\n");
        out.push_value(item);
        out.writer().extend_from_slice(b"\r\n");
    }
    if last {
        out.writer().extend_from_slice(b"END\r\n");
    }
}

fn write_classic(out: &mut Vec<u8>, verb: Classic, outcome: &Outcome<'_>) {
    let line = match outcome {
        Outcome::Found(found) if verb == Classic::Arithmetic => {
            out.extend_from_slice(found.item.value);
            ""
        }
        Outcome::Found(_) => "TOUCHED",
        Outcome::NotFound => "NOT_FOUND",
        Outcome::Stored(_) => "STORED",
        Outcome::NotStored => "NOT_STORED",
        Outcome::Exists => "EXISTS",
        Outcome::Deleted => "DELETED",
        Outcome::Failed(failure) => failure_line(*failure),
    };
    write_line(out, line);
}

fn write_meta(out: &mut Output, meta: &Meta<'_>, outcome: &Outcome<'_>) {
    match outcome {
        Outcome::Found(found) if meta.verb != MetaVerb::Inspect => write_found(out, meta, found),
        _ => write_meta_line(out.writer(), meta, outcome),
    }
}

/// An answer that shows no value.
fn write_meta_line(out: &mut Vec<u8>, meta: &Meta<'_>, outcome: &Outcome<'_>) {
    match outcome {
        Outcome::Found(found) => write_inspected(out, meta, &found.item),
        Outcome::Stored(item) => {
            if !meta.quiet {
                write_status(out, meta, b"HD", Some(item));
            }
        }
        Outcome::Deleted => {
            if !meta.quiet {
                write_status(out, meta, b"HD", None);
            }
        }
        Outcome::NotFound => match meta.verb {
            MetaVerb::Inspect => write_line(out, "EN"),
            MetaVerb::Get => write_miss(out, meta),
            _ => write_status(out, meta, b"NF", None),
        },
        // A reader receives a miss when the owner cannot be asked.
        Outcome::Failed(Failure::Unavailable(_)) if meta.verb == MetaVerb::Get => write_miss(out, meta),
        Outcome::NotStored => write_status(out, meta, b"NS", None),
        Outcome::Exists => write_status(out, meta, b"EX", None),
        // Errors are sent despite q.
        Outcome::Failed(failure) => write_line(out, failure_line(*failure)),
    }
}

fn write_miss(out: &mut Vec<u8>, meta: &Meta<'_>) {
    if !meta.quiet {
        write_status(out, meta, b"EN", None);
    }
}

fn write_key(out: &mut Vec<u8>, key: &[u8], binary: bool) {
    out.extend_from_slice(b" k");
    write_key_argument(out, key, binary);
}

fn write_flag(out: &mut Vec<u8>, letter: u8, number: impl itoa::Integer) {
    out.extend_from_slice(&[b' ', letter]);
    write_number(out, number);
}

fn write_token(out: &mut Vec<u8>, token: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(token);
}

/// A line without a value: the opaque and the key come back, and of an `ms` its token and size.
fn write_status(out: &mut Vec<u8>, meta: &Meta<'_>, status: &[u8; 2], stored: Option<&ItemView<'_>>) {
    out.extend_from_slice(status);
    for token in meta.flags {
        match (token.first(), meta.verb) {
            (Some(b'O'), _) => write_token(out, token),
            (Some(b'k'), _) => write_key(out, meta.key, meta.key_binary),
            (Some(b'c'), MetaVerb::Set) => write_flag(out, b'c', stored.map_or(0, |item| item.cas)),
            (Some(b's'), MetaVerb::Set) => {
                write_flag(out, b's', stored.map_or(meta.value_len, |item| item.value_len));
            }
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The answer to an `mg` or `ma` that found its item, or made one.
fn write_found(out: &mut Output, meta: &Meta<'_>, found: &Found<'_>) {
    let item = &found.item;
    if meta.verb == MetaVerb::Arithmetic && meta.quiet {
        return;
    }
    let value = meta.value && meta.known != Some(item.cas);
    out.reserve_for(item, item.key.len() + VALUE_LINE_MAX);
    let line = out.writer();
    if value {
        line.extend_from_slice(b"VA ");
        write_number(line, item.value.len());
    } else {
        line.extend_from_slice(b"HD");
    }
    let mut ttl = if found.created { None } else { found.ttl_before };
    let mut flags = meta.flags;
    while let Some(token) = flags.next() {
        match (token.first(), meta.verb) {
            (Some(b'O'), _) => write_token(line, token),
            // The key of an mg comes back as it was stored, that of an ma as it was sent.
            (Some(b'k'), MetaVerb::Get) => write_key(line, item.key, item.key_binary),
            (Some(b'k'), _) => write_key(line, meta.key, meta.key_binary),
            (Some(b'c'), _) => write_flag(line, b'c', item.cas),
            (Some(b't'), _) => match ttl {
                Some(seconds) => write_flag(line, b't', seconds),
                None => write_token(line, b"t-1"),
            },
            (Some(b'T' | b'N'), _) if found.created && sets_ttl(flags) => ttl = found.ttl_before,
            (Some(b'N'), _) if !found.created => {}
            (Some(b'T' | b'N'), _) => ttl = item.ttl_seconds,
            (Some(b's'), MetaVerb::Get) => write_flag(line, b's', item.value_len),
            (Some(b'f'), MetaVerb::Get) => write_flag(line, b'f', item.flags),
            (Some(b'l'), MetaVerb::Get) => write_flag(line, b'l', item.idle_seconds),
            (Some(b'h'), MetaVerb::Get) => write_flag(line, b'h', u8::from(item.fetched)),
            _ => {}
        }
    }
    for (set, letter) in [(found.win_sent, b'Z'), (found.stale, b'X'), (found.won, b'W')] {
        if set {
            line.extend_from_slice(&[b' ', letter]);
        }
    }
    line.extend_from_slice(b"\r\n");
    if value {
        out.push_value(item);
        out.writer().extend_from_slice(b"\r\n");
    }
}

/// Whether one of these flags says when an item that was made ends.
fn sets_ttl(mut flags: Tokens<'_>) -> bool {
    flags.any(|token| matches!(token.first(), Some(b'T' | b'N')))
}

fn write_inspected(out: &mut Vec<u8>, meta: &Meta<'_>, item: &ItemView<'_>) {
    out.extend_from_slice(b"ME ");
    if item.key_binary {
        out.extend_from_slice(BASE64.encode(meta.key).as_bytes());
    } else {
        out.extend_from_slice(meta.key);
    }
    let exp = item.ttl_seconds.map_or(-1, i64::from);
    let fetch = if item.fetched { "yes" } else { "no" };
    let size = item_size(item.key.len(), item.value_len, item.flags);
    let facts =
        format!(" exp={exp} la={} cas={} fetch={fetch} cls=1 size={size}", item.idle_seconds, item.cas);
    write_line(out, &facts);
}

/// Writes a key as an argument of a meta command: base64-encoded, with `b` behind it, when it
/// came that way (crawler.c, `crawler_mgdump_eval`).
pub fn write_key_argument(out: &mut Vec<u8>, key: &[u8], binary: bool) {
    if binary {
        out.extend_from_slice(BASE64.encode(key).as_bytes());
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key);
    }
}
