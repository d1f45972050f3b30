//! Packets to requests. A length is checked as soon as its header is there, before waiting for the announced bytes.

use crate::command::{Arithmetic, Command, Delete, Failure, Get, Set, SetMode, Verb};
use crate::item::{Exptime, KEY_MAX, item_size};
use crate::protocol::Request;
use crate::protocol::binary::reply::{Binary, Form};
use crate::protocol::binary::{Ask, HEADER_LEN, Head, MAGIC, Operation, Status};
use crate::protocol::codec::{Decoding, Flow, Handler, State, Step};
use crate::protocol::reply::Reply;

/// Longest name of a mechanism (memcached.h, `MAX_SASL_MECH_LEN`).
const MECHANISM_MAX: usize = 32;

/// Longest message of a login: a name and a password of the longest lines that a file of users
/// may have.
const MESSAGE_MAX: usize = 2048;

/// The expiry time of an `incr` that must not create its item.
const MAKES_NONE: u32 = u32::MAX;

/// The header of a request.
#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: u8,
    extras_len: usize,
    key_len: usize,
    body_len: usize,
    opaque: [u8; 4],
    cas: u64,
}

/// The key of the packet at the front of `input`.
pub fn key(input: &[u8]) -> Option<&[u8]> {
    let header = Header::read(input.first_chunk()?);
    input.get(HEADER_LEN + header.extras_len..header.front_len())
}

impl Header {
    fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let &[
            _,
            opcode,
            k0,
            k1,
            extras_len,
            _,
            _,
            _,
            b0,
            b1,
            b2,
            b3,
            o0,
            o1,
            o2,
            o3,
            c0,
            c1,
            c2,
            c3,
            c4,
            c5,
            c6,
            c7,
        ] = bytes;
        Self {
            opcode,
            extras_len: extras_len.into(),
            key_len: u16::from_be_bytes([k0, k1]).into(),
            body_len: u32::from_be_bytes([b0, b1, b2, b3]) as usize,
            opaque: [o0, o1, o2, o3],
            cas: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        }
    }

    /// Bytes before the value.
    fn front_len(&self) -> usize {
        HEADER_LEN + self.extras_len + self.key_len
    }

    /// Bytes of the value. The lengths agree.
    fn value_len(&self) -> usize {
        self.body_len - self.extras_len - self.key_len
    }

    /// The token that an item must still have.
    fn compare(&self) -> Option<u64> {
        (self.cas != 0).then_some(self.cas)
    }

    /// Whether the packet has exactly the extras, key and value that the operation needs (proto_bin.c,
    /// `dispatch_bin_command`).
    fn suits(&self, operation: Operation) -> bool {
        let (has_key, has_value) = (self.key_len > 0, self.value_len() > 0);
        match operation {
            Operation::Get { .. } | Operation::Delete => self.extras_len == 0 && has_key && !has_value,
            // Bytes after the key of these are not part of them.
            Operation::Touch | Operation::GetAndTouch { .. } => self.extras_len == 4 && has_key,
            Operation::Stat => self.extras_len == 0,
            Operation::Store(_) => self.extras_len == 8 && has_key,
            Operation::Concatenate(_) | Operation::Login { .. } => self.extras_len == 0 && has_key,
            Operation::Arithmetic { .. } => self.extras_len == 20 && has_key && !has_value,
            Operation::Flush => matches!(self.extras_len, 0 | 4) && !has_key && !has_value,
            Operation::Verbosity => self.extras_len == 4 && !has_key && !has_value,
            Operation::NoOp | Operation::Version | Operation::Quit | Operation::Mechanisms => {
                self.body_len == 0
            }
        }
    }
}

/// A request but for its value.
struct Packet<'a> {
    header: Header,
    head: Head,
    extras: &'a [u8],
    key: &'a [u8],
}

impl<'a> Packet<'a> {
    fn number(&self, at: usize) -> u32 {
        self.extras
            .get(at..)
            .and_then(|extras| extras.first_chunk())
            .map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    fn long_number(&self, at: usize) -> u64 {
        self.extras
            .get(at..)
            .and_then(|extras| extras.first_chunk())
            .map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    fn exptime(&self, at: usize) -> Exptime {
        Exptime::from_wire(self.number(at))
    }

    fn command<'b>(&self, verb: Verb<'b>) -> Command<'b>
    where
        'a: 'b,
    {
        // A key that no line could have: where keys are shown in lines, it is encoded.
        let key_binary = memchr::memchr3(b' ', b'\r', b'\n', self.key).is_some();
        Command { key: self.key, key_binary, verb }
    }

    fn reply(&self, form: Form) -> Reply<'a> {
        Reply::Binary(Binary { head: self.head, form, key: self.key })
    }

