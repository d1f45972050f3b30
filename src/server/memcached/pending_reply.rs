//! Replies with an outcome that is not known yet.

use crate::command::{Failure, Outcome, Unavailable};
use crate::pb;
use crate::pb::{EncodedOp, Projection};
use crate::peer::Answer;
use crate::protocol::binary::Head;
use crate::protocol::binary::reply::{Binary, Form};
use crate::protocol::output::Output;
use crate::protocol::reply::{self, Classic, Meta, MetaVerb, Reply};
use crate::protocol::token::Tokens;

/// A [`Reply`] that outlives the request it was read from. The key is in the operation.
pub(super) enum PendingReply {
    Value {
        cas: bool,
        last: bool,
    },
    Classic(Classic, bool),
    Meta(Box<OwnedMeta>),
    Binary(Head, Form),
    /// Replies with these bytes, whatever the outcome: a value was not stored, and the old value under the key is
    /// dropped.
    Told(Vec<u8>),
}

pub(super) struct OwnedMeta {
    verb: MetaVerb,
    flags: Box<[u8]>,
    value: bool,
    known: Option<u64>,
    quiet: bool,
    value_len: usize,
}

impl From<&Reply<'_>> for PendingReply {
    fn from(reply: &Reply<'_>) -> Self {
        match *reply {
            Reply::Value { cas, last } => Self::Value { cas, last },
            Reply::Classic(verb, quiet) => Self::Classic(verb, quiet),
            Reply::Meta(Meta { verb, flags, value, known, quiet, value_len, .. }) => {
                let flags = flags.0.into();
                Self::Meta(Box::new(OwnedMeta { verb, flags, value, known, quiet, value_len }))
            }
            Reply::Binary(Binary { head, form, .. }) => Self::Binary(head, form),
        }
    }
}

impl PendingReply {
    /// How much of the item it shows.
    pub(super) fn projection(&self) -> Projection {
        match self {
            Self::Value { .. } => Projection::Value,
            Self::Meta(meta) if meta.value => Projection::Value,
            Self::Binary(_, Form::Get { with_value: true, .. }) => Projection::Value,
            Self::Binary(head, Form::Store(_)) if head.quiet => Projection::Status,
            Self::Meta(_) | Self::Binary(..) => Projection::Item,
            Self::Classic(..) | Self::Told(_) => Projection::Status,
        }
    }

    fn borrow<'a>(&'a self, operation: &'a EncodedOp) -> Option<Reply<'a>> {
        Some(match self {
            &Self::Value { cas, last } => Reply::Value { cas, last },
            &Self::Classic(verb, quiet) => Reply::Classic(verb, quiet),
            Self::Meta(meta) => Reply::Meta(Meta {
                verb: meta.verb,
                flags: Tokens(&meta.flags),
                key: operation.key(),
                key_binary: operation.key_binary(),
                value: meta.value,
                known: meta.known,
                quiet: meta.quiet,
                value_len: meta.value_len,
            }),
            &Self::Binary(head, form) => Reply::Binary(Binary { head, form, key: operation.key() }),
            Self::Told(_) => return None,
        })
    }

    /// Writes it, and shows the command and its outcome to `seen`.
    pub(super) fn write(
        &self,
        out: &mut Output,
        answer: &Answer,
        seen: &mut impl FnMut(&EncodedOp, &Outcome<'_>),
    ) {
        let Some(reply) = self.borrow(&answer.operation) else {
            if let Self::Told(bytes) = self {
                out.writer().extend_from_slice(bytes);
            }
            return;
        };
        let outcome = match &answer.result {
            // Only the executing node knows what happened: an outcome without it is no answer.
            Ok(message) => pb::view(message, answer.operation.key())
                .unwrap_or(Outcome::Failed(Failure::Unavailable(Unavailable::Unanswered))),
            Err(why) => Outcome::Failed(Failure::Unavailable(*why)),
        };
        seen(&answer.operation, &outcome);
        reply::write(out, &reply, &outcome);
    }
}
