//! The meta commands: two letters, a key, and flags of one letter each. The flags say what is done, and what is
//! answered in their order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::command::{Arithmetic, Command, Delete, Get, Set, SetMode, Verb};
use crate::item::{Exptime, KEY_MAX};
use crate::protocol::error::ProtocolError;
use crate::protocol::line::{self, Line, Store};
use crate::protocol::reply::{Meta, MetaVerb, Reply};
use crate::protocol::token::{Tokens, integer, number, number_u32};

/// Tokens of a line, the command's name and the key included (proto_parser.h,
/// `MFLAG_MAX_OPT_LENGTH`).
const TOKENS_MAX: usize = 20;

/// Length of an opaque token with its `O` (proto_parser.h, `MFLAG_MAX_OPAQUE_LENGTH`).
const OPAQUE_MAX: usize = 32;

/// The meaning of a line's flags; the same letters mean the same for every command.
#[derive(Debug, Default)]
struct Flags {
    base64: bool,
    value: bool,
    quiet: bool,
    no_bump: bool,
    invalidate: bool,
    clear: bool,
    touch: Option<Exptime>,
    vivify: Option<Exptime>,
    recache: Option<Exptime>,
    recache_first: bool,
    touch_last: bool,
    client_flags: u32,
    compare: Option<u64>,
    new_cas: Option<u64>,
    mode: Option<u8>,
    delta: Option<u64>,
    initial: u64,
}

impl Flags {
    /// Reads the flags; `before` is the number of tokens before them. An unknown or doubled flag is reported at once,
    /// of bad arguments the last (proto_parser.c, `_meta_flag_preparse`).
    fn parse(tokens: Tokens<'_>, before: usize) -> Result<Self, ProtocolError> {
        // A token has a blank before it, so a short line need not be counted.
        if tokens.0.len() > 2 * (TOKENS_MAX - before) && before + tokens.count() > TOKENS_MAX {
            return Err(ProtocolError::TooManyFlags);
        }
        let mut flags = Self::default();
        let mut seen = 0_u128;
        let mut error = None;
        for token in tokens {
            let (&letter, argument) = token.split_first().unwrap_or((&0, &[]));
            if letter >= 127 || seen & 1 << letter != 0 {
                return Err(ProtocolError::DuplicateFlag);
            }
            seen |= 1 << letter;
            if let Err(what) = flags.set(letter, argument)? {
                error = Some(what);
            }
        }
        error.map_or(Ok(flags), Err)
    }

    /// Takes one flag in. The outer error is an unknown flag, the inner a bad argument.
    fn set(&mut self, letter: u8, argument: &[u8]) -> Result<Result<(), ProtocolError>, ProtocolError> {
        let exptime = |into: &mut Option<Exptime>| match integer(argument) {
            Some(number) => {
                *into = Some(Exptime::from_wire(number));
                Ok(())
            }
            None => Err(ProtocolError::BadToken),
        };
        let token = |into: &mut Option<u64>, error| {
            *into = number(argument);
            if into.is_some() { Ok(()) } else { Err(error) }
        };
        Ok(match letter {
            b'N' => exptime(&mut self.vivify),
            b'T' => {
                self.touch_last = self.vivify.is_some();
                exptime(&mut self.touch)
            }
            b'R' => {
                self.recache_first = self.touch.is_none();
                exptime(&mut self.recache)
            }
            b'C' => token(&mut self.compare, ProtocolError::BadToken),
            b'E' => token(&mut self.new_cas, ProtocolError::BadToken),
            b'D' => token(&mut self.delta, ProtocolError::InvalidDeltaValue),
            b'J' => {
                let mut initial = None;
                let result = token(&mut initial, ProtocolError::InvalidInitial);
                self.initial = initial.unwrap_or(0);
                result
            }
            b'F' => match number_u32(argument) {
                Some(flags) => {
                    self.client_flags = flags;
                    Ok(())
                }
                None => Err(ProtocolError::BadFormat),
            },
            b'O' if argument.len() >= OPAQUE_MAX => Err(ProtocolError::OpaqueTooLong),
            b'M' => {
                self.mode = Some(argument.first().copied().unwrap_or(b' '));
                Ok(())
            }
            _ => return self.switch(letter).map(Ok),
        })
    }

    /// A flag without an argument.
    #[inline]
    fn switch(&mut self, letter: u8) -> Result<(), ProtocolError> {
        let switch = match letter {
            b'b' => &mut self.base64,
            b'v' => &mut self.value,
            b'q' => &mut self.quiet,
            b'u' => &mut self.no_bump,
            b'I' => &mut self.invalidate,
            b'x' => &mut self.clear,
            // Asked for in the reply, which reads them from the line again; P and L are for proxies on the way.
            b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' | b'h' | b'l' => return Ok(()),
            _ => return Err(ProtocolError::InvalidFlag),
        };
        *switch = true;
        Ok(())
    }
}

/// The key as it is stored: decoded when flag `b` is present.
fn decoded<'a>(
    token: &'a [u8],
    base64: bool,
    buffer: &'a mut [u8; KEY_MAX],
) -> Result<&'a [u8], ProtocolError> {
    if !base64 {
        return Ok(token);
    }
    // 250 characters hold 187 bytes at most; the decoder wants room for whole groups.
    match BASE64.decode_slice(token, buffer) {
        Ok(len) if len > 0 => Ok(&buffer[..len]),
        _ => Err(ProtocolError::KeyDecoding),
    }
}

fn meta<'a>(verb: MetaVerb, key: &'a [u8], tokens: Tokens<'a>, flags: &Flags) -> Meta<'a> {
    Meta {
        verb,
        flags: tokens,
        key,
        key_binary: flags.base64,
        value: flags.value,
        known: None,
        quiet: flags.quiet,
        value_len: 0,
    }
}

