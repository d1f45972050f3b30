//! Every error that a line can be answered with.

use super::*;
use crate::protocol::error::ProtocolError::{self, *};

/// A line for each; a value that may follow is left out.
const LINES: &[(&str, ProtocolError)] = &[
    ("nonsense", Unknown),
    ("verbosity", BadFormat),
    ("cache_memlimit x", Unknown),
    ("lru", Unknown),
    ("get", BadFormat),
    ("touch k", BadFormat),
    (LONG_KEY, KeyTooLong),
    ("incr k", BadFormat),
    ("verbosity x", BadNumber),
    ("ms k 0 Fx", BadFormat),
    ("set k 0 0 1\r\nxyz", BadDataChunk),
    ("delete k 1", DeleteUsage),
    ("delete k 0 0", DeleteUsage),
    ("delete k 0 noreply x", DeleteUsage),
    ("gat x k", InvalidExptime),
    ("gat 2147483648 k", InvalidExptime),
    ("touch k x", InvalidExptime),
    ("flush_all x", InvalidExptime),
    ("incr k x", InvalidDelta),
    ("decr k -1", InvalidDelta),
    ("incr k 18446744073709551616", InvalidDelta),
    ("mg k v v", DuplicateFlag),
    ("mg k \u{80}", DuplicateFlag),
    ("mg k !", InvalidFlag),
    ("md k !", InvalidFlag),
    ("ma k q q", InvalidOrDuplicateFlag),
    ("ma k Dx", InvalidOrDuplicateFlag),
    ("ma ! b", InvalidOrDuplicateFlag),
    ("mg k a b c d e f g h i j k l m n o p q r s", TooManyFlags),
    ("md k a b c d e f g h i j k l m n o p q r s", TooManyFlags),
    ("mg k Tx", BadToken),
    ("ms k 0 Cx", BadToken),
    ("mg ! b", KeyDecoding),
    ("md ! b", KeyDecoding),
    ("mg k O12345678901234567890123456789012", OpaqueTooLong),
    ("md k O12345678901234567890123456789012", OpaqueTooLong),
    ("ms k 0 Mx", InvalidSetMode),
    ("ms k 0 M", InvalidSetMode),
    ("ma k Mx", InvalidArithmeticMode),
    ("ma k M", InvalidArithmeticMode),
    ("mg k Jx", InvalidInitial),
    ("mg k Dx", InvalidDeltaValue),
    ("cache_memlimit 7", MemlimitTooSmall),
    ("cache_memlimit 1000000001", MemlimitTooLarge),
    ("lru_crawler sleep 1000001", SleepTooLong),
    ("shutdown now", ShutdownMode),
    ("lru_crawler crawl 64", BadClass),
    ("lru_crawler metadump 1,x", BadClass),
    ("slabs reassign 1 2", NoSlabs),
    ("extstore free_memchunks 1 1", NoExtstore),
];

/// A key of 251 bytes.
const LONG_KEY: &str = concat!(
    "delete ",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123",
    "012345678901234567890123456789012345678901234567890123456789012",
);

/// Told by others than the codec: the session, and the commands behind `stats`.
const ELSEWHERE: [ProtocolError; 6] =
    [TooLarge, NoRoomStoring, NoRoomReading, NoRoomWriting, DetailUsage, BadLine];

fn first(input: &str, locked: bool) -> String {
    let mut feed = Feed::new(Recorder { locked, ..Recorder::default() });
    feed.read(input.as_bytes());
    feed.seen().first().cloned().unwrap_or_default()
}

#[test]
fn each_comes_from_some_line() {
    for (line, error) in LINES {
        assert_eq!(first(&format!("{line}\r\n"), false), format!("{error:?}"), "{line}");
    }
    assert_eq!(first("get k\r\n", true), format!("{Unauthenticated:?}"));
    assert_eq!(first("set k 0 0 3\r\nu pxy", true), format!("{LoginTermination:?}"));
    let told = |error| LINES.iter().any(|(_, told)| *told == error);
    for error in ProtocolError::ALL.iter().copied() {
        let login = matches!(error, Unauthenticated | LoginTermination);
        assert!(told(error) || login || ELSEWHERE.contains(&error), "{error:?} has no line");
    }
}

#[test]
fn noreply_hides_what_is_wrong_with_the_words_alone() {
    for (line, seen) in [
        ("touch k x noreply", "InvalidExptime quiet"),
        ("incr k x noreply", "InvalidDelta quiet"),
        ("delete k 1 noreply", "DeleteUsage quiet"),
        ("flush_all x noreply", "InvalidExptime quiet"),
        ("incr k noreply", "InvalidDelta quiet"),
        ("gat x k noreply", "InvalidExptime"),
        ("touch noreply", "BadFormat"),
        ("nonsense noreply", "Unknown"),
    ] {
        assert_eq!(first(&format!("{line}\r\n"), false), seen, "{line}");
    }
}

#[test]
fn errors_are_one_line_each() {
    for error in ProtocolError::ALL {
        assert!(!error.as_str().contains(['\r', '\n']) && !error.as_str().is_empty());
    }
}
