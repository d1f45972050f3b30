//! Encoded operations and outcomes in a message, one after the other: each is written straight into the buffer of a
//! whole message, and read in place when its turn has come.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, key_len, skip_field,
};

use crate::command::{Command, Outcome};
use crate::pb;
use crate::pb::convert::{Clocked, Malformed, parts, verb};
use crate::pb::operation::Verb as Wire;

/// Field numbers of `proto/filbert.proto`, of the fields that are written or read by hand.
mod field {
    pub(super) const OPERATION_ID: u32 = 1;
    pub(super) const OPERATION_KEY: u32 = 2;
    pub(super) const OPERATION_KEY_BINARY: u32 = 3;
    pub(super) const OPERATION_SET: u32 = 5;
    pub(super) const OPERATION_VERBS: std::ops::RangeInclusive<u32> = 4..=8;
    pub(super) const SET_VALUE: u32 = 2;
    pub(super) const OUTCOME_ITEM: u32 = 3;
    pub(super) const ITEM_VALUE: u32 = 1;
    pub(super) const MOVED_ITEM_KEY: u32 = 1;
    pub(super) const MOVED_ITEM_ITEM: u32 = 2;
}

/// Room for everything in an operation besides key and value, so that a buffer grows once.
const ROOM: usize = 128;

/// An operation, encoded but for its number. A part of a buffer that others are parts of, too.
#[derive(Debug, Clone, Default)]
pub struct EncodedOp {
    bytes: Bytes,
    key_start: u8,
    key_len: u8,
    key_binary: bool,
    value_len: u32,
}

/// How much of an item travels back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// Nothing for a stored item, and all but the value for a found one.
    Status,
    /// All but the value for a found item.
    Item,
    /// All.
    Value,
}

/// A command as it travels, written to an empty buffer and split off from it.
///
/// # Panics
/// With a key of more than 255 bytes; none has more than 250.
pub fn pack(command: &Command<'_>, at: Clocked<'_>, wanted: Projection, buffer: &mut BytesMut) -> EncodedOp {
    let (mut verb, value) = verb(command.verb, at);
    match &mut verb {
        Wire::Get(get) => get.no_value = wanted != Projection::Value,
        Wire::Set(set) => set.no_item = wanted == Projection::Status,
        _ => {}
    }
    buffer.reserve(command.key.len() + value.len() + ROOM);
    put_head(field::OPERATION_KEY, command.key.len(), buffer);
    let key_start = buffer.len();
    buffer.put_slice(command.key);
    if command.key_binary {
        prost::encoding::bool::encode(field::OPERATION_KEY_BINARY, &true, buffer);
    }
    match &verb {
        Wire::Set(set) => {
            put_head(field::OPERATION_SET, set.encoded_len() + bytes_len(field::SET_VALUE, value), buffer);
            put(set, buffer);
            put_bytes(field::SET_VALUE, value, buffer);
        }
        other => other.encode(buffer),
    }
    EncodedOp {
        bytes: buffer.split().freeze(),
        key_start: key_start as u8,
        key_len: u8::try_from(command.key.len()).expect("a key of at most 250 bytes"),
        key_binary: command.key_binary,
        value_len: value.len() as u32,
    }
}

impl EncodedOp {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        let start = usize::from(self.key_start);
        &self.bytes[start..start + usize::from(self.key_len)]
    }

    /// Whether the key came base64-encoded.
    pub fn key_binary(&self) -> bool {
        self.key_binary
    }

    /// Bytes of its key and value.
    pub fn payload_bytes(&self) -> usize {
        usize::from(self.key_len) + self.value_len as usize
    }

    /// Writes it as one of `Operations.operations`.
    pub fn put_numbered(&self, id: u64, buffer: &mut BytesMut) {
        let id_len = key_len(field::OPERATION_ID) + encoded_len_varint(id);
        buffer.reserve(self.bytes.len() + ROOM);
        encode_varint((id_len + self.bytes.len()) as u64, buffer);
        encode_key(field::OPERATION_ID, WireType::Varint, buffer);
        encode_varint(id, buffer);
        buffer.put_slice(&self.bytes);
    }

    /// Reads it, as number 0.
    ///
    /// # Errors
    /// Never, for the output of [`pack`].
    pub fn open(&self) -> Result<OpRef<'_>, Malformed> {
        OpRef::read(&self.bytes)
    }
}

