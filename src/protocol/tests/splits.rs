//! However the input is cut into reads, the requests are the same, and little is buffered.

use proptest::prelude::*;

use super::*;
use crate::item::KEY_MAX;
use crate::shown::Cut;

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-c]{1,3}".prop_map(String::into_bytes),
        1 => (KEY_MAX - 2..KEY_MAX + 4).prop_map(|len| vec![b'k'; len]),
        1 => proptest::collection::vec(0x21_u8.., 1..20),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let lens = prop_oneof![4 => 0..20_usize, 1 => 0..ITEM_SIZE_MAX + 200];
    (lens, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
}

/// A request as a client sends it, or as a broken one does.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line_end = prop_oneof![4 => Just(&b"\r\n"[..]), 1 => Just(&b"\n"[..]), 1 => Just(&b" \r\n"[..])];
    let storing = prop_oneof![
        (key(), "[0-9]{1,3}", "-?[0-9]{1,4}", "( noreply)?").prop_map(|(key, flags, exptime, end)| (
            b"set ".to_vec(),
            key,
            format!("{flags} {exptime} "),
            end
        )),
        (key(), Just("0 0 "), "( [0-9x]{1,3})( noreply)?").prop_map(|(key, middle, end)| (
            b"cas ".to_vec(),
            key,
            middle.into(),
            end
        )),
        (key(), "( [a-zA-Z][0-9]{0,3}){0,4}").prop_map(|(key, flags)| (
            b"ms ".to_vec(),
            key,
            String::new(),
            flags
        )),
    ];
    let data_end = prop_oneof![9 => Just(&b"\r\n"[..]), 1 => Just(&b"xy"[..])];
    let store = (storing, value(), line_end.clone(), data_end).prop_map(
        |((name, key, middle, end), value, line_end, data_end)| {
            let line =
                [&name, &key[..], b" ", middle.as_bytes(), value.len().to_string().as_bytes()].concat();
            [&line, end.as_bytes(), line_end, &value, data_end].concat()
        },
    );
    let keys = proptest::collection::vec(key(), 0..9);
    let multiget = (prop_oneof![Just("get"), Just("gets"), Just("gat 5")], keys, " {1,3}", line_end.clone())
        .prop_map(|(name, keys, blanks, end)| {
            let keys: Vec<u8> = keys.iter().flat_map(|key| [blanks.as_bytes(), key].concat()).collect();
            [name.as_bytes(), &keys, end].concat()
        });
    let one = ("(mg|md|ma|me|delete|incr|decr|touch)", key(), "( [a-zA-Z0-9+-]{1,4}){0,4}", line_end.clone())
        .prop_map(|(name, key, end, line_end)| {
            [name.as_bytes(), b" ", &key, end.as_bytes(), line_end].concat()
        });
    let other =
        ("(mn|version|flush_all|verbosity 1|stats items|lru_crawler|GET /|)( [0-9a-z/]{1,6})?", line_end)
            .prop_map(|(line, end)| [line.as_bytes(), end].concat());
    let junk = proptest::collection::vec(any::<u8>(), 1..30);
    prop_oneof![4 => store, 3 => multiget, 3 => one, 1 => other, 1 => junk]
}

fn whole(input: &[u8], pause_every: usize) -> Feed {
    let mut feed = Feed::new(Recorder { pause_every, ..Recorder::default() });
    feed.read(input);
    feed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_requests(
        requests in proptest::collection::vec(request(), 1..12).prop_map(Cut),
        cuts in proptest::collection::vec(1..60_usize, 1..40),
        pause_every in 0..4_usize,
    ) {
        let input = requests.0.concat();
        // A cut in a line of this length ends the connection, and none does not.
        prop_assume!(input.split(|&byte| byte == b'\n').all(|line| line.len() <= 2000));
        let expected = whole(&input, 0);
        let mut feed = Feed::new(Recorder { pause_every, ..Recorder::default() });
        feed.read_cut(&input, &cuts, |_| Ok(()))?;
        prop_assert_eq!(Cut(&feed.recorder.whole), Cut(&expected.recorder.whole));
        prop_assert_eq!(Cut(&feed.recorder.lines), Cut(&expected.recorder.lines));
        prop_assert_eq!(feed.closed, expected.closed);
        prop_assert_eq!(feed.buffer.len(), expected.buffer.len());
    }

    #[test]
    fn a_long_multiget_is_cut_anywhere(
        keys in proptest::collection::vec((1..=KEY_MAX, 1..4_usize), 400..800).prop_map(Cut),
        piece in prop_oneof![1..300_usize, 4000..70_000_usize],
        end in prop_oneof![Just(&b"\r\n"[..]), Just(&b"\n"[..]), Just(&b"  \r\n"[..])],
    ) {
        let mut input = b"gets".to_vec();
        for (len, blanks) in &keys.0 {
            input.extend(std::iter::repeat_n(b' ', *blanks));
            input.extend(std::iter::repeat_n(b'k', *len));
        }
        input.extend_from_slice(end);
        input.extend_from_slice(b"mn\r\n");
        let mut feed = Feed::new(Recorder::default());
        for piece in input.chunks(piece) {
            feed.read(piece);
            prop_assert!(feed.buffer.len() <= 64 << 10, "{} bytes are kept", feed.buffer.len());
        }
        prop_assert!(!feed.closed && feed.buffer.is_empty());
        let mut expected: Vec<_> = keys.0.iter().map(|(len, _)| format!("get {}", "k".repeat(*len))).collect();
        if end.len() > 2 {
            expected.push("end".into());
        }
        expected.push("NoOp".into());
        prop_assert_eq!(Cut(feed.seen()), Cut(&expected[..]));
    }

    #[test]
    fn junk_is_survived_in_bounded_memory(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..3000),
                request(),
                Just(b"set k 0 0 2147483645\r\n".to_vec()),
                Just(b"get ".to_vec()),
                Just(b" ".repeat(3000)),
                Just(b"k".repeat(3000)),
            ],
            1..40,
        ).prop_map(Cut),
        locked: bool,
    ) {
        let mut feed = Feed::new(Recorder { locked, ..Recorder::default() });
        for piece in &pieces.0 {
            feed.read(piece);
            if feed.closed {
                break;
            }
            let kept = feed.buffer.len();
            prop_assert!(kept <= 64 << 10, "{kept} bytes are kept");
            // BytesMut doubles, and what was decoded may still lie before the rest.
            prop_assert!(feed.buffer.capacity() <= 4 * (64 << 10), "{} are held", feed.buffer.capacity());
        }
    }
}

#[test]
fn room_is_made_for_what_has_come_and_not_for_what_was_announced() {
    struct Large(Recorder);
    impl Handler for Large {
        fn handle(&mut self, request: Request<'_>) -> Flow {
            self.0.handle(request)
        }
        fn item_size_max(&self) -> usize {
            1 << 30
        }
    }
    let mut codec = Codec::new(Protocol::Auto);
    let mut handler = Large(Recorder::default());
    let mut buffer = BytesMut::from(&b"set k 0 0 1000000000\r\n"[..]);
    for _ in 0..20 {
        assert_eq!(codec.with(&mut handler).decode(&mut buffer).unwrap(), None);
        assert!(buffer.capacity() <= 4 * buffer.len().max(4096), "{}", buffer.capacity());
        buffer.extend_from_slice(&[b'x'; 1000]);
    }
}
