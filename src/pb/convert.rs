//! Commands to messages at the node that forwards, and back at the one that executes; outcomes
//! the other way.

use bytes::Bytes;

use crate::clock::{Clock, Seconds};
use crate::command::{Arithmetic, Command, Delete, Failure, Found, Get, Outcome, Set, SetMode, Verb};
use crate::item::{Exptime, ItemView, KEY_MAX};
use crate::pb;
use crate::pb::OpRef;

/// A message that no node of this version sends; the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent something {0}")]
pub struct Malformed(pub &'static str);

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self("that cannot be read")
    }
}

/// The time at the node that forwards: expiry times travel as seconds left, so that the clocks
/// of two nodes need not agree.
#[derive(Debug, Clone, Copy)]
pub struct Clocked<'a> {
    /// This node's clock.
    pub clock: &'a Clock,
    /// What it shows.
    pub now: Seconds,
}

impl Clocked<'_> {
    fn ttl(&self, exptime: Exptime) -> pb::Ttl {
        let deadline = self.clock.deadline(exptime, self.now);
        pb::Ttl { seconds: (deadline != 0).then(|| deadline.saturating_sub(self.now)) }
    }
}

fn exptime(ttl: pb::Ttl) -> Exptime {
    match ttl.seconds {
        None => Exptime::Never,
        // No time left is past, where In(0) would be now.
        Some(0) => Exptime::At(0),
        Some(seconds) => Exptime::In(seconds),
    }
}

/// What a command asks for as it travels, but for the value of a set, which comes beside it.
pub(super) fn verb<'a>(verb: Verb<'a>, at: Clocked<'_>) -> (pb::operation::Verb, &'a [u8]) {
    use pb::operation::Verb as Wire;

    let ttl = |exptime| at.ttl(exptime);
    let wire = match verb {
        Verb::Get(get) => Wire::Get(pb::Get {
            touch: get.touch.map(ttl),
            vivify: get.vivify.map(ttl),
            recache: get.recache.map(ttl),
            recache_first: get.recache_first,
            new_cas: get.new_cas,
            no_bump: !get.bump,
            wins: get.wins,
            no_value: false,
            touch_last: get.touch_last,
            loads: get.loads,
        }),
        Verb::Set(set) => Wire::Set(pb::Set {
            mode: set_mode(set.mode).into(),
            value: Bytes::new(),
            flags: set.flags,
            ttl: Some(ttl(set.exptime)),
            compare: set.compare,
            new_cas: set.new_cas,
            invalidate: set.invalidate,
            vivify: set.vivify.map(ttl),
            no_item: false,
        }),
        Verb::Delete(delete) => Wire::Delete(pb::Delete {
            compare: delete.compare,
            new_cas: delete.new_cas,
            invalidate: delete.invalidate,
            touch: delete.touch.map(ttl),
            clear: delete.clear,
            meta: delete.meta,
        }),
        Verb::Arithmetic(sum) => Wire::Arithmetic(pb::Arithmetic {
            decrement: sum.decrement,
            delta: sum.delta,
            vivify: sum.vivify.map(ttl),
            initial: sum.initial,
            touch: sum.touch.map(ttl),
            compare: sum.compare,
            new_cas: sum.new_cas,
            touch_last: sum.touch_last,
        }),
        Verb::Inspect => Wire::Inspect(pb::Inspect {}),
    };
    (wire, if let Verb::Set(set) = verb { set.value } else { &[] })
}

fn set_mode(mode: SetMode) -> pb::set::Mode {
    match mode {
        SetMode::Set => pb::set::Mode::Set,
        SetMode::Add => pb::set::Mode::Add,
        SetMode::Replace => pb::set::Mode::Replace,
        SetMode::Append => pb::set::Mode::Append,
        SetMode::Prepend => pb::set::Mode::Prepend,
    }
}

/// The command of an operation.
///
/// # Errors
/// It has no verb, no mode, or no key that a client could have sent.
pub fn command<'a>(operation: &OpRef<'a>) -> Result<Command<'a>, Malformed> {
    use pb::operation::Verb as Wire;

    if operation.key.is_empty() || operation.key.len() > KEY_MAX {
        return Err(Malformed("without a key of 1 to 250 bytes"));
    }
    let verb = match operation.verb.as_ref().ok_or(Malformed("without a verb"))? {
        Wire::Get(get) => Verb::Get(Get {
            touch: get.touch.map(exptime),
            vivify: get.vivify.map(exptime),
            recache: get.recache.map(exptime),
            recache_first: get.recache_first,
            touch_last: get.touch_last,
            new_cas: get.new_cas,
            bump: !get.no_bump,
            loads: get.loads,
            wins: get.wins,
        }),
        Wire::Set(set) => Verb::Set(Set {
            mode: match set.mode() {
                pb::set::Mode::Set => SetMode::Set,
                pb::set::Mode::Add => SetMode::Add,
                pb::set::Mode::Replace => SetMode::Replace,
                pb::set::Mode::Append => SetMode::Append,
                pb::set::Mode::Prepend => SetMode::Prepend,
            },
            value: operation.value,
            received: None,
            flags: set.flags,
            exptime: set.ttl.map_or(Exptime::Never, exptime),
            compare: set.compare,
            new_cas: set.new_cas,
            invalidate: set.invalidate,
            vivify: set.vivify.map(exptime),
        }),
        Wire::Delete(delete) => Verb::Delete(Delete {
            compare: delete.compare,
            new_cas: delete.new_cas,
            invalidate: delete.invalidate,
            touch: delete.touch.map(exptime),
            clear: delete.clear,
            meta: delete.meta,
        }),
        Wire::Arithmetic(sum) => Verb::Arithmetic(Arithmetic {
            decrement: sum.decrement,
            delta: sum.delta,
            vivify: sum.vivify.map(exptime),
            initial: sum.initial,
            touch: sum.touch.map(exptime),
            touch_last: sum.touch_last,
            compare: sum.compare,
            new_cas: sum.new_cas,
        }),
        Wire::Inspect(_) => Verb::Inspect,
    };
    Ok(Command { key: operation.key, key_binary: operation.key_binary, verb })
}

