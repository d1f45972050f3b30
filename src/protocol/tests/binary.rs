//! Packets of the binary protocol, whole, cut, and with lengths that lie.

use proptest::prelude::*;

use super::*;
use crate::command::{Arithmetic, Delete, Failure, Found, Get, Outcome, Set, SetMode, Unavailable};
use crate::item::{Exptime, ItemView, KEY_MAX};
use crate::protocol::binary::reply::{self, Binary, Form};
use crate::protocol::binary::{Ask, HEADER_LEN, Head, MAGIC, Status};
use crate::protocol::output::Output;
use crate::protocol::reply::Reply;
use crate::shown::Cut;

const OPAQUE: [u8; 4] = *b"opaq";

/// Every opcode, with extras of the right length, and whether there is a key.
const OPCODES: &[(u8, usize, bool)] = &[
    (0x00, 0, true),
    (0x01, 8, true),
    (0x02, 8, true),
    (0x03, 8, true),
    (0x04, 0, true),
    (0x05, 20, true),
    (0x06, 20, true),
    (0x07, 0, false),
    (0x08, 4, false),
    (0x09, 0, true),
    (0x0a, 0, false),
    (0x0b, 0, false),
    (0x0c, 0, true),
    (0x0d, 0, true),
    (0x0e, 0, true),
    (0x0f, 0, true),
    (0x10, 0, true),
    (0x11, 8, true),
    (0x12, 8, true),
    (0x13, 8, true),
    (0x14, 0, true),
    (0x15, 20, true),
    (0x16, 20, true),
    (0x17, 0, false),
    (0x18, 0, false),
    (0x19, 0, true),
    (0x1a, 0, true),
    (0x1b, 4, false),
    (0x1c, 4, true),
    (0x1d, 4, true),
    (0x1e, 4, true),
    (0x20, 0, false),
    (0x21, 0, true),
    (0x22, 0, true),
    (0x23, 4, true),
    (0x24, 4, true),
];

fn is_quiet(opcode: u8) -> bool {
    matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
}

fn takes_value(opcode: u8) -> bool {
    matches!(opcode, 0x01..=0x03 | 0x0e | 0x0f | 0x11..=0x13 | 0x19 | 0x1a | 0x21 | 0x22)
}

fn packet(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = extras.len() + key.len() + value.len();
    let mut packet = header(opcode, extras.len() as u8, key.len() as u16, body as u32);
    packet[16..24].copy_from_slice(&cas.to_be_bytes());
    [&packet, extras, key, value].concat()
}

/// A header with whatever lengths.
fn header(opcode: u8, extras: u8, key: u16, body: u32) -> Vec<u8> {
    let mut header = vec![0; HEADER_LEN];
    (header[0], header[1], header[4]) = (MAGIC, opcode, extras);
    header[2..4].copy_from_slice(&key.to_be_bytes());
    header[8..12].copy_from_slice(&body.to_be_bytes());
    header[12..16].copy_from_slice(&OPAQUE);
    header
}

fn head(opcode: u8, quiet: bool) -> Head {
    Head { opcode, opaque: OPAQUE, quiet }
}

/// The requests of an input, with all that is in them, and whether it closes.
fn whole(input: &[u8]) -> (Vec<String>, bool) {
    let mut feed = Feed::new(Recorder::default());
    feed.read(input);
    assert!(feed.closed || feed.buffer.is_empty(), "{} bytes are left", feed.buffer.len());
    (feed.recorder.whole, feed.closed)
}

#[track_caller]
fn assert_command(input: &[u8], verb: Verb<'_>, head: Head, form: Form) {
    let command = Command { key: b"key", key_binary: false, verb };
    let request = Request::Key(command, Reply::Binary(Binary { head, form, key: b"key" }));
    assert_eq!(whole(input), (vec![format!("{request:?}")], false));
}

#[track_caller]
fn assert_ask(input: &[u8], opcode: u8, quiet: bool, ask: Ask<'_>, closes: bool) {
    let request = Request::Binary(head(opcode, quiet), ask);
    assert_eq!(whole(input), (vec![format!("{request:?}")], closes));
}

fn refused(status: Status, closes: bool) -> Ask<'static> {
    Ask::Refused { status, closes }
}

