//! Outcomes to packets.

use crate::command::{Failure, Found, Outcome, SetMode};
use crate::protocol::binary::{AUTH_CONTINUE, HEADER_LEN, Head, Status};
use crate::protocol::error::failure_line;
use crate::protocol::output::Output;

/// First byte of every answer (protocol_binary.h, `PROTOCOL_BINARY_RES`).
const MAGIC: u8 = 0x81;

/// Bytes of the client flags, before the key and the value of what was found.
const FLAGS_LEN: usize = size_of::<u32>();

/// How the outcome of a command is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binary<'a> {
    /// What the answer repeats.
    pub head: Head,
    /// Its content.
    pub form: Form,
    /// The requested key.
    pub key: &'a [u8],
}

/// The content of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The item, with its value and its key, or without.
    Get {
        /// `touch` says no.
        with_value: bool,
        /// `getk`, `gatk`
        with_key: bool,
    },
    /// The token of what was stored.
    Store(SetMode),
    /// The item is gone.
    Delete,
    /// The new number.
    Arithmetic,
}

/// The fields in the header of an answer, besides the repeated ones.
#[derive(Default)]
struct Lengths {
    status: u16,
    extras: usize,
    key: usize,
    value: usize,
    cas: u64,
}

#[inline]
fn write_header(out: &mut Vec<u8>, head: Head, lengths: &Lengths) {
    let body = lengths.extras + lengths.key + lengths.value;
    let mut header = [0; HEADER_LEN];
    (header[0], header[1]) = (MAGIC, head.opcode);
    header[2..4].copy_from_slice(&(lengths.key as u16).to_be_bytes());
    header[4] = lengths.extras as u8;
    header[6..8].copy_from_slice(&lengths.status.to_be_bytes());
    header[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    header[12..16].copy_from_slice(&head.opaque);
    header[16..].copy_from_slice(&lengths.cas.to_be_bytes());
    out.extend_from_slice(&header);
}

/// Writes the answer to a command after the content of `out`.
#[inline(never)]
pub fn write(out: &mut Output, reply: &Binary<'_>, outcome: &Outcome<'_>) {
    match (reply.form, outcome) {
        (Form::Get { with_value, with_key }, Outcome::Found(found)) => {
            write_found(out, reply.head, found, with_value, with_key);
        }
        _ => write_status(out.writer(), reply, outcome),
    }
}

/// An answer that shows no value.
fn write_status(out: &mut Vec<u8>, reply: &Binary<'_>, outcome: &Outcome<'_>) {
    let head = reply.head;
    match (reply.form, outcome) {
        // A reader receives a miss when the owner cannot be asked.
        (Form::Get { with_value: true, with_key }, _) => write_miss(out, reply, with_key),
        (Form::Get { .. }, Outcome::NotFound) => write_miss(out, reply, false),
        // A quiet command gets no answer for a success, not even the new number.
        (_, Outcome::Found(_) | Outcome::Stored(_) | Outcome::Deleted) if head.quiet => {}
        (Form::Arithmetic, Outcome::Found(found)) => write_number(out, head, found),
        (_, Outcome::Stored(item)) => {
            write_header(out, head, &Lengths { cas: item.cas, ..Lengths::default() });
        }
        (_, Outcome::Found(_) | Outcome::Deleted) => write_header(out, head, &Lengths::default()),
        (_, Outcome::NotFound) => write_error(out, head, Status::NotFound),
        (_, Outcome::Exists) => write_error(out, head, Status::Exists),
        (Form::Store(SetMode::Add), Outcome::NotStored) => write_error(out, head, Status::Exists),
        (Form::Store(SetMode::Replace), Outcome::NotStored) => write_error(out, head, Status::NotFound),
        (_, Outcome::NotStored) => write_error(out, head, Status::NotStored),
        (form, Outcome::Failed(failure)) => write_failure(out, head, form, *failure),
    }
}

#[inline]
fn write_found(out: &mut Output, head: Head, found: &Found<'_>, with_value: bool, with_key: bool) {
    let item = &found.item;
    let key = if with_key { item.key } else { &[] };
    let value = if with_value { item.value.len() } else { 0 };
    out.reserve_for(item, HEADER_LEN + FLAGS_LEN + key.len());
    let lengths = Lengths { status: 0, extras: FLAGS_LEN, key: key.len(), value, cas: item.cas };
    let line = out.writer();
    write_header(line, head, &lengths);
    line.extend_from_slice(&item.flags.to_be_bytes());
    line.extend_from_slice(key);
    if with_value {
        out.push_value(item);
    }
}

/// A miss is told with the key in place of the text, where the key was wanted.
fn write_miss(out: &mut Vec<u8>, reply: &Binary<'_>, with_key: bool) {
    if reply.head.quiet {
        return;
    }
    if !with_key {
        return write_error(out, reply.head, Status::NotFound);
    }
    let lengths = Lengths { status: Status::NotFound as u16, key: reply.key.len(), ..Lengths::default() };
    write_header(out, reply.head, &lengths);
    out.extend_from_slice(reply.key);
}

/// The new number travels in 8 bytes, not in digits.
fn write_number(out: &mut Vec<u8>, head: Head, found: &Found<'_>) {
    let digits = found.item.value.iter().take_while(|byte| byte.is_ascii_digit());
    let number =
        digits.fold(0_u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    write_header(out, head, &Lengths { value: size_of::<u64>(), cas: found.item.cas, ..Lengths::default() });
    out.extend_from_slice(&number.to_be_bytes());
}

#[cold]
fn write_failure(out: &mut Vec<u8>, head: Head, form: Form, failure: Failure) {
    match failure {
        Failure::NonNumeric => write_error(out, head, Status::NonNumeric),
        Failure::TooLarge => write_error(out, head, Status::TooLarge),
        Failure::OutOfMemory if form == Form::Arithmetic => {
            write_text(out, head, Status::OutOfMemory, "Out of memory allocating new item");
        }
        Failure::OutOfMemory => write_error(out, head, Status::OutOfMemory),
        Failure::Unavailable(_) => {
            let line = failure_line(failure);
            write_text(out, head, Status::Temporary, line.strip_prefix("SERVER_ERROR ").unwrap_or(line));
        }
    }
}

/// Writes that a request was not carried out, and why. Quiet commands receive it, too.
pub fn write_error(out: &mut Vec<u8>, head: Head, status: Status) {
    write_text(out, head, status, status.text());
}

fn write_text(out: &mut Vec<u8>, head: Head, status: Status, text: &str) {
    let lengths = Lengths { status: status as u16, value: text.len(), ..Lengths::default() };
    write_header(out, head, &lengths);
    out.extend_from_slice(text.as_bytes());
}

/// Writes that a request was carried out, with its data; nothing where that is quiet.
pub fn write_done(out: &mut Vec<u8>, head: Head, text: &[u8]) {
    if !head.quiet {
        write_header(out, head, &Lengths { value: text.len(), ..Lengths::default() });
        out.extend_from_slice(text);
    }
}

/// Writes that a login needs more.
pub fn write_continue(out: &mut Vec<u8>, head: Head) {
    write_header(out, head, &Lengths { status: AUTH_CONTINUE, ..Lengths::default() });
}

/// Writes one statistic.
pub fn write_stat(out: &mut Vec<u8>, head: Head, name: &[u8], value: &[u8]) {
    write_header(out, head, &Lengths { key: name.len(), value: value.len(), ..Lengths::default() });
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Writes the text protocol's lines for a command that is not about one key as packets: statistics, or one line.
pub fn write_lines(out: &mut Vec<u8>, head: Head, lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.splitn(3, |&byte| byte == b' ');
        match words.next() {
            Some(b"STAT") => {
                let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                write_stat(out, head, name, value);
            }
            Some(b"END" | b"RESET" | b"OK") => write_done(out, head, &[]),
            Some(b"SERVER_ERROR") => {
                let why = String::from_utf8_lossy(&line["SERVER_ERROR ".len().min(line.len())..]);
                write_text(out, head, Status::Temporary, &why);
            }
            Some(b"ERROR" | b"CLIENT_ERROR") => write_error(out, head, Status::NotFound),
            _ => {}
        }
    }
}
