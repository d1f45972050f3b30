//! memcached's binary protocol: packets of a header of 24 bytes, extras, a key and a value.
//!
//! memcached has deprecated it, and many clients still speak it. The norm is memcached's proto_bin.c and
//! protocol_binary.h. A packet becomes the same [`Command`] as a line does; a request that is not about one key becomes
//! an [`Ask`].
//!
//! [`Command`]: crate::command::Command

pub(super) mod decode;
pub mod reply;

use crate::command::SetMode;
use crate::item::Exptime;

/// First byte of every request (protocol_binary.h, `PROTOCOL_BINARY_REQ`); no text command begins
/// with it.
pub const MAGIC: u8 = 0x80;

/// Length of the header that a packet begins with.
pub const HEADER_LEN: usize = 24;

/// The parts of a request that its answer repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which command it was, its quiet form apart.
    pub opcode: u8,
    /// The client's number for its request.
    pub opaque: [u8; 4],
    /// Whether the client wants only unexpected outcomes.
    pub quiet: bool,
}

/// The meaning of an opcode (protocol_binary.h, `protocol_binary_command`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get { with_key: bool },
    Touch,
    GetAndTouch { with_key: bool },
    Store(SetMode),
    Concatenate(SetMode),
    Delete,
    Arithmetic { decrement: bool },
    NoOp,
    Version,
    Quit,
    Flush,
    Stat,
    Verbosity,
    Mechanisms,
    Login { begins: bool },
}

impl Operation {
    /// The meaning of an opcode, and whether it is quiet; `None` when there is no such command.
    fn of(opcode: u8) -> Option<(Self, bool)> {
        Some(match opcode {
            0x00 => (Self::Get { with_key: false }, false),
            0x01 => (Self::Store(SetMode::Set), false),
            0x02 => (Self::Store(SetMode::Add), false),
            0x03 => (Self::Store(SetMode::Replace), false),
            0x04 => (Self::Delete, false),
            0x05 => (Self::Arithmetic { decrement: false }, false),
            0x06 => (Self::Arithmetic { decrement: true }, false),
            0x07 => (Self::Quit, false),
            0x08 => (Self::Flush, false),
            0x09 => (Self::Get { with_key: false }, true),
            0x0a => (Self::NoOp, false),
            0x0b => (Self::Version, false),
            0x0c => (Self::Get { with_key: true }, false),
            0x0d => (Self::Get { with_key: true }, true),
            0x0e => (Self::Concatenate(SetMode::Append), false),
            0x0f => (Self::Concatenate(SetMode::Prepend), false),
            0x10 => (Self::Stat, false),
            0x11 => (Self::Store(SetMode::Set), true),
            0x12 => (Self::Store(SetMode::Add), true),
            0x13 => (Self::Store(SetMode::Replace), true),
            0x14 => (Self::Delete, true),
            0x15 => (Self::Arithmetic { decrement: false }, true),
            0x16 => (Self::Arithmetic { decrement: true }, true),
            0x17 => (Self::Quit, true),
            0x18 => (Self::Flush, true),
            0x19 => (Self::Concatenate(SetMode::Append), true),
            0x1a => (Self::Concatenate(SetMode::Prepend), true),
            0x1b => (Self::Verbosity, false),
            0x1c => (Self::Touch, false),
            0x1d => (Self::GetAndTouch { with_key: false }, false),
            0x1e => (Self::GetAndTouch { with_key: false }, true),
            0x20 => (Self::Mechanisms, false),
            0x21 => (Self::Login { begins: true }, false),
            0x22 => (Self::Login { begins: false }, false),
            0x23 => (Self::GetAndTouch { with_key: true }, false),
            0x24 => (Self::GetAndTouch { with_key: true }, true),
            _ => return None,
        })
    }

    /// Whether it is allowed before login (proto_bin.c, `authenticated`).
    fn is_open(self) -> bool {
        matches!(self, Self::Mechanisms | Self::Login { .. } | Self::Version)
    }

    /// Its name in the log.
    fn name(self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Touch => "touch",
            Self::GetAndTouch { .. } => "gat",
            Self::Store(SetMode::Add) => "add",
            Self::Store(SetMode::Replace) => "replace",
            Self::Store(_) => "set",
            Self::Concatenate(SetMode::Append) => "append",
            Self::Concatenate(_) => "prepend",
            Self::Delete => "delete",
            Self::Arithmetic { decrement: false } => "incr",
            Self::Arithmetic { decrement: true } => "decr",
            Self::NoOp => "noop",
            Self::Version => "version",
            Self::Quit => "quit",
            Self::Flush => "flush",
            Self::Stat => "stat",
            Self::Verbosity => "verbosity",
            Self::Mechanisms => "sasl_list_mechs",
            Self::Login { begins: true } => "sasl_auth",
            Self::Login { begins: false } => "sasl_step",
        }
    }
}

/// A request that is not an operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// `noop`: a sign that everything before it has been answered.
    NoOp,
    /// `version`
    Version,
    /// `quit`: answer, then close.
    Quit,
    /// `flush`, and when; [`Exptime::Never`] is at once.
    Flush(Exptime),
    /// `stat`, and which group.
    Stats(&'a [u8]),
    /// `verbosity`: the same as this many `v` of `-v`.
    Verbosity(u32),
    /// `sasl list mechs`: the ways to log in.
    Mechanisms,
    /// `sasl auth`, `sasl step`
    Login {
        /// Whether it begins a login, rather than going on with one.
        begins: bool,
        /// The mechanism.
        mechanism: &'a [u8],
        /// The mechanism's message: name and password.
        message: &'a [u8],
    },
    /// It cannot be understood, or is not allowed.
    Refused {
        /// Why.
        status: Status,
        /// Whether everything after it is unreadable or forbidden, too.
        closes: bool,
    },
}

/// Declares each status with its number and text.
macro_rules! statuses {
    ($($variant:ident, $number:literal, $text:literal;)*) => {
        /// The outcome of a request that was not carried out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Status { $(#[doc = $text] $variant = $number,)* }

        impl Status {
            /// memcached's text for it (proto_bin.c, `write_bin_error`).
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

statuses! {
    NotFound, 0x01, "Not found";
    Exists, 0x02, "Data exists for key.";
    TooLarge, 0x03, "Too large.";
    Invalid, 0x04, "Invalid arguments";
    NotStored, 0x05, "Not stored.";
    NonNumeric, 0x06, "Non-numeric server-side value for incr or decr";
    Auth, 0x20, "Auth failure.";
    Unknown, 0x81, "Unknown command";
    OutOfMemory, 0x82, "Out of memory allocating item";
    // What memcached itself has no word for, from its doc/protocol-binary: the client may try again.
    Temporary, 0x86, "Temporary failure";
}

/// `PROTOCOL_BINARY_RESPONSE_AUTH_CONTINUE`: no error, a login wants more.
const AUTH_CONTINUE: u16 = 0x21;