#[test]
fn gets_and_touches() {
    let get = |touch, loads| Verb::Get(Get { touch, loads, ..Get::PLAIN });
    let form = |with_value, with_key| Form::Get { with_value, with_key };
    for (opcode, quiet, with_key) in
        [(0x00, false, false), (0x09, true, false), (0x0c, false, true), (0x0d, true, true)]
    {
        let input = packet(opcode, 0, b"", b"key", b"");
        assert_command(&input, get(None, true), head(opcode, quiet), form(true, with_key));
    }
    let extras = 3_000_000_000_u32.to_be_bytes();
    let touch = Some(Exptime::At(3_000_000_000));
    for (opcode, quiet, with_value, with_key) in [
        (0x1c, false, false, false),
        (0x1d, false, true, false),
        (0x1e, true, true, false),
        (0x23, false, true, true),
        (0x24, true, true, true),
    ] {
        let input = packet(opcode, 0, &extras, b"key", b"");
        assert_command(&input, get(touch, with_value), head(opcode, quiet), form(with_value, with_key));
    }
}

#[test]
fn values_are_stored() {
    let extras = [&7_u32.to_be_bytes()[..], &60_u32.to_be_bytes()].concat();
    for (opcode, quiet, mode) in [
        (0x01, false, SetMode::Set),
        (0x02, false, SetMode::Add),
        (0x03, false, SetMode::Replace),
        (0x11, true, SetMode::Set),
        (0x12, true, SetMode::Add),
        (0x13, true, SetMode::Replace),
    ] {
        let set = Set { value: b"v\r\n", flags: 7, exptime: Exptime::In(60), ..Set::PLAIN };
        let plain = packet(opcode, 0, &extras, b"key", b"v\r\n");
        assert_command(&plain, Verb::Set(Set { mode, ..set }), head(opcode, quiet), Form::Store(mode));
        // A token makes each of them a cas.
        let cas = Set { mode: SetMode::Set, compare: Some(9), ..set };
        let input = packet(opcode, 9, &extras, b"key", b"v\r\n");
        assert_command(&input, Verb::Set(cas), head(opcode, quiet), Form::Store(SetMode::Set));
    }
    for (opcode, quiet, mode) in [
        (0x0e, false, SetMode::Append),
        (0x0f, false, SetMode::Prepend),
        (0x19, true, SetMode::Append),
        (0x1a, true, SetMode::Prepend),
    ] {
        let set = Set { mode, value: b"", compare: Some(9), ..Set::PLAIN };
        let input = packet(opcode, 9, b"", b"key", b"");
        assert_command(&input, Verb::Set(set), head(opcode, quiet), Form::Store(mode));
    }
}

#[test]
fn deletes_and_sums() {
    for (opcode, quiet) in [(0x04, false), (0x14, true)] {
        for (cas, compare) in [(0, None), (3, Some(3))] {
            let verb = Verb::Delete(Delete { compare, ..Delete::default() });
            assert_command(&packet(opcode, cas, b"", b"key", b""), verb, head(opcode, quiet), Form::Delete);
        }
    }
    for (opcode, quiet, decrement) in
        [(0x05, false, false), (0x06, false, true), (0x15, true, false), (0x16, true, true)]
    {
        for (exptime, vivify) in [
            (0, Some(Exptime::Never)),
            (60, Some(Exptime::In(60))),
            (u32::MAX - 1, Some(Exptime::At(u64::from(u32::MAX) - 1))),
            (u32::MAX, None),
        ] {
            let extras =
                [&u64::MAX.to_be_bytes()[..], &5_u64.to_be_bytes(), &u32::to_be_bytes(exptime)].concat();
            let verb = Verb::Arithmetic(Arithmetic {
                decrement,
                delta: u64::MAX,
                initial: 5,
                vivify,
                ..Arithmetic::PLAIN
            });
            let input = packet(opcode, 0, &extras, b"key", b"");
            assert_command(&input, verb, head(opcode, quiet), Form::Arithmetic);
        }
    }
}

