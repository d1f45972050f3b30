//! One key's operation and its outcome, with no wire format. Shaped for memcached's meta commands, the superset; the
//! classic commands are written in terms of these.

use bytes::Bytes;

use crate::item::{Exptime, ItemView};
use crate::stats::Kind;

/// An operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// 1 to 250 bytes, already decoded.
    pub key: &'a [u8],
    /// Whether the key came base64-encoded; an item written by this command remembers it.
    pub key_binary: bool,
    /// What to do.
    pub verb: Verb<'a>,
}

/// What to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb<'a> {
    /// `mg`, `get`, `gets`, `gat`, `gats`, `touch`.
    Get(Get),
    /// `ms`, `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Set(Set<'a>),
    /// `md`, `delete`.
    Delete(Delete),
    /// `ma`, `incr`, `decr`.
    Arithmetic(Arithmetic),
    /// `me`: look without touching anything.
    Inspect,
}

impl From<&Verb<'_>> for Kind {
    fn from(verb: &Verb<'_>) -> Self {
        match verb {
            Verb::Get(_) => Self::Get,
            Verb::Set(_) => Self::Set,
            Verb::Delete(_) => Self::Delete,
            Verb::Arithmetic(_) => Self::Arithmetic,
            Verb::Inspect => Self::Inspect,
        }
    }
}

/// Reads an item, and what the meta flags add to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Get {
    /// `T`: a new expiry time.
    pub touch: Option<Exptime>,
    /// `N`: on a miss, create an empty item that ends then, and win.
    pub vivify: Option<Exptime>,
    /// `R`: win when the item ends before this.
    pub recache: Option<Exptime>,
    /// Whether `R` came before `T`, so that it is judged by the old expiry time.
    pub recache_first: bool,
    /// Whether `T` came behind `N`: of an item that is made, the last of the two counts.
    pub touch_last: bool,
    /// `E`: the CAS token of a vivified item.
    pub new_cas: Option<u64>,
    /// `u` says no: neither moves in the LRU nor counts as fetched.
    pub bump: bool,
    /// Whether a value that is missing may be loaded from the origin of its group: the reader wants to see it.
    pub loads: bool,
    /// Whether the reader may win a refill. A classic command cannot tell its client, so it must not take the refill
    /// from a command that can.
    pub wins: bool,
}

impl Get {
    /// A plain `get`.
    pub const PLAIN: Self = Self {
        touch: None,
        vivify: None,
        recache: None,
        recache_first: false,
        touch_last: false,
        new_cas: None,
        bump: true,
        loads: false,
        wins: false,
    };
}

/// Writes an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    /// Under which condition, and where the value goes.
    pub mode: SetMode,
    /// The value's bytes.
    pub value: &'a [u8],
    /// The memory that they were received in, where an item may keep that.
    pub received: Option<&'a Bytes>,
    /// The client's own 32 bits.
    pub flags: u32,
    /// When it ends.
    pub exptime: Exptime,
    /// `C` and `cas`: only when the item still has this token.
    pub compare: Option<u64>,
    /// `E`: the token it gets.
    pub new_cas: Option<u64>,
    /// `I`: a compare that fails with an older token stores all the same, as stale.
    pub invalidate: bool,
    /// `N` of append and prepend: on a miss, create the item with this expiry time.
    pub vivify: Option<Exptime>,
}

impl Set<'static> {
    /// A plain `set` of an empty value.
    pub const PLAIN: Self = Self {
        mode: SetMode::Set,
        value: &[],
        received: None,
        flags: 0,
        exptime: Exptime::Never,
        compare: None,
        new_cas: None,
        invalidate: false,
        vivify: None,
    };
}

impl Set<'_> {
    /// The command's name in memcached's logs (logger.c, `_logger_parse_ise`).
    pub fn name(&self) -> &'static str {
        match self.mode {
            SetMode::Set | SetMode::Replace if self.compare.is_some() => "cas",
            SetMode::Set => "set",
            SetMode::Add => "add",
            SetMode::Replace => "replace",
            SetMode::Append => "append",
            SetMode::Prepend => "prepend",
        }
    }
}

/// Under which condition a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// Always.
    Set,
    /// Only when there is none.
    Add,
    /// Only when there is one.
    Replace,
    /// Behind the one that is there, whose flags and expiry time stay.
    Append,
    /// Before the one that is there, whose flags and expiry time stay.
    Prepend,
}

/// Removes an item, or marks it stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delete {
    /// `C`: only when the item still has this token.
    pub compare: Option<u64>,
    /// `E`: the token of what stays.
    pub new_cas: Option<u64>,
    /// `I`: keep the item, marked stale; the next reader wins the refill.
    pub invalidate: bool,
    /// `T` with `I`, or with `x`: the expiry time of what stays.
    pub touch: Option<Exptime>,
    /// `x`: drop the value and the client flags, keep the item.
    pub clear: bool,
    /// Whether it is an `md`, which watchers are told.
    pub meta: bool,
}