/// An operation that is read in place.
#[derive(Debug)]
pub struct OpRef<'a> {
    /// Its number within its stream.
    pub id: u64,
    /// Its key.
    pub key: &'a [u8],
    /// Whether the key came base64-encoded.
    pub key_binary: bool,
    /// What it asks for, but for the value of a set.
    pub(super) verb: Option<Wire>,
    /// The value of a set.
    pub(super) value: &'a [u8],
}

impl<'a> OpRef<'a> {
    /// The first of some `Operations.operations`; it is removed from them.
    ///
    /// # Errors
    /// There is none, or it is incomplete.
    pub fn take(operations: &mut &'a [u8]) -> Result<Self, Malformed> {
        Self::read(take_bytes(operations)?)
    }

    fn read(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut op = Self { id: 0, key: &[], key_binary: false, verb: None, value: &[] };
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes)?;
            match number {
                field::OPERATION_ID | field::OPERATION_KEY_BINARY => {
                    check_wire_type(WireType::Varint, wire_type)?;
                    let number_is = decode_varint(&mut bytes)?;
                    match number {
                        field::OPERATION_ID => op.id = number_is,
                        _ => op.key_binary = number_is != 0,
                    }
                }
                field::OPERATION_KEY => {
                    check_wire_type(WireType::LengthDelimited, wire_type)?;
                    op.key = take_bytes(&mut bytes)?;
                }
                field::OPERATION_SET => {
                    check_wire_type(WireType::LengthDelimited, wire_type)?;
                    let (set, value) = read_set(take_bytes(&mut bytes)?)?;
                    (op.verb, op.value) = (Some(Wire::Set(set)), value);
                }
                number if field::OPERATION_VERBS.contains(&number) => {
                    let context = DecodeContext::default();
                    Wire::merge(&mut op.verb, number, wire_type, &mut bytes, context)?;
                }
                number => skip_field(wire_type, number, &mut bytes, DecodeContext::default())?,
            }
        }
        Ok(op)
    }

    /// How much of an item is to travel.
    pub fn wanted(&self) -> Projection {
        match &self.verb {
            Some(Wire::Set(set)) if set.no_item => Projection::Status,
            Some(Wire::Get(get)) if get.no_value => Projection::Item,
            Some(Wire::Inspect(_)) => Projection::Item,
            _ => Projection::Value,
        }
    }
}

/// A set and its value, which may stand anywhere in it.
fn read_set(bytes: &[u8]) -> Result<(pb::Set, &[u8]), Malformed> {
    let (mut value, mut rest): (&[u8], _) = (&[], bytes);
    let mut set = pb::Set::default();
    let mut from = 0;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let (number, wire_type) = decode_key(&mut rest)?;
        if number == field::SET_VALUE {
            check_wire_type(WireType::LengthDelimited, wire_type)?;
            value = take_bytes(&mut rest)?;
            set.merge(&bytes[from..at])?;
            from = bytes.len() - rest.len();
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        }
    }
    set.merge(&bytes[from..])?;
    Ok((set, value))
}