    fn get(&self, touch: bool, with_value: bool, with_key: bool) -> (Command<'a>, Reply<'a>) {
        let touch = touch.then(|| self.exptime(0));
        let command = self.command(Verb::Get(Get { touch, loads: with_value, ..Get::PLAIN }));
        (command, self.reply(Form::Get { with_value, with_key }))
    }

    fn arithmetic(&self, decrement: bool) -> (Command<'a>, Reply<'a>) {
        let sum = Arithmetic {
            decrement,
            delta: self.long_number(0),
            initial: self.long_number(8),
            vivify: (self.number(16) != MAKES_NONE).then(|| self.exptime(16)),
            compare: self.header.compare(),
            ..Arithmetic::PLAIN
        };
        (self.command(Verb::Arithmetic(sum)), self.reply(Form::Arithmetic))
    }

    /// The `set` of a packet, without its value. Where items carry no tokens, a requested token has no meaning
    /// (proto_bin.c, `process_bin_update`).
    fn set(&self, mode: SetMode, has_cas: impl Fn() -> bool) -> Set<'static> {
        let compare = self.header.compare().filter(|_| has_cas());
        match mode {
            SetMode::Append | SetMode::Prepend => Set { mode, compare, ..Set::PLAIN },
            // A token turns each of these into a cas.
            SetMode::Set | SetMode::Add | SetMode::Replace => Set {
                mode: if compare.is_some() { SetMode::Set } else { mode },
                flags: self.number(0),
                exptime: self.exptime(4),
                compare,
                ..Set::PLAIN
            },
        }
    }
}