#[test]
fn what_is_not_about_one_key() {
    for (opcode, quiet, extras, key, ask) in [
        (0x07, false, &b""[..], &b""[..], Ask::Quit),
        (0x17, true, b"", b"", Ask::Quit),
        (0x08, false, b"", b"", Ask::Flush(Exptime::Never)),
        (0x18, true, b"\0\0\0\x0a", b"", Ask::Flush(Exptime::In(10))),
        (0x0a, false, b"", b"", Ask::NoOp),
        (0x0b, false, b"", b"", Ask::Version),
        (0x10, false, b"", b"", Ask::Stats(b"")),
        (0x10, false, b"", b"settings", Ask::Stats(b"settings")),
        (0x1b, false, b"\0\0\0\x02", b"", Ask::Verbosity(2)),
        (0x20, false, b"", b"", Ask::Mechanisms),
    ] {
        assert_ask(&packet(opcode, 0, extras, key, b""), opcode, quiet, ask, false);
    }
    for (opcode, begins) in [(0x21, true), (0x22, false)] {
        let ask = Ask::Login { begins, mechanism: b"PLAIN", message: b"\0ann\0apple" };
        assert_ask(&packet(opcode, 0, b"", b"PLAIN", b"\0ann\0apple"), opcode, false, ask, false);
    }
    let long = packet(0x21, 0, b"", &[b'm'; 33], b"message");
    assert_ask(&long, 0x21, false, refused(Status::Invalid, false), false);
    let long = packet(0x21, 0, b"", b"PLAIN", &[b'm'; 2049]);
    assert_ask(&long, 0x21, false, refused(Status::OutOfMemory, false), false);
}

#[test]
fn lengths_that_do_not_suit_close_before_more_is_waited_for() {
    for &(opcode, extras_len, has_key) in OPCODES {
        let quiet = is_quiet(opcode);
        let (extras, key) = (extras_len as u8, if has_key { 3 } else { 0 });
        let fits = u32::from(extras) + u32::from(key);
        // More than there is room for.
        for header in [header(opcode, extras + 1, key, fits), header(opcode, extras, fits as u16 + 1, fits)] {
            assert_ask(&header, opcode, quiet, refused(Status::Unknown, true), true);
        }
        let invalid = |header: Vec<u8>| {
            assert_ask(&header, opcode, quiet, refused(Status::Invalid, true), true);
        };
        invalid(header(opcode, extras, KEY_MAX as u16 + 1, 1000));
        invalid(header(opcode, extras + 1, key, fits + 1));
        if extras > 0 {
            invalid(header(opcode, extras - 1, key, fits - 1));
        }
        if !has_key {
            invalid(header(opcode, extras, 3, fits + 3));
            invalid(header(opcode, extras, 0, fits + 3));
        } else if opcode != 0x10 {
            invalid(header(opcode, extras, 0, fits - 3));
        }
        if has_key && !takes_value(opcode) && !matches!(opcode, 0x10 | 0x1c..=0x1e | 0x23 | 0x24) {
            invalid(header(opcode, extras, key, fits + 1));
        }
    }
}

#[test]
fn an_unknown_command_is_skipped_whole() {
    for opcode in (0..=u8::MAX).filter(|opcode| !OPCODES.iter().any(|(known, ..)| known == opcode)) {
        let input = [packet(opcode, 0, b"extras", b"key", b"value"), packet(0x0a, 0, b"", b"", b"")].concat();
        let (seen, closed) = whole(&input);
        let unknown = Request::Binary(head(opcode, false), refused(Status::Unknown, false));
        let noop = Request::Binary(head(0x0a, false), Ask::NoOp);
        assert_eq!((seen, closed), (vec![format!("{unknown:?}"), format!("{noop:?}")], false));
    }
}

#[test]
fn another_first_byte_closes() {
    let mut input = packet(0x0a, 0, b"", b"", b"");
    input.extend_from_slice(b"get k\r\n");
    let noop = Request::Binary(head(0x0a, false), Ask::NoOp);
    assert_eq!(whole(&input), (vec![format!("{noop:?}")], true));
    // And there is no change to this protocol later on.
    let input = [&b"mn\r\n"[..], &packet(0x07, 0, b"", b"", b""), b"\r\n"].concat();
    assert_eq!(seen(&input), ["NoOp", "Unknown"]);
}

