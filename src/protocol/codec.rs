//! Finds requests in a stream of bytes, however it was cut into reads.
//!
//! A [`Decoder`] of batches: one call takes every complete command out of the buffer and hands each to a [`Handler`],
//! parsed in place, so that nothing is copied between the socket and the store. It keeps only a few words between
//! calls.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use tokio_util::codec::Decoder;

use crate::command::Command;
use crate::item::KEY_MAX;
use crate::protocol::Request;
use crate::protocol::binary;
use crate::protocol::error::ProtocolError;
use crate::protocol::line::Multiget;

/// What to do after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next one.
    Continue,
    /// Stop here and decode again later: the answers up to this point must be sent first.
    Pause,
    /// No more requests.
    Close,
}

/// Takes the requests that a [`Codec`] finds.
pub trait Handler {
    /// Takes one request; its parts are borrowed from the read buffer.
    fn handle(&mut self, request: Request<'_>) -> Flow;

    /// Whether an operation that reads can be handled at once. If not, decoding pauses before it, and the next call
    /// finds it again.
    fn is_ready(&mut self, _command: &Command<'_>) -> bool {
        true
    }

    /// Called when the client speaks the binary protocol, before its first request.
    fn speaks_binary(&mut self) {}

    /// Hears that the client speaks something else, which it then is answered as if it did not.
    fn speaks_else(&mut self, _what: &str) {}

    /// Takes every command line as it came, without its end, when [`Handler::wants_lines`]; takes the command and key
    /// of a packet of the binary protocol.
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
pub enum BatchEnd {
    /// The handler asked for a pause; there may be more.
    Paused,
    /// The handler asked for the end, or the input was junk.
    Closed,
}

/// The state of a connection's input between two reads.
#[derive(Debug)]
pub struct Codec {
    pub(super) state: State,
    /// Whether the line at hand has been shown, and waits for its value.
    pub(super) shown: bool,
    /// Bytes that the request at hand takes, as far as that is known; 0 when it is not.
    wanted: usize,
    /// Whether there is no memory for them.
    pub(super) refused: bool,
    pub(super) key_buffer: [u8; KEY_MAX],
    protocol: Protocol,
}

/// The protocol of a connection.
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
    /// Before the first byte; this byte alone decides whether a client speaks the binary protocol.
    First,
    /// At the start of a line.
    Line,
    /// Among the keys of a multiget.
    Keys(Multiget),
    /// Within bytes that are skipped: the value of a command that was refused.
    Skip(usize),
    /// Within a line; the rest of it is skipped.
    SkipLine,
    /// At the start of a packet of the binary protocol.
    Packet,
    /// Within bytes of a packet that are skipped.
    SkipPacket(usize),
    Closed,
}

/// The protocol of a connection's first byte, where it is not supported here.
fn foreign(first: u8, taken: Protocol) -> Option<&'static str> {
    match (first, taken) {
        // A record of TLS with a handshake in it (RFC 8446, 5.1).
        (0x16, _) => Some("TLS"),
        (binary::MAGIC, Protocol::Ascii) => Some("the binary protocol (-B ascii turns it off)"),
        (binary::MAGIC, _) => None,
        (b' '..=b'~' | b'\r' | b'\n', Protocol::Binary) => Some("text (with -B binary, or -S without -Y)"),
        // A key may have any bytes; a command's name has letters only.
        (b'*', _) => Some("Redis' protocol"),
        (0..=0x1f | 0x7f.., _) if !matches!(first, b'\r' | b'\n') => Some("no protocol of memcached's"),
        _ => None,
    }
}

/// One step's result.
pub(super) enum Step {
    /// This many bytes are used up; what to do next.
    Used(usize, Flow),
    /// More bytes are needed; this many in all, as far as is known.
    Incomplete(usize),
}

/// A codec with the handler of one batch. The client receives an error for a bad request, so decoding itself never
/// fails.
#[derive(Debug)]
pub struct Decoding<'a, H> {
    pub(super) codec: &'a mut Codec,
    pub(super) handler: &'a mut H,
    /// Where the input lies, if values may stay there.
    pub(super) memory: Option<&'a Bytes>,
}