/// The outcome of an operation as it travels.
pub fn outcome(id: u64, outcome: &Outcome<'_>) -> pb::Outcome {
    let (mut message, value) = parts(id, outcome);
    if let Some(item) = &mut message.item {
        item.value = Bytes::copy_from_slice(value);
    }
    message
}

/// The outcome of an operation as it travels, but for the value that was found, which comes
/// beside it.
pub(super) fn parts<'a>(id: u64, outcome: &Outcome<'a>) -> (pb::Outcome, &'a [u8]) {
    use pb::outcome::Kind;

    let mut message = pb::Outcome { id, ..pb::Outcome::default() };
    let mut value: &[u8] = &[];
    let kind = match outcome {
        Outcome::Found(found) => {
            message.item = Some(item(&found.item));
            message.won = found.won;
            message.stale = found.stale;
            message.win_sent = found.win_sent;
            message.created = found.created;
            message.ttl_before = found.ttl_before;
            value = found.item.value;
            Kind::Found
        }
        Outcome::NotFound => Kind::NotFound,
        Outcome::Stored(stored) => {
            message.item = Some(item(stored));
            Kind::Stored
        }
        Outcome::NotStored => Kind::NotStored,
        Outcome::Exists => Kind::Exists,
        Outcome::Deleted => Kind::Deleted,
        Outcome::Failed(Failure::NonNumeric) => Kind::NonNumeric,
        Outcome::Failed(Failure::TooLarge) => Kind::TooLarge,
        Outcome::Failed(Failure::OutOfMemory) => Kind::OutOfMemory,
        Outcome::Failed(Failure::Unavailable(_)) => Kind::Unavailable,
    };
    message.set_kind(kind);
    (message, value)
}

/// An item as it travels, without its key and its value.
pub fn item(view: &ItemView<'_>) -> pb::Item {
    pb::Item {
        value: Bytes::new(),
        value_len: view.value_len as u64,
        flags: view.flags,
        cas: view.cas,
        ttl_seconds: view.ttl_seconds,
        idle_seconds: view.idle_seconds,
        fetched: view.fetched,
        key_binary: view.key_binary,
    }
}

/// An item of a message, borrowed from it and from its key.
pub fn item_view<'a>(item: &'a pb::Item, key: &'a [u8]) -> ItemView<'a> {
    ItemView {
        key,
        value: &item.value,
        // Its memory is that of the whole message.
        shared: None,
        value_len: item.value_len as usize,
        flags: item.flags,
        cas: item.cas,
        ttl_seconds: item.ttl_seconds,
        idle_seconds: item.idle_seconds,
        fetched: item.fetched,
        key_binary: item.key_binary,
        loaded: false,
    }
}

