//! Finds requests in a stream of bytes, however it was cut into reads.
//!
//! A [`Decoder`] of batches: one call takes every complete command out of the buffer and hands
//! each to a [`Handler`], parsed in place, so that nothing is copied between the socket and
//! the store. What it keeps between calls is a few words.

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio_util::codec::Decoder;

use crate::command::{Command, SetMode, Verb};
use crate::item::{KEY_MAX, item_size};
use crate::protocol::Request;
use crate::protocol::admin::AdminCommand;
use crate::protocol::binary;
use crate::protocol::error::ProtocolError;
use crate::protocol::line::{Line, Multiget, Store, value_len};
use crate::protocol::reply::Reply;
use crate::protocol::text;
use crate::protocol::token::Tokens;

/// Bytes without a line end after which a client is thought to send junk, and is closed
/// (proto_text.c, `try_read_command_ascii`).
const LINE_MAX: usize = 2048;

/// Shortest line that is looked at, its end included (proto_parser.c, `process_request`).
const LINE_MIN: usize = 4;

/// A multiget's line may be longer. Up to here it is read as a whole, so that a key that is too
/// long is found before anything is answered; beyond, keys are answered as they come, in
/// bounded memory.
const MULTIGET_LINE_MAX: usize = 64 << 10;

/// What to do after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next one.
    Continue,
    /// Stop here and decode again later: the answers so far want to be sent first.
    Pause,
    /// No more requests.
    Close,
}

/// Takes the requests that a [`Codec`] finds.
pub trait Handler {
    /// Takes one request, whose parts are borrowed from the read buffer.
    fn handle(&mut self, request: Request<'_>) -> Flow;

    /// Whether an operation that reads can be handled now. If not, decoding pauses before it, and
    /// it is found again by the next call.
    fn is_ready(&mut self, _command: &Command<'_>) -> bool {
        true
    }

    /// Hears that the client speaks the binary protocol, before its first request.
    fn speaks_binary(&mut self) {}

    /// Hears that the client speaks something else, which it then is answered as if it did not.
    fn speaks_else(&mut self, _what: &str) {}

    /// Takes every command line as it came, without its end, when [`Handler::wants_lines`]; of a
    /// packet of the binary protocol its command and key.
    fn line(&mut self, _line: &[u8]) {}

    /// Whether somebody looks at raw lines.
    fn wants_lines(&self) -> bool {
        false
    }

    /// Whether requests are taken yet; until then only a login is looked for.
    fn authenticated(&self) -> bool {
        true
    }

    /// Whether items carry a CAS token.
    fn has_cas(&self) -> bool {
        true
    }

    /// Largest item in bytes, as memcached counts it.
    fn item_size_max(&self) -> usize;
}

/// Why decoding stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// The handler asked for a pause; there may be more.
    Paused,
    /// The handler asked for the end, or the client sent what no client would.
    Closed,
}

/// Decodes what a connection sends. Its errors are answered to the client, so decoding itself
/// never fails.
#[derive(Debug)]
pub struct Codec<H> {
    /// Where requests go.
    pub handler: H,
    pub(super) state: State,
    /// Whether the line at hand has been shown, and waits for its value.
    pub(super) shown: bool,
    /// Bytes that the request at hand takes, as far as that is known; 0 when it is not.
    wanted: usize,
    /// Whether there is no memory for them.
    pub(super) refused: bool,
    key_buffer: [u8; KEY_MAX],
    protocol: Protocol,
}

/// What a connection is decoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Whatever the first byte says (memcached.c, `try_read_command_negotiate`).
    #[default]
    Auto,
    /// Text.
    Ascii,
    /// The binary protocol.
    Binary,
}

impl Protocol {
    /// Its name in `stats settings` (memcached.c, `prot_text`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ascii => "ascii",
            Self::Binary => "binary",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Before the first byte, which alone decides whether a client speaks the binary protocol.
    First,
    /// At the start of a line.
    Line,
    /// Among the keys of a multiget.
    Keys(Multiget),
    /// Within bytes that are skipped: the value of a command that was refused.
    Skip(usize),
    /// Within a line whose rest is skipped.
    SkipLine,
    /// At the start of a packet of the binary protocol.
    Packet,
    /// Within bytes of a packet that are skipped.
    SkipPacket(usize),
    Closed,
}

