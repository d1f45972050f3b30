//! The codec, fed in every way that a network can cut its input.

mod binary;
mod errors;
mod lines;
mod splits;

use bytes::BytesMut;
use proptest::test_runner::TestCaseResult;
use tokio_util::codec::Decoder;

use super::*;
use crate::command::Verb;
use crate::protocol::codec::{BatchEnd, Codec, Flow, Handler, Protocol};

const ITEM_SIZE_MAX: usize = 8 << 10;

/// Takes requests down in a few words.
#[derive(Debug, Default)]
struct Recorder {
    /// Each request in short.
    seen: Vec<String>,
    /// Each request with all that is in it.
    whole: Vec<String>,
    /// Every line that was shown.
    lines: Vec<Vec<u8>>,
    /// Whether logins alone are looked for; a login ends it.
    locked: bool,
    /// Whether items carry no tokens.
    without_cas: bool,
    /// After so many requests a pause, again and again; 0 is never.
    pause_every: usize,
}

fn short(request: &Request<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match request {
        Request::Key(Command { key, verb, .. }, _) => match verb {
            Verb::Get(_) => format!("get {}", text(key)),
            Verb::Set(set) => format!("{:?} {}={}", set.mode, text(key), text(set.value)),
            Verb::Delete(_) => format!("delete {}", text(key)),
            Verb::Arithmetic(_) => format!("sum {}", text(key)),
            Verb::Inspect => format!("inspect {}", text(key)),
        },
        Request::End => "end".into(),
        Request::Admin(admin) => format!("{admin:?}"),
        Request::Refused { error, quiet } => format!("{error:?}{}", if *quiet { " quiet" } else { "" }),
        Request::Unstored { key, mode, why, reply, .. } => {
            let quiet = matches!(reply, Reply::Classic(_, true));
            format!("{why:?} {} {mode:?}{}", text(key), if quiet { " quiet" } else { "" })
        }
        Request::Binary(head, ask) => format!("{:#04x} {ask:?}", head.opcode),
        Request::Login(login) => format!("login {}", text(login)),
    }
}

impl Handler for Recorder {
    fn handle(&mut self, request: Request<'_>) -> Flow {
        self.seen.push(short(&request));
        self.whole.push(format!("{request:?}"));
        match request {
            Request::Admin(AdminCommand::Quit) => return Flow::Close,
            Request::Login(_) => self.locked = false,
            _ => {}
        }
        if self.pause_every > 0 && self.seen.len().is_multiple_of(self.pause_every) {
            Flow::Pause
        } else {
            Flow::Continue
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.lines.push(line.to_vec());
    }

    fn wants_lines(&self) -> bool {
        true
    }

    fn authenticated(&self) -> bool {
        !self.locked
    }

    fn has_cas(&self) -> bool {
        !self.without_cas
    }

    fn item_size_max(&self) -> usize {
        ITEM_SIZE_MAX
    }
}

/// A codec and the buffer of its connection.
struct Feed {
    codec: Codec,
    recorder: Recorder,
    buffer: BytesMut,
    closed: bool,
}

impl Feed {
    fn new(recorder: Recorder) -> Self {
        Self { codec: Codec::new(Protocol::Auto), recorder, buffer: BytesMut::new(), closed: false }
    }

    /// Takes one read, and decodes until more is needed.
    fn read(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
        while !self.closed {
            match self.codec.with(&mut self.recorder).decode(&mut self.buffer).unwrap() {
                None => break,
                Some(BatchEnd::Paused) => {}
                Some(BatchEnd::Closed) => self.closed = true,
            }
        }
    }

    /// Takes an input in reads of these lengths, over and over, and calls `after` behind each.
    fn read_cut(
        &mut self,
        input: &[u8],
        cuts: &[usize],
        after: impl Fn(&Self) -> TestCaseResult,
    ) -> TestCaseResult {
        let (mut rest, mut cuts) = (input, cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            self.read(piece);
            rest = behind;
            after(self)?;
        }
        Ok(())
    }

    fn seen(&self) -> &[String] {
        &self.recorder.seen
    }
}

/// What is seen in an input that comes in one piece.
fn seen(input: &[u8]) -> Vec<String> {
    let mut feed = Feed::new(Recorder::default());
    feed.read(input);
    let mut seen = std::mem::take(&mut feed.recorder.seen);
    if feed.closed {
        seen.push("closed".into());
    }
    seen
}
