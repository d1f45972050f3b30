//! The first lines of replies.

use std::time::Duration;

/// Most characters of a line of the server's that is passed on in a message.
const QUOTED_MAX: usize = 100;

/// What the first line of a reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// A value follows.
    Value(Value),
    /// There is no such item.
    Absent,
    /// The command was not understood; the line.
    NotUnderstood(String),
    /// The server fails; the line.
    Refused(String),
    /// This is no reply to the command.
    Malformed,
}

/// What is known of a value before it comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// Bytes that follow, the end of the line not counted.
    pub len: usize,
    /// The client flags.
    pub flags: u32,
    /// `None` where it never expires, or the server does not say.
    pub ttl: Option<Duration>,
    /// The number to compare with, where it was asked for.
    pub cas: Option<u64>,
    /// Whether this reply is the one that is told to make the item anew (`W`).
    pub is_won: bool,
    /// Whether somebody was told so before (`Z`).
    pub is_promised: bool,
}

/// Reads the first line of a reply to `mg`, without its end.
pub(super) fn meta(line: &[u8]) -> Head {
    let mut tokens = words(line);
    match tokens.next() {
        Some(b"EN") => Head::Absent,
        Some(b"VA") => meta_value(tokens).map_or(Head::Malformed, Head::Value),
        first => error(first, line),
    }
}

fn meta_value<'a>(mut tokens: impl Iterator<Item = &'a [u8]>) -> Option<Value> {
    let mut value = Value { len: len(tokens.next()?)?, ..Value::default() };
    let mut has_flags = false;
    for token in tokens {
        let (letter, rest) = token.split_first()?;
        match letter {
            b'f' => {
                value.flags = number_u32(rest)?;
                has_flags = true;
            }
            b't' => value.ttl = ttl(rest)?,
            b'c' => value.cas = Some(str::from_utf8(rest).ok()?.parse().ok()?),
            b'W' => value.is_won = true,
            b'Z' => value.is_promised = true,
            // X, which says that it is stale, and what others may add.
            _ => {}
        }
    }
    // A client could not read the value without them.
    has_flags.then_some(value)
}

/// Seconds, or -1 for ever.
fn ttl(text: &[u8]) -> Option<Option<Duration>> {
    if text == b"-1" {
        return Some(None);
    }
    number_u32(text).map(|seconds| Some(Duration::from_secs(seconds.into())))
}

/// Reads the first line of a reply to `get` with one key, without its end.
pub(super) fn classic(line: &[u8], key: &[u8]) -> Head {
    let mut tokens = words(line);
    match tokens.next() {
        Some(b"END") if line == b"END" => Head::Absent,
        Some(b"VALUE") => classic_value(tokens, key).map_or(Head::Malformed, Head::Value),
        first => error(first, line),
    }
}

fn classic_value<'a>(mut tokens: impl Iterator<Item = &'a [u8]>, key: &[u8]) -> Option<Value> {
    if tokens.next()? != key {
        return None;
    }
    let flags = number_u32(tokens.next()?)?;
    let len = len(tokens.next()?)?;
    Some(Value { len, flags, ..Value::default() })
}

/// What stands between blanks.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// Digits alone.
fn number_u32(text: &[u8]) -> Option<u32> {
    text.iter().all(u8::is_ascii_digit).then(|| str::from_utf8(text).ok()?.parse().ok())?
}

fn len(text: &[u8]) -> Option<usize> {
    number_u32(text).and_then(|len| usize::try_from(len).ok())
}

fn error(first: Option<&[u8]>, line: &[u8]) -> Head {
    let quoted = || line[..line.len().min(QUOTED_MAX)].escape_ascii().to_string();
    match first {
        Some(b"ERROR" | b"CLIENT_ERROR") => Head::NotUnderstood(quoted()),
        Some(b"SERVER_ERROR") => Head::Refused(quoted()),
        _ => Head::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_reply_says_all_there_is_to_know() {
        let value = Value { len: 5, flags: 7, ttl: Some(Duration::from_secs(90)), ..Value::default() };
        assert_eq!(meta(b"VA 5 f7 t90"), Head::Value(value.clone()));
        let stale = Value { cas: Some(u64::MAX), is_won: true, ..value.clone() };
        assert_eq!(meta(b"VA 5 f7 t90 c18446744073709551615 X W"), Head::Value(stale));
        assert_eq!(meta(b"VA 5 f7 t90 Z"), Head::Value(Value { is_promised: true, ..value }));
        assert_eq!(meta(b"EN"), Head::Absent);
    }

    #[test]
    fn a_lifetime_is_never_zero_or_for_ever() {
        let ttl = |line: &[u8]| match meta(line) {
            Head::Value(value) => value.ttl,
            other => panic!("{other:?}"),
        };
        assert_eq!(ttl(b"VA 0 f0 t0"), Some(Duration::ZERO));
        assert_eq!(ttl(b"VA 0 f0 t-1"), None);
        assert_eq!(ttl(b"VA 0 f0"), None);
    }

    #[test]
    fn a_classic_reply_is_to_the_key() {
        let value = Value { len: 2, flags: u32::MAX, ..Value::default() };
        assert_eq!(classic(b"VALUE k 4294967295 2", b"k"), Head::Value(value.clone()));
        assert_eq!(classic(b"VALUE k 4294967295 2 77", b"k"), Head::Value(value));
        assert_eq!(classic(b"END", b"k"), Head::Absent);
        assert_eq!(classic(b"VALUE other 0 2", b"k"), Head::Malformed);
    }

    #[test]
    fn errors_are_told_apart_and_passed_on_in_part() {
        assert_eq!(meta(b"ERROR"), Head::NotUnderstood("ERROR".into()));
        assert_eq!(meta(b"CLIENT_ERROR bad\x1b"), Head::NotUnderstood("CLIENT_ERROR bad\\x1b".into()));
        let long = [&b"SERVER_ERROR "[..], &[b'x'; 200]].concat();
        let Head::Refused(quoted) = classic(&long, b"k") else { panic!("a server error is one") };
        assert_eq!(quoted.len(), QUOTED_MAX);
    }

    #[test]
    fn anything_else_is_malformed() {
        for line in [
            &b""[..],
            b"VA",
            b"VA x f0",
            b"VA -1 f0",
            b"VA 5",
            b"VA 5 fx",
            b"VA 5 f0 t-2",
            b"VA 5 f0 tx",
            b"VA 5 f0 c",
            b"VA 4294967296 f0",
            b"HD",
            b"OK",
            b"END",
            b"VALUE k 0 2",
            b"HTTP/1.1 400 Bad Request",
            b"SERVER_ERRORS",
        ] {
            assert_eq!(meta(line), Head::Malformed, "{}", line.escape_ascii());
        }
        for line in
            [&b""[..], b"VALUE", b"VALUE k", b"VALUE k 0", b"VALUE k x 2", b"VALUE k 0 x", b"END x", b"EN"]
        {
            assert_eq!(classic(line, b"k"), Head::Malformed, "{}", line.escape_ascii());
        }
    }
}