/// Writes an outcome as one of `Outcomes.outcomes`, with as much of the item as is wanted.
pub fn put_outcome(id: u64, wanted: Projection, outcome: &Outcome<'_>, buffer: &mut BytesMut) {
    if wanted == Projection::Status && matches!(outcome, Outcome::Stored(_)) {
        return put_kind(id, pb::outcome::Kind::Stored, buffer);
    }
    let (mut message, value) = parts(id, outcome);
    let value = if wanted == Projection::Value { value } else { &[] };
    let item = message.item.take();
    let len =
        message.encoded_len() + item.as_ref().map_or(0, |item| item_len(field::OUTCOME_ITEM, item, value));
    buffer.reserve(value.len() + ROOM);
    encode_varint(len as u64, buffer);
    put(&message, buffer);
    if let Some(item) = item {
        put_item(field::OUTCOME_ITEM, &item, value, buffer);
    }
}

/// Writes an outcome as one of `Outcomes.outcomes`.
pub fn put_message(outcome: &pb::Outcome, buffer: &mut BytesMut) {
    // A buffer grows as it must.
    _ = outcome.encode_length_delimited(buffer);
}

/// Writes an outcome without further data as one of `Outcomes.outcomes`.
pub fn put_kind(id: u64, kind: pb::outcome::Kind, buffer: &mut BytesMut) {
    let message = pb::Outcome { id, kind: kind.into(), ..pb::Outcome::default() };
    encode_varint(message.encoded_len() as u64, buffer);
    put(&message, buffer);
}

/// The first of some `Outcomes.outcomes`; it is removed from them.
///
/// # Errors
/// There is none, or it is incomplete.
pub fn take_outcome(outcomes: &mut Bytes) -> Result<pb::Outcome, Malformed> {
    Ok(pb::Outcome::decode_length_delimited(outcomes)?)
}

/// Writes an item as one of `MoveReply.items`, with this key and this value; the message has neither.
pub fn put_moved(mut moved: pb::MovedItem, key: &[u8], value: &[u8], buffer: &mut BytesMut) {
    let item = moved.item.take().unwrap_or_default();
    let len = moved.encoded_len()
        + bytes_len(field::MOVED_ITEM_KEY, key)
        + item_len(field::MOVED_ITEM_ITEM, &item, value);
    buffer.reserve(key.len() + value.len() + ROOM);
    encode_varint(len as u64, buffer);
    put(&moved, buffer);
    put_bytes(field::MOVED_ITEM_KEY, key, buffer);
    put_item(field::MOVED_ITEM_ITEM, &item, value, buffer);
}

/// The first of some `MoveReply.items`; it is removed from them.
///
/// # Errors
/// There is none, or it is incomplete.
pub fn take_moved(items: &mut Bytes) -> Result<pb::MovedItem, Malformed> {
    Ok(pb::MovedItem::decode_length_delimited(items)?)
}

/// Writes an item as a field, with a value that it does not have yet.
fn put_item(number: u32, item: &pb::Item, value: &[u8], buffer: &mut BytesMut) {
    put_head(number, item.encoded_len() + bytes_len(field::ITEM_VALUE, value), buffer);
    put(item, buffer);
    put_bytes(field::ITEM_VALUE, value, buffer);
}

fn item_len(number: u32, item: &pb::Item, value: &[u8]) -> usize {
    let len = item.encoded_len() + bytes_len(field::ITEM_VALUE, value);
    head_len(number, len) + len
}

/// Writes a message into a buffer that grows.
fn put(message: &impl prost::Message, buffer: &mut BytesMut) {
    message.encode(buffer).expect("a BytesMut grows");
}

