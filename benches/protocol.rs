//! What it costs to read requests and to write answers: `cargo bench --bench protocol`.

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use filbert::command::{Command, Found, Outcome, Verb};
use filbert::item::ItemView;
use filbert::protocol::Request;
use filbert::protocol::codec::{Codec, Flow, Handler, Protocol};
use filbert::protocol::output::Output;
use filbert::protocol::reply::{self, Classic, Meta, MetaVerb, Reply};
use filbert::protocol::token::Tokens;
use tokio_util::codec::Decoder;

/// Requests in one read, as a client with a pipeline sends them.
const PIPELINE: usize = 16;

fn main() {
    divan::main();
}

/// Looks at what it is given, and does nothing.
struct Idle;

impl Handler for Idle {
    fn handle(&mut self, request: Request<'_>) -> Flow {
        divan::black_box(&request);
        Flow::Continue
    }

    fn item_size_max(&self) -> usize {
        1 << 20
    }
}

fn parse(bencher: Bencher, request: &[u8], keys: usize) {
    let input = request.repeat(PIPELINE);
    let mut codec = Codec::new(Protocol::Auto);
    // As a connection does: each read goes to the front of one buffer.
    let mut buffer = BytesMut::with_capacity(2 * input.len());
    bencher.counter(ItemsCount::new(PIPELINE * keys)).counter(BytesCount::new(input.len())).bench_local(
        || {
            buffer.clear();
            buffer.extend_from_slice(&input);
            codec.with(&mut Idle).decode(&mut buffer)
        },
    );
}

#[divan::bench]
fn parse_get(bencher: Bencher) {
    parse(bencher, b"get some:key:of:24:bytes\r\n", 1);
}

#[divan::bench(args = [32, 1024])]
fn parse_set(bencher: Bencher, len: usize) {
    let line = format!("set some:key:of:24:bytes 0 3600 {len}\r\n{}\r\n", "x".repeat(len));
    parse(bencher, line.as_bytes(), 1);
}

#[divan::bench]
fn parse_meta_get(bencher: Bencher) {
    parse(bencher, b"mg some:key:of:24:bytes v t f O123\r\n", 1);
}

#[divan::bench]
fn parse_multiget_of_100(bencher: Bencher) {
    let keys: String = (0..100).map(|i| format!(" some:key:of:bytes:{i:05}")).collect();
    parse(bencher, format!("get{keys}\r\n").as_bytes(), 100);
}

const KEY: &[u8] = b"some:key:of:24:bytes";

fn found(value: &[u8]) -> Outcome<'_> {
    let item = ItemView {
        key: KEY,
        value,
        shared: None,
        value_len: value.len(),
        flags: 0,
        cas: 123_456,
        ttl_seconds: Some(3600),
        idle_seconds: 7,
        fetched: true,
        key_binary: false,
        loaded: false,
    };
    Outcome::Found(Found::plain(item, Some(3600)))
}

fn write(bencher: Bencher, reply: Reply<'_>, outcome: Outcome<'_>) {
    let mut out = Output::default();
    bencher.counter(ItemsCount::new(PIPELINE)).bench_local(|| {
        out.clear();
        for _ in 0..PIPELINE {
            reply::write(&mut out, divan::black_box(&reply), divan::black_box(&outcome));
        }
        out.len()
    });
}

#[divan::bench(args = [32, 1024])]
fn write_value(bencher: Bencher, len: usize) {
    write(bencher, Reply::Value { cas: false, last: true }, found(&vec![b'x'; len]));
}

#[divan::bench]
fn write_miss(bencher: Bencher) {
    write(bencher, Reply::Value { cas: false, last: true }, Outcome::NotFound);
}

#[divan::bench]
fn write_one_line(bencher: Bencher) {
    write(bencher, Reply::Classic(Classic::Delete, false), Outcome::Deleted);
}

#[divan::bench]
fn write_meta_value(bencher: Bencher) {
    let meta = Meta {
        verb: MetaVerb::Get,
        flags: Tokens(b" v t f O123"),
        key: KEY,
        key_binary: false,
        value: true,
        known: None,
        quiet: false,
        value_len: 0,
    };
    write(bencher, Reply::Meta(meta), found(&[b'x'; 32]));
}

/// The whole way from a line to a command, without a buffer.
#[divan::bench]
fn parse_one_line() -> bool {
    let mut key_buffer = [0; filbert::item::KEY_MAX];
    let line =
        filbert::protocol::text::parse(divan::black_box(b"delete some:key:of:24:bytes"), &mut key_buffer);
    matches!(line, filbert::protocol::line::Line::Key(Command { verb: Verb::Delete(_), .. }, _))
}
