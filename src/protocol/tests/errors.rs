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
    ("lru_crawler enable 1", Unknown),
    ("lru_crawler crawl", Unknown),
    ("lru_crawler crawl all 2", Unknown),
    ("lru_crawler metadump all 2", Unknown),
    ("lru_crawler mgdump all 2", Unknown),
    ("lru_crawler sleep 1 2", Unknown),
    ("lru_crawler tocrawl 1 2", Unknown),
    ("lru tune 10 25 0.1", Unknown),
    ("lru tune x 25 0.1 2", Unknown),
    ("lru tune 41 40 0.1 2", HotAndWarm),
    ("lru tune 40 40 0 2", AgeFactor),
    ("lru tune 40 40 1 -2", AgeFactor),
    ("slabs automove", Unknown),
    ("slabs automove 3", Unknown),
    ("slabs automove x", BadNumber),
    ("slabs automove ratio", Unknown),
    ("slabs automove window x", BadNumber),
    ("slabs reassign 1 2", NoSlabs),
    ("slabs reassign 1", Unknown),
    ("slabs reassign 1 2 3", Unknown),
    ("a", BadFormat),
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
const ELSEWHERE: [ProtocolError; 14] = [
    NoRoomReading,
    NoRoomWriting,
    DetailUsage,
    ShutdownMode,
    BadLine,
    BadClass,
    NothingToCrawl,
    CrawlerEnabled,
    CrawlerDisabled,
    MetaDumpForbidden,
    KeyDumpForbidden,
    MetaDumpPipelined,
    KeyDumpPipelined,
    WatchPipelined,
];

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
fn a_crawl_is_for_classes_that_there_could_be() {
    for (classes, named) in [
        ("all", Ok(true)),
        ("hash", Ok(true)),
        ("1", Ok(true)),
        ("2,1,63", Ok(true)),
        (",1,", Ok(true)),
        ("2,63", Ok(false)),
        (",", Err(NothingToCrawl)),
        ("0", Err(BadClass)),
        ("64", Err(BadClass)),
        ("1,x", Err(BadClass)),
    ] {
        assert_eq!(admin::names_our_class(classes.as_bytes()), named, "{classes}");
    }
}

#[test]
fn what_slabs_automove_takes_is_agreed_to() {
    for line in ["0", "1", "2", "ratio 0.8", "freeratio 0.01", "window 30", "1 noreply"] {
        let quiet = line.ends_with("noreply");
        let tuned = format!("Tuned {{ quiet: {quiet} }}");
        assert_eq!(first(&format!("slabs automove {line}\r\n"), false), tuned, "{line}");
    }
}

#[test]
fn errors_are_one_line_each() {
    for error in ProtocolError::ALL {
        assert!(!error.as_str().contains(['\r', '\n']) && !error.as_str().is_empty());
    }
}