/// Writes what stands before the bytes of a field.
fn put_head(number: u32, len: usize, buffer: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

fn head_len(number: u32, len: usize) -> usize {
    key_len(number) + encoded_len_varint(len as u64)
}

/// Writes a field, unless it is empty.
fn put_bytes(number: u32, bytes: &[u8], buffer: &mut BytesMut) {
    if !bytes.is_empty() {
        put_head(number, bytes.len(), buffer);
        buffer.put_slice(bytes);
    }
}

fn bytes_len(number: u32, bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { head_len(number, bytes.len()) + bytes.len() }
}

/// Takes bytes behind their length.
fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(decode_varint(from)?).unwrap_or(usize::MAX);
    let bytes = from.get(..len).ok_or(Malformed("that ends too early"))?;
    from.advance(len);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The encoder of the library has no part in how operations are read.
    fn by_library(operation: &pb::Operation) -> Vec<u8> {
        operation.encode_length_delimited_to_vec()
    }

    #[test]
    fn fields_may_come_in_any_order_and_unknown_ones_are_skipped() {
        let set = pb::Set { value: "value".into(), flags: 3, compare: Some(4), ..pb::Set::default() };
        let verb = Some(Wire::Set(set.clone()));
        let operation = pb::Operation { id: 300, key: "key".into(), key_binary: true, verb };
        let mut bytes = by_library(&operation);
        // Field 100, a varint, at the end of both.
        bytes.extend_from_slice(&[0xa0, 0x06, 0x01]);
        bytes[0] += 3;
        let mut rest = &bytes[..];
        let op = OpRef::take(&mut rest).expect("whole");
        assert!(rest.is_empty());
        assert_eq!((op.id, op.key, op.key_binary), (300, &b"key"[..], true));
        assert_eq!(op.value, b"value");
        assert_eq!(op.verb, Some(Wire::Set(pb::Set { value: Bytes::new(), ..set })));
    }

    #[test]
    fn only_what_is_wanted_travels() {
        let item = crate::item::ItemView { value: b"value", value_len: 5, cas: 7, ..Default::default() };
        let came = |wanted, outcome: &Outcome<'_>| {
            let mut buffer = BytesMut::new();
            put_outcome(1, wanted, outcome, &mut buffer);
            let message = take_outcome(&mut buffer.freeze()).expect("whole");
            message.item.map(|item| (item.cas, item.value.len()))
        };
        let stored = Outcome::Stored(crate::item::ItemView { value: b"", ..item });
        let found = Outcome::Found(crate::command::Found::plain(item, None));
        assert_eq!(came(Projection::Status, &stored), None);
        assert_eq!(came(Projection::Item, &stored), Some((7, 0)));
        assert_eq!(came(Projection::Item, &found), Some((7, 0)));
        assert_eq!(came(Projection::Value, &found), Some((7, 5)));
    }

    #[test]
    fn an_item_that_moves_is_what_the_library_writes() {
        let item = pb::Item { value_len: 5, cas: 7, ttl_seconds: Some(9), ..pb::Item::default() };
        let moved = pb::MovedItem { stale: true, uses: 3, item: Some(item), ..pb::MovedItem::default() };
        let mut buffer = BytesMut::new();
        for key in ["first", "second"] {
            put_moved(moved.clone(), key.as_bytes(), b"value", &mut buffer);
        }
        let mut items = buffer.freeze();
        for key in ["first", "second"] {
            let came = take_moved(&mut items).expect("whole");
            let item = moved.item.clone().map(|item| pb::Item { value: "value".into(), ..item });
            assert_eq!(came, pb::MovedItem { key: key.into(), item, ..moved.clone() });
        }
        assert!(items.is_empty() && take_moved(&mut items).is_err());
    }

    proptest! {
        #[test]
        fn junk_is_refused_or_read_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = OpRef::take(&mut &bytes[..]);
            let _ = take_moved(&mut bytes.clone().into());
            let _ = take_outcome(&mut bytes.into());
        }

        #[test]
        fn what_was_cut_off_is_refused(id in any::<u64>(), cut in 1..20_usize) {
            let set = pb::Set { value: "value".into(), flags: 3, ..pb::Set::default() };
            let verb = Some(Wire::Set(set));
            let bytes = by_library(&pb::Operation { id, key: "key".into(), key_binary: false, verb });
            let len = bytes.len().saturating_sub(cut);
            prop_assert!(OpRef::take(&mut &bytes[..len]).is_err());
        }
    }
}