/// The protocol that a connection's first byte belongs to, where it is not one that is taken here.
fn foreign(first: u8, taken: Protocol) -> Option<&'static str> {
    match (first, taken) {
        // A record of TLS with a handshake in it (RFC 8446, 5.1).
        (0x16, _) => Some("TLS"),
        (binary::MAGIC, Protocol::Ascii) => Some("the binary protocol (-B ascii turns it off)"),
        (binary::MAGIC, _) => None,
        (b' '..=b'~' | b'\r' | b'\n', Protocol::Binary) => Some("text (with -B binary, or -S without -Y)"),
        // The bytes of a key are any; those of a command's name are letters.
        (b'*', _) => Some("Redis' protocol"),
        (0..=0x1f | 0x7f.., _) if !matches!(first, b'\r' | b'\n') => Some("no protocol of memcached's"),
        _ => None,
    }
}

/// One step's result.
pub(super) enum Step {
    /// So many bytes are used up; what to do next.
    Used(usize, Flow),
    /// More bytes are needed; so many in all, as far as is known.
    Incomplete(usize),
}

impl<H: Handler> Decoder for Codec<H> {
    type Item = Batch;
    type Error = std::io::Error;

    /// Takes every complete request out of `source`. `None` is the usual end: more bytes are
    /// needed, [`Codec::wanted`] in all.
    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Batch>, Self::Error> {
        let mut used = 0;
        self.wanted = 0;
        let ended = loop {
            match self.step(&source[used..]) {
                Step::Used(bytes, flow) => {
                    used += bytes;
                    match flow {
                        Flow::Continue => {}
                        Flow::Pause => break Some(Batch::Paused),
                        Flow::Close => {
                            self.state = State::Closed;
                            break Some(Batch::Closed);
                        }
                    }
                }
                Step::Incomplete(wanted) => {
                    source.advance(used);
                    self.wanted = wanted;
                    return Ok(None);
                }
            }
        };
        source.advance(used);
        Ok(ended)
    }
}

impl<H: Handler> Codec<H> {
    /// A codec at the start of a connection.
    pub fn new(handler: H, protocol: Protocol) -> Self {
        Self {
            handler,
            state: State::First,
            shown: false,
            wanted: 0,
            refused: false,
            key_buffer: [0; KEY_MAX],
            protocol,
        }
    }

    /// How many bytes the request takes whose beginning is left after decoding, as far as that is
    /// known; 0 when it is not.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Has the next call refuse the request whose beginning is left: there is no memory for it.
    pub fn refuse_unfinished(&mut self) {
        self.refused = true;
    }

    #[inline]
    fn step(&mut self, input: &[u8]) -> Step {
        match self.state {
            State::Line | State::First if input.is_empty() => Step::Incomplete(0),
            State::Line => self.line(input),
            State::First => self.first(input),
            State::Keys(multiget) => self.keys(multiget, input),
            State::Packet => self.packet(input),
            State::Skip(bytes) => self.skipped(bytes, input, State::Line, State::Skip),
            State::SkipPacket(bytes) => self.skipped(bytes, input, State::Packet, State::SkipPacket),
            State::SkipLine => match memchr(b'\n', input) {
                Some(end) => {
                    self.state = State::Line;
                    Step::Used(end + 1, Flow::Continue)
                }
                None if input.is_empty() => Step::Incomplete(0),
                None => Step::Used(input.len(), Flow::Continue),
            },
            State::Closed => Step::Used(input.len(), Flow::Close),
        }
    }

    fn skipped(&mut self, bytes: usize, input: &[u8], then: State, more: fn(usize) -> State) -> Step {
        let used = bytes.min(input.len());
        self.state = if used == bytes { then } else { more(bytes - used) };
        if used == 0 && bytes > 0 { Step::Incomplete(0) } else { Step::Used(used, Flow::Continue) }
    }

