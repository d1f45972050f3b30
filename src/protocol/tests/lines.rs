//! Lines that are too long, values that are skipped, keys in base64: what is seen of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;

use super::*;
use crate::item::KEY_MAX;

fn check(input: impl AsRef<[u8]>, expected: &[&str]) {
    let input = input.as_ref();
    let shown = &input[..input.len().min(80)];
    assert_eq!(seen(input), expected, "{}", shown.escape_ascii());
}

/// What is seen of input that comes in reads of `piece` bytes.
fn in_pieces(input: &[u8], piece: usize) -> Feed {
    let mut feed = Feed::new(Recorder::default());
    input.chunks(piece).for_each(|piece| feed.read(piece));
    feed
}

#[test]
fn lines_end_with_or_without_a_return() {
    check("get a\r\nget b\nmn \r\nmn \n", &["get a", "get b", "NoOp", "NoOp"]);
    check("GET a\r\n", &["Unknown"]);
}

#[test]
fn a_line_has_four_bytes_or_more_and_begins_with_its_command() {
    check("\r\n\n \r\nx\r\nmn\n", &["BadFormat"; 5]);
    check(
        "xy\r\n  \r\n mn\r\n get k\r\n set k 0 0 2\r\nmn\r\n",
        &["Unknown", "Unknown", "Unknown", "Unknown", "Unknown", "NoOp"],
    );
}

#[test]
fn a_line_without_an_end_closes_the_connection() {
    let just = [&b"x".repeat(2048)[..]].concat();
    check(&just, &[]);
    check([&just[..], b"x"].concat(), &["closed"]);
    check([&just[..], b"xx\r\nmn\r\n"].concat(), &["Unknown", "NoOp"]);
    for (start, stays) in
        [("get ", true), ("  gets ", false), ("gat 0 ", false), ("mg ", false), ("\tget ", false)]
    {
        let line = [start.as_bytes(), &b"k ".repeat(1500)].concat();
        let feed = in_pieces(&line, 500);
        assert_eq!(feed.closed, !stays, "{start:?}");
        assert!(feed.seen().is_empty(), "nothing before the end of the line");
    }
}

#[test]
fn http_closes_the_connection_without_a_word() {
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["closed"]);
    check("POST /x HTTP/1.0 \r\nmn\r\n", &["closed"]);
    check("get HTTP/1.1\r\n", &["get HTTP/1.1"]);
}

#[test]
fn what_is_behind_a_quit_is_not_looked_at() {
    let mut feed = Feed::new(Recorder::default());
    feed.read(b"mn\r\nquit\r\nmn\r\n");
    assert_eq!(feed.seen(), ["NoOp", "Quit"]);
    assert!(feed.closed);
    assert_eq!(
        feed.codec.with(&mut feed.recorder).decode(&mut BytesMut::from(&b"mn\r\n"[..])).unwrap(),
        Some(BatchEnd::Closed)
    );
    assert_eq!(feed.seen().len(), 2);
}

#[test]
fn a_refused_line_takes_its_value_with_it_when_its_length_is_known() {
    let long = "k".repeat(KEY_MAX + 1);
    let stays = |line: &str, error: &str| check(format!("{line}\r\nmn\r\nmn\r\n"), &[error, "NoOp", "NoOp"]);
    let takes = |line: &str, error: &str| check(format!("{line}\r\nmn\r\nmn\r\n"), &[error, "NoOp"]);
    takes("set k x 0 2", "BadFormat");
    takes("set k 18446744073709551616 0 2", "BadFormat");
    takes("set k 0 9223372036854775808 2", "BadFormat");
    takes("set k 0 x 2", "BadFormat");
    takes(&format!("set {long} 0 0 2"), "BadFormat");
    takes(&format!("set {long} 0 0 2 noreply"), "BadFormat quiet");
    takes("cas k 0 0 2 x", "BadFormat");
    takes("cas k 0 0 2", "BadFormat");
    takes("cas k 0 0 2 ", "BadFormat");
    takes("cas k 0 0 2 noreply", "BadFormat quiet");
    takes(&format!("ms {long} 2"), "KeyTooLong");
    takes("ms k 2 q q", "DuplicateFlag");
    takes("ms k 2 Mz", "InvalidSetMode");
    takes("ms ! 2 b", "KeyDecoding");
    stays("set k 0 0 -1", "BadFormat");
    stays("set k 0 0 x", "BadFormat");
    stays("set k 0 0 2147483646", "BadFormat");
    stays("set k 0 0", "BadFormat");
    stays("set k 0 0 +2", "BadFormat");
    stays("set k 0 0 000000000002", "BadFormat");
    stays("ms k", "BadFormat");
    stays("ms k -1", "BadFormat");
    check("set k 0 0 2147483645\r\nmn\r\n", &["TooLarge k Set"]);
}