/// The outcome of a message, borrowed from it and from the key that was asked for; `None` when
/// the operation was not executed.
pub fn view<'a>(message: &'a pb::Outcome, key: &'a [u8]) -> Option<Outcome<'a>> {
    use pb::outcome::Kind;

    let item = || Some(item_view(message.item.as_ref()?, key));
    Some(match message.kind() {
        Kind::Unspecified | Kind::WrongOwner | Kind::Unavailable | Kind::Loading => return None,
        Kind::Found => Outcome::Found(Found {
            item: item()?,
            won: message.won,
            stale: message.stale,
            win_sent: message.win_sent,
            created: message.created,
            ttl_before: message.ttl_before,
        }),
        Kind::NotFound => Outcome::NotFound,
        Kind::Stored => Outcome::Stored(item().unwrap_or(ItemView { key, ..ItemView::default() })),
        Kind::NotStored => Outcome::NotStored,
        Kind::Exists => Outcome::Exists,
        Kind::Deleted => Outcome::Deleted,
        Kind::NonNumeric => Outcome::Failed(Failure::NonNumeric),
        Kind::TooLarge => Outcome::Failed(Failure::TooLarge),
        Kind::OutOfMemory => Outcome::Failed(Failure::OutOfMemory),
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use prost::Message as _;

    use super::*;
    use crate::pb::{Projection, pack, put_outcome, take_outcome};

    const KEY: &[u8] = b"k\xff";

    fn travel(verb: Verb<'_>, check: impl Fn(&OpRef<'_>)) {
        let clock = Clock::manual(1_700_000_000);
        clock.advance(100);
        let command = Command { key: KEY, key_binary: true, verb };
        let mut buffer = BytesMut::new();
        let encoded =
            pack(&command, Clocked { clock: &clock, now: clock.now() }, Projection::Value, &mut buffer);
        assert!(buffer.is_empty());
        assert_eq!((encoded.key(), encoded.key_binary()), (KEY, true));
        assert_eq!(encoded.open().expect("whole").key, KEY);
        encoded.put_numbered(7, &mut buffer);
        // What is written by hand is what the library would have written.
        let numbered = pb::Operation::decode_length_delimited(&buffer[..]).expect("whole");
        assert_eq!((&numbered.key[..], numbered.key_binary), (KEY, true));
        check(&OpRef::take(&mut &buffer[..]).expect("whole"));
    }

    #[test]
    fn every_command_arrives_as_it_left() {
        let (touch, vivify) = (Some(Exptime::In(5)), Some(Exptime::Never));
        for verb in [
            Verb::Get(Get {
                touch,
                vivify,
                recache: Some(Exptime::In(30)),
                recache_first: true,
                touch_last: true,
                new_cas: Some(9),
                bump: false,
                loads: true,
                wins: true,
            }),
            Verb::Get(Get::PLAIN),
            Verb::Set(Set {
                mode: SetMode::Prepend,
                value: b"\x00\r\n",
                received: None,
                flags: u32::MAX,
                exptime: Exptime::In(60),
                compare: Some(0),
                new_cas: Some(u64::MAX),
                invalidate: true,
                vivify,
            }),
            Verb::Delete(Delete {
                compare: Some(3),
                new_cas: None,
                invalidate: true,
                touch,
                clear: true,
                meta: true,
            }),
            Verb::Arithmetic(Arithmetic {
                decrement: true,
                delta: u64::MAX,
                vivify,
                initial: 4,
                touch,
                touch_last: true,
                compare: Some(2),
                new_cas: Some(1),
            }),
            Verb::Inspect,
        ] {
            travel(verb, |operation| {
                assert_eq!(operation.id, 7);
                assert_eq!(command(operation), Ok(Command { key: KEY, key_binary: true, verb }));
            });
        }
    }

    #[test]
    fn absolute_times_travel_as_seconds_left() {
        let get = |touch| Verb::Get(Get { touch: Some(touch), ..Get::PLAIN });
        // The clock of `travel` shows 1,700,000,100.
        for (sent, arrived) in [
            (Exptime::At(1_700_000_130), Exptime::In(30)),
            (Exptime::At(1_700_000_100), Exptime::At(0)),
            (Exptime::At(0), Exptime::At(0)),
        ] {
            travel(get(sent), |operation| {
                assert_eq!(command(operation).expect("whole").verb, get(arrived), "{sent:?}");
            });
        }
    }

    #[test]
    fn every_outcome_comes_back_as_it_was() {
        let item = ItemView {
            key: KEY,
            value: b"value",
            shared: None,
            value_len: 5,
            flags: 3,
            cas: 4,
            ttl_seconds: Some(5),
            idle_seconds: 6,
            fetched: true,
            key_binary: true,
            loaded: false,
        };
        let found =
            Found { item, won: true, stale: true, win_sent: true, created: true, ttl_before: Some(8) };
        for sent in [
            Outcome::Found(found),
            Outcome::Found(Found::plain(ItemView { ttl_seconds: None, ..item }, None)),
            Outcome::Stored(ItemView { value: b"", ..item }),
            Outcome::NotFound,
            Outcome::NotStored,
            Outcome::Exists,
            Outcome::Deleted,
            Outcome::Failed(Failure::NonNumeric),
            Outcome::Failed(Failure::TooLarge),
            Outcome::Failed(Failure::OutOfMemory),
        ] {
            let message = outcome(9, &sent);
            assert_eq!(message.id, 9);
            let mut buffer = BytesMut::new();
            put_outcome(9, Projection::Value, &sent, &mut buffer);
            assert_eq!(take_outcome(&mut buffer.freeze()).expect("whole"), message);
            assert_eq!(format!("{:?}", view(&message, KEY).unwrap()), format!("{sent:?}"));
        }
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        let key = [b'k'; KEY_MAX + 1];
        let sent = |key, verb| OpRef { id: 1, key, key_binary: false, verb, value: b"" };
        let inspect = || Some(pb::operation::Verb::Inspect(pb::Inspect {}));
        assert!(command(&sent(&key[..KEY_MAX], inspect())).is_ok());
        assert!(command(&sent(&key[..KEY_MAX], None)).is_err());
        assert!(command(&sent(&key[..0], inspect())).is_err());
        assert!(command(&sent(&key, inspect())).is_err());
        assert!(view(&pb::Outcome::default(), KEY).is_none());
    }
}