    #[cold]
    fn first(&mut self, input: &[u8]) -> Step {
        let is_binary = match self.protocol {
            Protocol::Auto => input[0] == binary::MAGIC,
            Protocol::Ascii => false,
            Protocol::Binary => true,
        };
        if let Some(what) = foreign(input[0], self.protocol) {
            self.handler.speaks_else(what);
        }
        if is_binary {
            self.handler.speaks_binary();
        }
        self.state = if is_binary { State::Packet } else { State::Line };
        Step::Used(0, Flow::Continue)
    }

    #[inline]
    fn line(&mut self, input: &[u8]) -> Step {
        let Some(newline) = memchr(b'\n', input) else { return self.unfinished_line(input) };
        let line = input[..newline].strip_suffix(b"\r").unwrap_or(&input[..newline]);
        if !self.shown && self.handler.wants_lines() {
            self.handler.line(line);
        }
        let step = self.whole_line(line, newline + 1, input);
        self.shown = matches!(step, Step::Incomplete(_) | Step::Used(0, _));
        step
    }

    /// A line that has come to its end, `after` which a value may follow.
    #[inline]
    fn whole_line(&mut self, line: &[u8], after: usize, input: &[u8]) -> Step {
        if !self.handler.authenticated() {
            return self.login(line, after, input);
        }
        let (skip, flow) = match text::parse(line, &mut self.key_buffer) {
            Line::Get(multiget) => return self.multiget(multiget, line, after),
            Line::Store(store) => {
                let Store { key, key_binary, set, value_len, reply } = store;
                let too_large = item_size(key.len(), value_len, set.flags) > self.handler.item_size_max();
                if too_large || std::mem::take(&mut self.refused) {
                    let (mode, quiet) = match reply {
                        // A meta error shows despite q, and drops the old value in any mode.
                        Reply::Meta(_) => (SetMode::Set, false),
                        Reply::Classic(_, quiet) if set.compare.is_none() => (set.mode, quiet),
                        Reply::Classic(_, quiet) => (SetMode::Add, quiet),
                        Reply::Value { .. } | Reply::Binary(_) => (set.mode, false),
                    };
                    let error =
                        if too_large { ProtocolError::TooLarge } else { ProtocolError::NoRoomStoring };
                    let request = Request::Unstored { key, mode, command: set.name(), quiet, error };
                    (value_len + 2, self.handler.handle(request))
                } else {
                    let total = after + value_len + 2;
                    let Some(data) = input.get(after..total) else { return Step::Incomplete(total) };
                    let (value, end) = data.split_at(value_len);
                    let request = if end == b"\r\n" {
                        let set = crate::command::Set { value, ..set };
                        Request::Key(Command { key, key_binary, verb: Verb::Set(set) }, reply)
                    } else {
                        let quiet = matches!(reply, Reply::Classic(_, true));
                        Request::Refused { error: ProtocolError::BadDataChunk, quiet }
                    };
                    return Step::Used(total, self.handler.handle(request));
                }
            }
            Line::Key(command, reply) => {
                if !self.handler.is_ready(&command) {
                    return Step::Used(0, Flow::Pause);
                }
                (0, self.handler.handle(Request::Key(command, reply)))
            }
            Line::Admin(_) | Line::Refused { .. } if after < LINE_MIN => {
                (0, self.refuse(ProtocolError::BadFormat))
            }
            Line::Admin(admin) => (0, self.handler.handle(Request::Admin(admin))),
            Line::Refused { error, quiet, skip } => {
                (skip, self.handler.handle(Request::Refused { error, quiet }))
            }
            Line::Http => {
                self.handler.speaks_else("HTTP");
                (0, Flow::Close)
            }
        };
        if skip > 0 {
            self.state = State::Skip(skip);
        }
        Step::Used(after, flow)
    }

    /// The line has not come to its end yet: wait, or see that it will not.
    #[cold]
    fn unfinished_line(&mut self, input: &[u8]) -> Step {
        if std::mem::take(&mut self.refused) {
            self.refuse(ProtocolError::NoRoomReading);
            return Step::Used(input.len(), Flow::Close);
        }
        if input.len() <= LINE_MAX {
            return Step::Incomplete(input.len() + 1);
        }
        if !self.handler.authenticated() || !text::begins_multiget(input) {
            return Step::Used(input.len(), Flow::Close);
        }
        if input.len() <= MULTIGET_LINE_MAX {
            return Step::Incomplete(MULTIGET_LINE_MAX);
        }
        let mut tokens = Tokens(input);
        let cas = tokens.next() == Some(b"gets");
        self.state = State::Keys(Multiget { cas, touch: None });
        Step::Used(input.len() - tokens.0.len(), Flow::Continue)
    }