/// `mg <key> <flags>*`
pub(super) fn get<'a>(
    mut tokens: Tokens<'a>,
    buffer: &'a mut [u8; KEY_MAX],
) -> Result<Line<'a>, ProtocolError> {
    let key = line::key(tokens.next_key())?;
    let flags = Flags::parse(tokens, 2)?;
    let key = decoded(key, flags.base64, buffer)?;
    let get = Get {
        touch: flags.touch,
        vivify: flags.vivify,
        recache: flags.recache,
        recache_first: flags.recache_first,
        touch_last: flags.touch_last,
        new_cas: flags.new_cas,
        bump: !flags.no_bump,
        loads: flags.value && flags.vivify.is_none(),
        wins: true,
    };
    let reply = Reply::Meta(Meta { known: flags.compare, ..meta(MetaVerb::Get, key, tokens, &flags) });
    Ok(Line::Key(Command { key, key_binary: flags.base64, verb: Verb::Get(get) }, reply))
}

/// `ms <key> <bytes> <flags>*`
pub(super) fn set<'a>(mut tokens: Tokens<'a>, buffer: &'a mut [u8; KEY_MAX]) -> Line<'a> {
    let (key, len) = (tokens.next_key(), tokens.next());
    let Some(value_len) = len.and_then(line::value_len) else {
        return Line::refused(ProtocolError::BadFormat);
    };
    match set_line(key, value_len, tokens, buffer) {
        Ok(store) => Line::Store(store),
        Err(error) => Line::Refused { error, quiet: false, skip: value_len + 2 },
    }
}

fn set_line<'a>(
    key: Option<&'a [u8]>,
    value_len: usize,
    tokens: Tokens<'a>,
    buffer: &'a mut [u8; KEY_MAX],
) -> Result<Store<'a>, ProtocolError> {
    let key = line::key(key)?;
    let flags = Flags::parse(tokens, 3)?;
    let key = decoded(key, flags.base64, buffer)?;
    let mode = match flags.mode {
        None | Some(b'S') => SetMode::Set,
        Some(b'E') => SetMode::Add,
        Some(b'A') => SetMode::Append,
        Some(b'P') => SetMode::Prepend,
        Some(b'R') => SetMode::Replace,
        Some(_) => return Err(ProtocolError::InvalidSetMode),
    };
    let set = Set {
        mode,
        value: &[],
        received: None,
        flags: flags.client_flags,
        exptime: flags.touch.unwrap_or(Exptime::Never),
        compare: flags.compare,
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        vivify: flags.vivify,
    };
    let reply = Reply::Meta(Meta { value_len, ..meta(MetaVerb::Set, key, tokens, &flags) });
    Ok(Store { key, key_binary: flags.base64, set, value_len, reply })
}

/// `md <key> <flags>*`
pub(super) fn delete<'a>(
    mut tokens: Tokens<'a>,
    buffer: &'a mut [u8; KEY_MAX],
) -> Result<Line<'a>, ProtocolError> {
    let key = line::key(tokens.next_key())?;
    let flags = Flags::parse(tokens, 2)?;
    let key = decoded(key, flags.base64, buffer)?;
    let delete = Delete {
        compare: flags.compare,
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        touch: flags.touch,
        clear: flags.clear,
        meta: true,
    };
    let reply = Reply::Meta(meta(MetaVerb::Delete, key, tokens, &flags));
    Ok(Line::Key(Command { key, key_binary: flags.base64, verb: Verb::Delete(delete) }, reply))
}

/// `ma <key> <flags>*`
pub(super) fn arithmetic<'a>(
    mut tokens: Tokens<'a>,
    buffer: &'a mut [u8; KEY_MAX],
) -> Result<Line<'a>, ProtocolError> {
    let key = line::key(tokens.next()).map_err(summarised)?;
    let flags = Flags::parse(tokens, 2).map_err(summarised)?;
    let key = decoded(key, flags.base64, buffer).map_err(summarised)?;
    let sum = Arithmetic {
        decrement: match flags.mode {
            None | Some(b'I' | b'+') => false,
            Some(b'D' | b'-') => true,
            Some(_) => return Err(ProtocolError::InvalidArithmeticMode),
        },
        delta: flags.delta.unwrap_or(1),
        vivify: flags.vivify,
        initial: flags.initial,
        touch: flags.touch,
        touch_last: flags.touch_last,
        compare: flags.compare,
        new_cas: flags.new_cas,
    };
    let reply = Reply::Meta(meta(MetaVerb::Arithmetic, key, tokens, &flags));
    Ok(Line::Key(Command { key, key_binary: flags.base64, verb: Verb::Arithmetic(sum) }, reply))
}

/// `me <key> [b]`
pub(super) fn inspect<'a>(
    mut tokens: Tokens<'a>,
    buffer: &'a mut [u8; KEY_MAX],
) -> Result<Line<'a>, ProtocolError> {
    let key = line::key(tokens.next_key())?;
    let base64 = tokens.clone().any(|token| token == b"b");
    let key = decoded(key, base64, buffer).map_err(|_| ProtocolError::BadFormat)?;
    let reply = Reply::Meta(meta(MetaVerb::Inspect, key, tokens, &Flags { base64, ..Flags::default() }));
    Ok(Line::Key(Command { key, key_binary: base64, verb: Verb::Inspect }, reply))
}

/// ma has one message for all that is wrong with its key and flags (proto_parser.c,
/// `process_marithmetic_cmd`), but for a key that is not there, and for an opaque.
fn summarised(error: ProtocolError) -> ProtocolError {
    match error {
        ProtocolError::BadFormat | ProtocolError::OpaqueTooLong => error,
        _ => ProtocolError::InvalidOrDuplicateFlag,
    }
}
