//! The text protocol's way through a `Codec`: lines, the values behind them, and keys one by one.

use memchr::memchr;

use crate::command::{Command, Failure, Set, SetMode, Verb};
use crate::item::{KEY_MAX, item_size};
use crate::protocol::Request;
use crate::protocol::admin::AdminCommand;
use crate::protocol::codec::{Decoding, Flow, Handler, State, Step};
use crate::protocol::error::ProtocolError;
use crate::protocol::line::{Line, Multiget, Store, value_len};
use crate::protocol::reply::Reply;
use crate::protocol::text;
use crate::protocol::token::Tokens;

/// After this many bytes without a line end the input counts as junk, and the client is closed (proto_text.c,
/// `try_read_command_ascii`).
const LINE_MAX: usize = 2048;

/// Shortest line that is looked at, its end included (proto_parser.c, `process_request`).
const LINE_MIN: usize = 4;

/// A multiget's line may be longer. Up to here it is read as a whole, so that a key that is too
/// long is found before anything is answered; beyond, keys are answered as they come, in
/// bounded memory.
const MULTIGET_LINE_MAX: usize = 64 << 10;

impl<H: Handler> Decoding<'_, H> {
    #[inline]
    pub(in crate::protocol) fn line(&mut self, input: &[u8]) -> Step {
        let Some(newline) = memchr(b'\n', input) else { return self.unfinished_line(input) };
        let line = input[..newline].strip_suffix(b"\r").unwrap_or(&input[..newline]);
        if !self.codec.shown && self.handler.wants_lines() {
            self.handler.line(line);
        }
        let step = self.whole_line(line, newline + 1, input);
        self.codec.shown = matches!(step, Step::Incomplete(_) | Step::Used(0, _));
        step
    }

    /// A line that has come to its end, `after` which a value may follow.
    #[inline]
    fn whole_line(&mut self, line: &[u8], after: usize, input: &[u8]) -> Step {
        if !self.handler.authenticated() {
            return self.login(line, after, input);
        }
        let (skip, flow) = match text::parse(line, &mut self.codec.key_buffer) {
            Line::Get(multiget, bytes) => return self.multiget(multiget, line, line.len() - bytes, after),
            Line::Store(store) => {
                let Store { key, key_binary, set, value_len, reply } = store;
                let too_large = item_size(key.len(), value_len, set.flags) > self.handler.item_size_max();
                if too_large || std::mem::take(&mut self.codec.refused) {
                    let mode = match reply {
                        // An `ms` drops the old value in any mode.
                        Reply::Meta(_) => SetMode::Set,
                        _ if set.compare.is_some() => SetMode::Add,
                        _ => set.mode,
                    };
                    let why = if too_large { Failure::TooLarge } else { Failure::OutOfMemory };
                    let request = Request::Unstored { key, mode, command: set.name(), why, reply };
                    (value_len + 2, self.handler.handle(request))
                } else {
                    let total = after + value_len + 2;
                    let Some(data) = input.get(after..total) else { return Step::Incomplete(total) };
                    let (value, end) = data.split_at(value_len);
                    let request = if end == b"\r\n" {
                        let set = Set { value, received: self.memory, ..set };
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
            self.codec.state = State::Skip(skip);
        }
        Step::Used(after, flow)
    }

    /// The line is not complete yet: wait, or find that it is too long.
    #[cold]
    fn unfinished_line(&mut self, input: &[u8]) -> Step {
        if std::mem::take(&mut self.codec.refused) {
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
        self.codec.state = State::Keys(Multiget { cas, touch: None });
        Step::Used(input.len() - tokens.0.len(), Flow::Continue)
    }

    /// A multiget with a complete line.
    #[inline]
    fn multiget(&mut self, multiget: Multiget, line: &[u8], start: usize, after: usize) -> Step {
        let mut tokens = Tokens(&line[start..]);
        let (Some(key), rest) = (tokens.next_key(), tokens.0) else {
            return Step::Used(after, self.refuse(ProtocolError::BadFormat));
        };
        if rest.is_empty() && key.len() <= KEY_MAX {
            let (command, reply) = multiget.request(key, true);
            if !self.handler.is_ready(&command) {
                return Step::Used(0, Flow::Pause);
            }
            return Step::Used(after, self.handler.handle(Request::Key(command, reply)));
        }
        // With one key too long no key is answered (proto_text.c, process_get_command).
        if Tokens(&line[start..]).any(|key| key.len() > KEY_MAX) {
            return Step::Used(after, self.refuse(ProtocolError::BadFormat));
        }
        self.codec.state = State::Keys(multiget);
        Step::Used(start, Flow::Continue)
    }

    /// The next key of a multiget, or its end.
    pub(in crate::protocol) fn keys(&mut self, multiget: Multiget, input: &[u8]) -> Step {
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
            self.codec.state = State::SkipLine;
            return Step::Used(blanks + KEY_MAX + 2, self.refuse(ProtocolError::BadFormat));
        };
        let ends_line = rest[end] == b'\n';
        let key =
            if ends_line { rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]) } else { &rest[..end] };
        if key.len() > KEY_MAX {
            self.codec.state = if ends_line { State::Line } else { State::SkipLine };
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
            self.codec.state = State::Line;
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
            self.codec.state = State::Skip(len + 2);
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
}