    /// A multiget whose line has come to its end.
    #[inline]
    fn multiget(&mut self, multiget: Multiget, line: &[u8], after: usize) -> Step {
        let mut tokens = Tokens(line);
        tokens.next();
        if multiget.touch.is_some() {
            tokens.next();
        }
        let start = tokens.0;
        let (Some(key), rest) = (tokens.next(), tokens.0) else {
            return Step::Used(after, self.refuse(ProtocolError::BadFormat));
        };
        if rest.is_empty() && key.len() <= KEY_MAX {
            let (command, reply) = multiget.request(key, true);
            if !self.handler.is_ready(&command) {
                return Step::Used(0, Flow::Pause);
            }
            return Step::Used(after, self.handler.handle(Request::Key(command, reply)));
        }
        // With one key too long none is answered (proto_text.c, process_get_command).
        if Tokens(start).any(|key| key.len() > KEY_MAX) {
            return Step::Used(after, self.refuse(ProtocolError::BadFormat));
        }
        self.state = State::Keys(multiget);
        Step::Used(line.len() - start.len(), Flow::Continue)
    }

    /// The next key of a multiget, or its end.
    fn keys(&mut self, multiget: Multiget, input: &[u8]) -> Step {
        let blanks = input.iter().take_while(|&&byte| byte == b' ').count();
        let rest = &input[blanks..];
        let end = rest.iter().take(KEY_MAX + 2).position(|&byte| byte == b' ' || byte == b'\n');
        let Some(end) = end else {
            if rest.len() < KEY_MAX + 2 {
                return if blanks > 0 {
                    Step::Used(blanks, Flow::Continue)
                } else {
                    Step::Incomplete(KEY_MAX)
                };
            }
            self.state = State::SkipLine;
            return Step::Used(blanks + KEY_MAX + 2, self.refuse(ProtocolError::BadFormat));
        };
        let ends_line = rest[end] == b'\n';
        let key =
            if ends_line { rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]) } else { &rest[..end] };
        if key.len() > KEY_MAX {
            self.state = if ends_line { State::Line } else { State::SkipLine };
            return Step::Used(blanks + end + 1, self.refuse(ProtocolError::BadFormat));
        }
        let request = if key.is_empty() {
            Request::End
        } else {
            let (command, reply) = multiget.request(key, ends_line);
            if !self.handler.is_ready(&command) {
                return Step::Used(0, Flow::Pause);
            }
            Request::Key(command, reply)
        };
        if ends_line {
            self.state = State::Line;
        }
        Step::Used(blanks + end + 1, self.handler.handle(request))
    }

    /// Before login a `set` of any key carries `user password` (proto_text.c,
    /// `try_read_command_asciiauth`). Besides, only `quit` is looked at.
    fn login(&mut self, line: &[u8], after: usize, input: &[u8]) -> Step {
        let mut tokens = Tokens(line);
        let verb = tokens.next();
        if verb == Some(b"quit") {
            return Step::Used(after, self.handler.handle(Request::Admin(AdminCommand::Quit)));
        }
        let is_set = verb == Some(b"set");
        let Some(len) = tokens.nth(3).filter(|_| is_set).and_then(value_len) else {
            return Step::Used(after, self.refuse(ProtocolError::Unauthenticated));
        };
        if len > LINE_MAX {
            self.state = State::Skip(len + 2);
            return Step::Used(after, self.refuse(ProtocolError::Unauthenticated));
        }
        let total = after + len + 2;
        let Some(data) = input.get(after..total) else { return Step::Incomplete(total) };
        let flow = match data.strip_suffix(b"\r\n") {
            Some(login) => self.handler.handle(Request::Login(login)),
            None => self.refuse(ProtocolError::LoginTermination),
        };
        Step::Used(total, flow)
    }

    fn refuse(&mut self, error: ProtocolError) -> Flow {
        self.handler.handle(Request::Refused { error, quiet: false })
    }
}