#[test]
fn a_value_over_the_limit_is_skipped() {
    let value = "x".repeat(ITEM_SIZE_MAX);
    let len = value.len();
    let input = |line: &str| format!("{line}\r\n{value}\r\nmn\r\n");
    check(input(&format!("set k 0 0 {len}")), &["TooLarge k Set", "NoOp"]);
    check(input(&format!("set k 0 0 {len} noreply")), &["TooLarge k Set quiet", "NoOp"]);
    check(input(&format!("add k 0 0 {len}")), &["TooLarge k Add", "NoOp"]);
    check(input(&format!("cas k 0 0 {len} 1")), &["TooLarge k Add", "NoOp"]);
    check(input(&format!("ms k {len} q ME")), &["TooLarge k Set", "NoOp"]);
    // The largest that fits, and one more: 48 + 8 + key and NUL + value and line end.
    let most = ITEM_SIZE_MAX - 48 - 8 - 2 - 2;
    check(format!("set k 0 0 {most}\r\n{}\r\n", &value[..most]), &[&format!("Set k={}", &value[..most])]);
    check(format!("set k 0 0 {}\r\n{}\r\n", most + 1, &value[..=most]), &["TooLarge k Set"]);
}

#[test]
fn a_value_that_does_not_end_where_it_should_is_refused_alone() {
    check("set k 0 0 2\r\nabcd\r\nmn\r\n", &["BadDataChunk", "BadFormat", "NoOp"]);
    check("set k 0 0 2 noreply\r\nabcdmn\r\n", &["BadDataChunk quiet", "NoOp"]);
    check("ms k 2 q\r\nab\n\nmn\r\n", &["BadDataChunk", "NoOp"]);
    check("set k 0 0 0\r\n\r\nset k 0 0 2\r\n\r\n\r\n", &["Set k=", "Set k=\\r\\n"]);
}

#[test]
fn an_over_long_key_spoils_its_multiget() {
    let (longest, long) = ("k".repeat(KEY_MAX), "k".repeat(KEY_MAX + 1));
    check(format!("get {longest}\r\n"), &[&format!("get {longest}")]);
    check(format!("get a {longest}\n"), &["get a", &format!("get {longest}")]);
    for line in
        [format!("get {long}"), format!("get a {long}"), format!("get {long} a"), format!("gat 0 a {long} ")]
    {
        for end in ["\n", "\r\n"] {
            check(format!("{line}{end}mn\r\n"), &["BadFormat", "NoOp"]);
        }
    }
}

#[test]
fn an_over_long_key_in_an_endless_multiget_ends_it() {
    let start = format!("get {}", "a ".repeat(40_000));
    for len in [KEY_MAX + 1, KEY_MAX + 2, 3 * KEY_MAX] {
        for end in ["", " a", "\r", " "] {
            for piece in [1000, 1003] {
                let input = format!("{start}{}{end}\nmn\r\n", "k".repeat(len));
                let feed = in_pieces(input.as_bytes(), piece);
                assert_eq!(feed.seen().len(), 40_002);
                assert_eq!(feed.seen()[40_000..], ["BadFormat", "NoOp"], "{len} {end:?}");
            }
        }
    }
    let input = format!("{start}{}\r\nmn\r\n", "k".repeat(KEY_MAX));
    assert_eq!(in_pieces(input.as_bytes(), 777).seen()[40_001], "NoOp");
}

#[test]
fn before_a_login_nothing_else_is_looked_at() {
    let mut feed = Feed::new(Recorder { locked: true, ..Recorder::default() });
    feed.read(b"get a\r\nset\r\nmn\r\nset a 0 0 3\r\nu p");
    feed.read(b"\r\nmn\r\n");
    assert_eq!(feed.seen(), ["Unauthenticated", "Unauthenticated", "Unauthenticated", "login u p", "NoOp"]);

    let mut feed = Feed::new(Recorder { locked: true, ..Recorder::default() });
    let long = format!("set a 0 0 2049\r\n{}\r\nmn\r\n", "x".repeat(2049));
    feed.read(long.as_bytes());
    assert_eq!(feed.seen(), ["Unauthenticated", "Unauthenticated"], "the value is skipped");

    let mut feed = Feed::new(Recorder { locked: true, ..Recorder::default() });
    feed.read(&[b"get ".as_slice(), &b"k ".repeat(1100)].concat());
    assert!(feed.closed, "no endless lines from strangers");
}

proptest! {
    #[test]
    fn keys_in_base64_are_decoded(key in proptest::collection::vec(any::<u8>(), 1..200)) {
        let encoded = BASE64.encode(&key);
        let shown = key.escape_ascii();
        let expected = if encoded.len() > KEY_MAX { "KeyTooLong".into() } else { format!("get {shown}") };
        prop_assert_eq!(seen(format!("mg {encoded} v b\r\n").as_bytes()), [expected]);
        let expected = if encoded.len() > KEY_MAX { "KeyTooLong".into() } else { format!("Set {shown}=x") };
        prop_assert_eq!(seen(format!("ms {encoded} 1 b\r\nx\r\n").as_bytes()), [expected]);
    }
}

#[test]
fn the_key_is_known_before_the_value_is_there() {
    for begun in ["set key 0 0 100\r\nva", "append  key 0 0 100 noreply\r\nva", "ms key 100 T0\r\nva"] {
        let mut feed = Feed::new(Recorder::default());
        feed.read(begun.as_bytes());
        assert_eq!(feed.codec.unfinished_key(&feed.buffer), Some(&b"key"[..]), "{begun:?}");
    }
    // An encoded one is not that by which the value is placed, and a value that is thrown away has none.
    for begun in ["ms a2V5 100 T0 b\r\nva", "set key 0 0 99999999\r\nva"] {
        let mut feed = Feed::new(Recorder::default());
        feed.read(begun.as_bytes());
        assert_eq!(feed.codec.unfinished_key(&feed.buffer), None, "{begun:?}");
    }
}