impl<H: Handler> Decoding<'_, H> {
    /// The next packet of a client that speaks the binary protocol.
    #[inline(never)]
    pub(in crate::protocol) fn packet(&mut self, input: &[u8]) -> Step {
        match input.first() {
            None => return Step::Incomplete(0),
            Some(&MAGIC) => {}
            Some(_) => return Step::Used(input.len(), Flow::Close),
        }
        let Some(header) = input.first_chunk() else { return Step::Incomplete(HEADER_LEN) };
        let header = Header::read(header);
        let known = Operation::of(header.opcode);
        let quiet = known.is_some_and(|(_, quiet)| quiet);
        let head = Head { opcode: header.opcode, opaque: header.opaque, quiet };
        if header.extras_len + header.key_len > header.body_len {
            return self.close(head, Status::Unknown);
        }
        if !self.handler.authenticated() && !known.is_some_and(|(operation, _)| operation.is_open()) {
            return self.close(head, Status::Auth);
        }
        if header.key_len > KEY_MAX {
            return self.close(head, Status::Invalid);
        }
        let Some((operation, _)) = known else {
            return self.skip_body(header.body_len, HEADER_LEN, head, Status::Unknown);
        };
        if !header.suits(operation) {
            return self.close(head, Status::Invalid);
        }
        let Some((front, _)) = input.split_at_checked(header.front_len()) else {
            return Step::Incomplete(header.front_len());
        };
        let (extras, key) = front[HEADER_LEN..].split_at(header.extras_len);
        let packet = Packet { header, head, extras, key };
        if !self.codec.shown && self.handler.wants_lines() {
            self.show(operation, &packet);
        }
        let step = self.operation(operation, &packet, input);
        self.codec.shown = matches!(step, Step::Incomplete(_) | Step::Used(0, _));
        step
    }

    #[inline]
    fn operation(&mut self, operation: Operation, packet: &Packet<'_>, input: &[u8]) -> Step {
        let ask = match operation {
            Operation::Get { with_key } => return self.command(packet, packet.get(false, true, with_key)),
            Operation::Store(mode) | Operation::Concatenate(mode) => return self.store(mode, packet, input),
            Operation::Delete => {
                let delete = Delete { compare: packet.header.compare(), ..Delete::default() };
                return self
                    .command(packet, (packet.command(Verb::Delete(delete)), packet.reply(Form::Delete)));
            }
            Operation::Arithmetic { decrement } => return self.command(packet, packet.arithmetic(decrement)),
            Operation::Touch => return self.command(packet, packet.get(true, false, false)),
            Operation::GetAndTouch { with_key } => {
                return self.command(packet, packet.get(true, true, with_key));
            }
            Operation::Login { begins } => return self.sasl(begins, packet, input),
            Operation::NoOp => Ask::NoOp,
            Operation::Version => Ask::Version,
            Operation::Quit => Ask::Quit,
            Operation::Flush => Ask::Flush(packet.exptime(0)),
            Operation::Stat => Ask::Stats(packet.key),
            Operation::Verbosity => Ask::Verbosity(packet.number(0)),
            Operation::Mechanisms => Ask::Mechanisms,
        };
        Step::Used(packet.header.front_len(), self.handler.handle(Request::Binary(packet.head, ask)))
    }

    fn command(&mut self, packet: &Packet<'_>, (command, reply): (Command<'_>, Reply<'_>)) -> Step {
        if !self.handler.is_ready(&command) {
            return Step::Used(0, Flow::Pause);
        }
        Step::Used(packet.header.front_len(), self.handler.handle(Request::Key(command, reply)))
    }

    fn store(&mut self, mode: SetMode, packet: &Packet<'_>, input: &[u8]) -> Step {
        let set = packet.set(mode, || self.handler.has_cas());
        let (value_len, front) = (packet.header.value_len(), packet.header.front_len());
        let too_large = item_size(packet.key.len(), value_len, set.flags) > self.handler.item_size_max();
        if too_large || std::mem::take(&mut self.codec.refused) {
            let why = if too_large { Failure::TooLarge } else { Failure::OutOfMemory };
            let reply = packet.reply(Form::Store(set.mode));
            let request = Request::Unstored { key: packet.key, mode, command: set.name(), why, reply };
            return self.skip(value_len, front, request);
        }
        let Some(value) = input.get(front..front + value_len) else {
            return Step::Incomplete(front + value_len);
        };
        let command = packet.command(Verb::Set(Set { value, received: self.memory, ..set }));
        let reply = packet.reply(Form::Store(set.mode));
        Step::Used(front + value_len, self.handler.handle(Request::Key(command, reply)))
    }

    #[cold]
    fn sasl(&mut self, begins: bool, packet: &Packet<'_>, input: &[u8]) -> Step {
        let (value_len, front, head) = (packet.header.value_len(), packet.header.front_len(), packet.head);
        if packet.key.len() > MECHANISM_MAX {
            return self.skip_body(value_len, front, head, Status::Invalid);
        }
        if value_len > MESSAGE_MAX {
            return self.skip_body(value_len, front, head, Status::OutOfMemory);
        }
        let Some(message) = input.get(front..front + value_len) else {
            return Step::Incomplete(front + value_len);
        };
        let ask = Ask::Login { begins, mechanism: packet.key, message };
        Step::Used(front + value_len, self.handler.handle(Request::Binary(head, ask)))
    }

    /// Refuses a request and skips its body.
    #[cold]
    fn skip_body(&mut self, bytes: usize, front: usize, head: Head, status: Status) -> Step {
        self.skip(bytes, front, Request::Binary(head, Ask::Refused { status, closes: false }))
    }

    #[cold]
    fn skip(&mut self, bytes: usize, front: usize, request: Request<'_>) -> Step {
        if bytes > 0 {
            self.codec.state = State::SkipPacket(bytes);
        }
        Step::Used(front, self.handler.handle(request))
    }

    #[cold]
    fn close(&mut self, head: Head, status: Status) -> Step {
        self.handler.handle(Request::Binary(head, Ask::Refused { status, closes: true }));
        Step::Used(HEADER_LEN, Flow::Close)
    }

    /// Shows a packet as a line. For a login it shows only the mechanism: its message holds a password.
    #[cold]
    fn show(&mut self, operation: Operation, packet: &Packet<'_>) {
        let mut line = operation.name().as_bytes().to_vec();
        if packet.head.quiet {
            line.push(b'q');
        }
        if !packet.key.is_empty() {
            line.push(b' ');
            line.extend_from_slice(packet.key);
        }
        self.handler.line(&line);
    }
}