#[test]
fn a_value_over_the_limit_is_skipped_and_not_kept() {
    let value = vec![b'x'; ITEM_SIZE_MAX];
    for (opcode, extras, mode, command) in [
        (0x01, &b"\0\0\0\0\0\0\0\0"[..], SetMode::Set, "cas"),
        (0x12, b"\0\0\0\0\0\0\0\0", SetMode::Add, "cas"),
        (0x19, b"", SetMode::Append, "append"),
    ] {
        let input = packet(opcode, 5, extras, b"key", &value);
        let mut feed = Feed::new(Recorder::default());
        for piece in input.chunks(1000) {
            feed.read(piece);
            assert!(feed.buffer.len() < 1000, "{} bytes are kept", feed.buffer.len());
        }
        feed.read(&packet(0x0a, 0, b"", b"", b""));
        let quiet = is_quiet(opcode);
        // A token turns an `add` into a `cas`.
        let form = Form::Store(if mode == SetMode::Add { SetMode::Set } else { mode });
        let reply = Reply::Binary(Binary { head: head(opcode, quiet), form, key: b"key" });
        let unstored = Request::Unstored { key: b"key", mode, command, why: Failure::TooLarge, reply };
        let expected = [unstored, Request::Binary(head(0x0a, false), Ask::NoOp)];
        assert_eq!(feed.recorder.whole, expected.map(|request| format!("{request:?}")));
    }
    // The largest that can be announced, without a byte of it.
    let mut feed = Feed::new(Recorder::default());
    feed.read(&[&header(0x01, 8, 3, u32::MAX)[..], b"\0\0\0\0\0\0\0\0key"].concat());
    assert_eq!((feed.seen().len(), feed.codec.wanted()), (1, 0));
}

#[test]
fn a_value_without_memory_to_read_it_into_is_skipped() {
    let input = packet(0x11, 0, &[0; 8], b"key", &[b'x'; 5000]);
    let mut feed = Feed::new(Recorder::default());
    feed.read(&input[..4500]);
    assert_eq!(feed.codec.wanted(), input.len(), "room is asked for all of it");
    assert_eq!(feed.codec.unfinished_key(&feed.buffer), Some(&b"key"[..]));
    feed.codec.refuse_unfinished();
    feed.read(&input[4500..]);
    feed.read(&packet(0x0a, 0, b"", b"", b""));
    let (mode, why) = (SetMode::Set, Failure::OutOfMemory);
    let reply = Reply::Binary(Binary { head: head(0x11, true), form: Form::Store(mode), key: b"key" });
    let unstored = Request::Unstored { key: b"key", mode, command: "set", why, reply };
    let expected = [unstored, Request::Binary(head(0x0a, false), Ask::NoOp)];
    assert_eq!(feed.recorder.whole, expected.map(|request| format!("{request:?}")));
}

#[test]
fn a_token_means_nothing_to_a_set_where_items_carry_none() {
    let mut feed = Feed::new(Recorder { without_cas: true, ..Recorder::default() });
    feed.read(&packet(0x02, 9, &[0; 8], b"key", b"v"));
    let verb = Verb::Set(Set { mode: SetMode::Add, value: b"v", ..Set::PLAIN });
    let command = Command { key: b"key", key_binary: false, verb };
    let (head, form) = (head(0x02, false), Form::Store(SetMode::Add));
    let request = Request::Key(command, Reply::Binary(Binary { head, form, key: b"key" }));
    assert_eq!(feed.recorder.whole, [format!("{request:?}")]);
}

#[test]
fn before_a_login_little_is_taken() {
    for &(opcode, extras, has_key) in OPCODES {
        let mut feed = Feed::new(Recorder { locked: true, ..Recorder::default() });
        let key: &[u8] = if has_key { b"key" } else { b"" };
        feed.read(&packet(opcode, 0, &vec![0; extras], key, b""));
        let open = matches!(opcode, 0x0b | 0x20..=0x22);
        assert_eq!(feed.closed, !open, "{opcode:#04x}");
        let refused = feed.seen()[0].contains("Refused { status: Auth, closes: true }");
        assert_eq!(refused, !open, "{opcode:#04x}");
    }
}