impl<H: Handler> Decoder for Decoding<'_, H> {
    type Item = BatchEnd;
    type Error = std::io::Error;

    /// Takes every complete request out of `source`. `None` is the usual end: more bytes are
    /// needed, [`Codec::wanted`] in all.
    #[inline]
    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<BatchEnd>, Self::Error> {
        let (used, ended) = self.batch(source);
        source.advance(used);
        Ok(ended)
    }
}

impl Codec {
    /// A codec at the start of a connection.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            state: State::First,
            shown: false,
            wanted: 0,
            refused: false,
            key_buffer: [0; KEY_MAX],
            protocol,
        }
    }

    /// Decodes for this handler.
    pub fn with<'a, H>(&'a mut self, handler: &'a mut H) -> Decoding<'a, H> {
        Decoding { codec: self, handler, memory: None }
    }

    /// Takes every complete request out of memory that a large value may keep, for this handler. Returns how many bytes
    /// were used, and otherwise what [`Decoding`] does.
    pub fn decode_received<H: Handler>(
        &mut self,
        handler: &mut H,
        source: &Bytes,
    ) -> (usize, Option<BatchEnd>) {
        Decoding { codec: self, handler, memory: Some(source) }.batch(source)
    }

    /// The length of the request that has begun and is not complete, as far as it is known; 0 when it is not.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// The key of the command that has begun and is not complete, at the front of `input`; `None` where it was sent encoded.
    pub fn unfinished_key<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        match self.state {
            State::Line => {
                let line = input.split(|&byte| byte == b'\n').next()?;
                let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
                let (command, key) = (words.next()?, words.next()?);
                let is_encoded = command == b"ms" && words.any(|word| word.starts_with(b"b"));
                (!is_encoded).then_some(key)
            }
            State::Packet => binary::decode::key(input),
            _ => None,
        }
    }

    /// Makes the next call refuse the request that has begun: there is no memory for it.
    pub fn refuse_unfinished(&mut self) {
        self.refused = true;
    }
}

impl<H: Handler> Decoding<'_, H> {
    /// Takes every complete request out of the input: how many bytes these are, and why it stopped.
    #[inline]
    fn batch(&mut self, input: &[u8]) -> (usize, Option<BatchEnd>) {
        let mut used = 0;
        self.codec.wanted = 0;
        let ended = loop {
            match self.step(&input[used..]) {
                Step::Used(bytes, flow) => {
                    used += bytes;
                    match flow {
                        Flow::Continue => {}
                        Flow::Pause => break Some(BatchEnd::Paused),
                        Flow::Close => {
                            self.codec.state = State::Closed;
                            break Some(BatchEnd::Closed);
                        }
                    }
                }
                Step::Incomplete(wanted) => {
                    self.codec.wanted = wanted;
                    break None;
                }
            }
        };
        (used, ended)
    }

    #[inline]
    fn step(&mut self, input: &[u8]) -> Step {
        match self.codec.state {
            State::Line | State::First if input.is_empty() => Step::Incomplete(0),
            State::Line => self.line(input),
            State::First => self.first(input),
            State::Keys(multiget) => self.keys(multiget, input),
            State::Packet => self.packet(input),
            State::Skip(bytes) => self.skipped(bytes, input, State::Line, State::Skip),
            State::SkipPacket(bytes) => self.skipped(bytes, input, State::Packet, State::SkipPacket),
            State::SkipLine => match memchr(b'\n', input) {
                Some(end) => {
                    self.codec.state = State::Line;
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
        self.codec.state = if used == bytes { then } else { more(bytes - used) };
        if used == 0 && bytes > 0 { Step::Incomplete(0) } else { Step::Used(used, Flow::Continue) }
    }

    #[cold]
    fn first(&mut self, input: &[u8]) -> Step {
        let is_binary = match self.codec.protocol {
            Protocol::Auto => input[0] == binary::MAGIC,
            Protocol::Ascii => false,
            Protocol::Binary => true,
        };
        if let Some(what) = foreign(input[0], self.codec.protocol) {
            self.handler.speaks_else(what);
        }
        if is_binary {
            self.handler.speaks_binary();
        }
        self.codec.state = if is_binary { State::Packet } else { State::Line };
        Step::Used(0, Flow::Continue)
    }

    pub(super) fn refuse(&mut self, error: ProtocolError) -> Flow {
        self.handler.handle(Request::Refused { error, quiet: false })
    }
}