/// Adds to or takes from a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Decrement stops at 0; increment wraps.
    pub decrement: bool,
    /// `D`: by how much.
    pub delta: u64,
    /// `N`: on a miss, create the item with this expiry time.
    pub vivify: Option<Exptime>,
    /// `J`: what a created item holds.
    pub initial: u64,
    /// `T`: a new expiry time.
    pub touch: Option<Exptime>,
    /// Whether `T` came behind `N`, as in [`Get::touch_last`].
    pub touch_last: bool,
    /// `C`: only when the item still has this token.
    pub compare: Option<u64>,
    /// `E`: the token it gets.
    pub new_cas: Option<u64>,
}

/// When an item that a reader makes ends, by its `N` and `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// What the last of the two says.
    pub ends: Exptime,
    /// The first one's value, when both were there: it is the item's end for the flags between them.
    pub before: Option<Exptime>,
}

impl Made {
    /// `None` when no item is to be made.
    pub fn new(vivify: Option<Exptime>, touch: Option<Exptime>, touch_last: bool) -> Option<Self> {
        let vivify = vivify?;
        Some(match touch {
            Some(touch) if touch_last => Self { ends: touch, before: Some(vivify) },
            touch => Self { ends: vivify, before: touch },
        })
    }
}

impl Arithmetic {
    /// A plain `incr` by 1.
    pub const PLAIN: Self = Self {
        decrement: false,
        delta: 1,
        vivify: None,
        initial: 0,
        touch: None,
        touch_last: false,
        compare: None,
        new_cas: None,
    };
}

/// The outcome of a command. A miss is an outcome, not an error.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// The item was read, touched, counted or looked at.
    Found(Found<'a>),
    /// There is no such item. For an append, see [`Outcome::NotStored`].
    NotFound,
    /// The value was written; this is the item under the key.
    Stored(ItemView<'a>),
    /// The condition of add, replace, append or prepend did not hold.
    NotStored,
    /// The compared CAS token was another.
    Exists,
    /// The item was removed or marked stale.
    Deleted,
    /// It did not happen.
    Failed(Failure),
}

impl Outcome<'_> {
    /// Its name in memcached's logs (logger.c, `_logger_parse_ise`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Found(_) => "found",
            Self::NotFound => "not_found",
            Self::Stored(_) => "stored",
            Self::NotStored => "not_stored",
            Self::Exists => "exists",
            Self::Deleted => "deleted",
            Self::Failed(Failure::TooLarge) => "too_large",
            Self::Failed(Failure::OutOfMemory) => "no_memory",
            Self::Failed(Failure::NonNumeric) => "non_numeric",
            Self::Failed(Failure::Unavailable(_)) => "unavailable",
        }
    }
}

/// An item that was found, and which client refills it.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The item.
    pub item: ItemView<'a>,
    /// `W`: this client won the right to refill it.
    pub won: bool,
    /// `X`: it is marked stale.
    pub stale: bool,
    /// `Z`: another client has won already.
    pub win_sent: bool,
    /// Whether this command made it.
    pub created: bool,
    /// Seconds that were left to live before this operation touched the item; of one that it
    /// made, those of [`Made::before`].
    pub ttl_before: Option<u32>,
}

impl<'a> Found<'a> {
    /// An item that nobody needs to refill.
    pub fn plain(item: ItemView<'a>, ttl_before: Option<u32>) -> Self {
        Self { item, won: false, stale: false, win_sent: false, created: false, ttl_before }
    }
}

/// Why a command did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The value is not a decimal number of 64 bits; the client's fault.
    NonNumeric,
    /// The item is larger than the limit (`-I`); the client's fault.
    TooLarge,
    /// The cache is full and may not evict (`-M`).
    OutOfMemory,
    /// The key's owner in the cluster could not execute it.
    Unavailable(Unavailable),
}

/// Why a key's owner could not execute a command. A reader receives a miss for each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The owner does not answer; calls to it are not tried for now.
    Unreachable,
    /// The owner did not answer in time, or the connection to it broke. The command may have
    /// been executed.
    Unanswered,
    /// Too much waits for the owner already.
    Overloaded,
    /// The key changed its owner twice while the command was on its way.
    Moved,
    /// The owner may not answer for the key yet, or no longer, and has not executed the command.
    Refused,
    /// This node is not in touch with most of its cluster, and must not answer for its keys.
    Fenced,
    /// This node has not joined its cluster yet, and knows no owner of keys.
    NoOwner,
}