#[test]
fn lines_that_are_shown_hold_no_value_and_no_password() {
    let mut feed = Feed::new(Recorder::default());
    feed.read(&packet(0x21, 0, b"", b"PLAIN", b"\0ann\0apple"));
    feed.read(&packet(0x11, 0, &[0; 8], b"key", b"value"));
    feed.read(&packet(0x0a, 0, b"", b"", b""));
    let shown: Vec<_> = feed.recorder.lines.iter().map(|line| line.escape_ascii().to_string()).collect();
    assert_eq!(shown, ["sasl_auth PLAIN", "setq key", "noop"]);
}

fn written(opcode: u8, form: Form, outcome: Outcome<'_>) -> Vec<u8> {
    let quiet = is_quiet(opcode);
    let mut out = Output::default();
    reply::write(&mut out, &Binary { head: head(opcode, quiet), form, key: b"key" }, &outcome);
    out.into_bytes()
}

/// An answer with these parts.
fn answer(opcode: u8, status: u16, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut answer = packet(opcode, cas, extras, key, value);
    answer[0] = 0x81;
    answer[6..8].copy_from_slice(&status.to_be_bytes());
    answer
}

#[test]
fn answers_are_memcacheds() {
    let item = ItemView { key: b"key", value: b"12", value_len: 2, flags: 7, cas: 9, ..ItemView::default() };
    let found = Outcome::Found(Found::plain(item, None));
    let get = |with_value, with_key| Form::Get { with_value, with_key };
    let error = |opcode, status, text: &str| answer(opcode, status, 0, b"", b"", text.as_bytes());
    let flags = b"\0\0\0\x07";
    let twelve = 12_u64.to_be_bytes();
    let (set, add) = (Form::Store(SetMode::Set), Form::Store(SetMode::Add));
    let (replace, append) = (Form::Store(SetMode::Replace), Form::Store(SetMode::Append));
    let failed = Outcome::Failed;
    for (opcode, form, outcome, expected) in [
        (0x00, get(true, false), found, answer(0x00, 0, 9, flags, b"", b"12")),
        (0x0d, get(true, true), found, answer(0x0d, 0, 9, flags, b"key", b"12")),
        (0x1c, get(false, false), found, answer(0x1c, 0, 9, flags, b"", b"")),
        (0x00, get(true, false), Outcome::NotFound, error(0x00, 1, "Not found")),
        (0x0c, get(true, true), Outcome::NotFound, answer(0x0c, 1, 0, b"", b"key", b"")),
        (0x1c, get(false, false), Outcome::NotFound, error(0x1c, 1, "Not found")),
        (0x09, get(true, false), Outcome::NotFound, vec![]),
        (0x24, get(true, true), Outcome::NotFound, vec![]),
        (0x01, set, Outcome::Stored(item), answer(0x01, 0, 9, b"", b"", b"")),
        (0x11, set, Outcome::Stored(item), vec![]),
        (0x11, set, Outcome::Exists, error(0x11, 2, "Data exists for key.")),
        (0x11, set, Outcome::NotFound, error(0x11, 1, "Not found")),
        (0x12, add, Outcome::NotStored, error(0x12, 2, "Data exists for key.")),
        (0x13, replace, Outcome::NotStored, error(0x13, 1, "Not found")),
        (0x19, append, Outcome::NotStored, error(0x19, 5, "Not stored.")),
        (0x01, set, failed(Failure::TooLarge), error(0x01, 3, "Too large.")),
        (0x01, set, failed(Failure::OutOfMemory), error(0x01, 0x82, "Out of memory allocating item")),
        (0x04, Form::Delete, Outcome::Deleted, answer(0x04, 0, 0, b"", b"", b"")),
        (0x14, Form::Delete, Outcome::Deleted, vec![]),
        (0x14, Form::Delete, Outcome::NotFound, error(0x14, 1, "Not found")),
        (0x05, Form::Arithmetic, found, answer(0x05, 0, 9, b"", b"", &twelve)),
        (0x15, Form::Arithmetic, found, vec![]),
        (
            0x15,
            Form::Arithmetic,
            failed(Failure::NonNumeric),
            error(0x15, 6, "Non-numeric server-side value for incr or decr"),
        ),
        (
            0x05,
            Form::Arithmetic,
            failed(Failure::OutOfMemory),
            error(0x05, 0x82, "Out of memory allocating new item"),
        ),
        // To a reader a miss, to others an error.
        (
            0x00,
            get(true, false),
            failed(Failure::Unavailable(Unavailable::Unreachable)),
            error(0x00, 1, "Not found"),
        ),
        (
            0x11,
            set,
            failed(Failure::Unavailable(Unavailable::Unreachable)),
            error(0x11, 0x86, "the owner of this key is unreachable"),
        ),
    ] {
        let got = written(opcode, form, outcome);
        assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{opcode:#04x}");
    }
}

#[test]
fn lines_become_packets() {
    let mut out = Vec::new();
    reply::write_lines(&mut out, head(0x10, false), b"STAT a 1\r\nSTAT b two words\r\nEND\r\n");
    let expected = [
        answer(0x10, 0, 0, b"", b"a", b"1"),
        answer(0x10, 0, 0, b"", b"b", b"two words"),
        answer(0x10, 0, 0, b"", b"", b""),
    ];
    assert_eq!(out, expected.concat());
    out.clear();
    reply::write_lines(&mut out, head(0x18, true), b"OK\r\n");
    assert!(out.is_empty());
    reply::write_lines(&mut out, head(0x18, true), b"SERVER_ERROR not now\r\n");
    assert_eq!(out, answer(0x18, 0x86, 0, b"", b"", b"not now"));
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![4 => 0..20_usize, 1 => 0..ITEM_SIZE_MAX + 200];
    let known = (0..OPCODES.len(), "[a-c ]{1,3}", sizes, any::<u64>(), any::<u8>());
    let known = known.prop_map(|(at, key, len, cas, byte)| {
        let (opcode, extras, has_key) = OPCODES[at];
        let key = if has_key { key.as_bytes() } else { b"" };
        let value = if takes_value(opcode) { vec![byte; len] } else { vec![] };
        packet(opcode, cas % 3, &vec![byte; extras], key, &value)
    });
    let lying = (any::<u8>(), 0..24_u8, 0..300_u16, 0..400_u32);
    let lying = lying.prop_map(|(opcode, extras, key, body)| header(opcode, extras, key, body));
    let junk = proptest::collection::vec(any::<u8>(), 1..30);
    prop_oneof![12 => known, 1 => lying, 1 => junk]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_packets(
        requests in proptest::collection::vec(request(), 1..12).prop_map(Cut),
        cuts in proptest::collection::vec(1..60_usize, 1..40),
        pause_every in 0..4_usize,
    ) {
        // Begins with the byte that says which protocol it is.
        let input = [packet(0x0a, 0, b"", b"", b""), requests.0.concat()].concat();
        let mut expected = Feed::new(Recorder::default());
        expected.read(&input);
        let mut feed = Feed::new(Recorder { pause_every, ..Recorder::default() });
        feed.read_cut(&input, &cuts, |feed| {
            prop_assert!(feed.closed || feed.buffer.len() <= ITEM_SIZE_MAX + 400);
            Ok(())
        })?;
        prop_assert_eq!(Cut(&feed.recorder.whole), Cut(&expected.recorder.whole));
        prop_assert_eq!(Cut(&feed.recorder.lines), Cut(&expected.recorder.lines));
        prop_assert_eq!(feed.closed, expected.closed);
    }
}

#[test]
fn every_packet_is_cut_at_every_byte() {
    for &(opcode, extras, has_key) in OPCODES {
        let key: &[u8] = if has_key { b"key" } else { b"" };
        let value: &[u8] = if takes_value(opcode) { b"value" } else { b"" };
        let input = packet(opcode, 0, &vec![1; extras], key, value);
        let expected = whole(&input);
        assert_eq!(expected.0.len(), 1, "{opcode:#04x}");
        for cut in 1..input.len() {
            let mut feed = Feed::new(Recorder::default());
            feed.read(&input[..cut]);
            assert!(feed.seen().is_empty(), "{opcode:#04x} cut at {cut}");
            feed.read(&input[cut..]);
            assert_eq!((feed.recorder.whole, feed.closed), expected, "{opcode:#04x} cut at {cut}");
        }
    }
}
