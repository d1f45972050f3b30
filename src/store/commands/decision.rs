//! What the rules decide: an effect on what lies there, and what is answered.

use bytes::Bytes;

use crate::command::{Failure, Found, Made, Outcome};
use crate::store::context::Request;
use crate::store::facts::{Facts, NewValue, STALE, WIN_SENT};

/// What a command does to the item that it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect<'v> {
    /// It stays as it is.
    Nothing,
    /// It gets other facts; its value stays.
    Touch(Facts),
    /// It gets other facts and another value.
    Rewrite(Facts, NewValue<'v>),
    /// It goes.
    Remove,
}

/// An outcome that shows no item. It is small: every write hands one on, or what it has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    NotFound,
    NotStored,
    Exists,
    Deleted,
    NonNumeric,
}

impl Plain {
    #[inline]
    pub(super) fn outcome(self) -> Outcome<'static> {
        match self {
            Self::NotFound => Outcome::NotFound,
            Self::NotStored => Outcome::NotStored,
            Self::Exists => Outcome::Exists,
            Self::Deleted => Outcome::Deleted,
            Self::NonNumeric => Outcome::Failed(Failure::NonNumeric),
        }
    }
}

/// What is answered. Of an item its value is shown that lies there after the effect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer<'v> {
    /// Something that shows no item.
    Plain(Plain),
    /// The item was written, and is shown with these facts.
    Stored(Facts),
    /// The item, with these digits as its value: behind them there may lie blanks.
    Number(Shown, &'v [u8]),
}

impl<'v> Answer<'v> {
    #[inline]
    pub(super) fn outcome<'a>(self, rq: &Request<'a>, value: &'a [u8]) -> Outcome<'a>
    where
        'v: 'a,
    {
        match self {
            Self::Plain(plain) => plain.outcome(),
            Self::Stored(facts) => Outcome::Stored(facts.view(rq.key.bytes, value, rq.cx.now)),
            Self::Number(shown, digits) => Outcome::Found(shown.found(rq, digits)),
        }
    }
}

/// An effect and an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decision<'v> {
    pub(super) effect: Effect<'v>,
    pub(super) answer: Answer<'v>,
}

impl Decision<'_> {
    /// Leaves the item as it is.
    pub(super) fn refuse(why: Plain) -> Self {
        Self { effect: Effect::Nothing, answer: Answer::Plain(why) }
    }
}

/// An item to be made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewItem<'v> {
    pub(super) facts: Facts,
    pub(super) value: &'v [u8],
    /// The memory in which the value was received, where the item may keep that.
    pub(super) received: Option<&'v Bytes>,
}

impl<'v> NewItem<'v> {
    #[inline]
    pub(super) fn new_value(&self) -> NewValue<'v> {
        NewValue::sent(self.value, self.received)
    }
}

/// A [`Found`] to which only key and value are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) facts: Facts,
    pub(super) won: bool,
    pub(super) stale: bool,
    pub(super) win_sent: bool,
    pub(super) created: bool,
    pub(super) ttl_before: Option<u32>,
}

impl Shown {
    /// An item that nobody needs to refill.
    pub(super) fn plain(facts: Facts, ttl_before: Option<u32>) -> Self {
        Self { facts, won: false, stale: false, win_sent: false, created: false, ttl_before }
    }

    /// With its marks, to somebody who changes nothing.
    pub(super) fn marked(facts: Facts) -> Self {
        Self { stale: facts.is(STALE), win_sent: facts.is(WIN_SENT), ..Self::plain(facts, None) }
    }

    /// An item that its reader made.
    pub(super) fn made(rq: &Request<'_>, facts: Facts, made: Made) -> Self {
        let before = made.before.map_or(0, |before| rq.ends(before));
        let ttl_before = (before != 0).then(|| before.saturating_sub(rq.cx.now));
        Self { created: true, ..Self::plain(facts, ttl_before) }
    }

    #[inline]
    pub(super) fn found<'a>(self, rq: &Request<'a>, value: &'a [u8]) -> Found<'a> {
        let Self { facts, won, stale, win_sent, created, ttl_before } = self;
        let item = facts.view(rq.key.bytes, value, rq.cx.now);
        Found { item, won, stale, win_sent, created, ttl_before }
    }
}
