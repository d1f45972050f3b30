//! Operations and outcomes as bytes. A message holds many: each is written straight into a buffer
//! that they share, and taken apart only when its turn has come.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::command::{Command, Outcome};
use crate::pb;
use crate::pb::convert::{Clocked, parts, verb};

/// Field numbers of `proto/filbert.proto`, of the fields that are written by hand.
mod field {
    pub(super) const OPERATIONS_OPERATIONS: u32 = 4;
    pub(super) const OPERATION_ID: u32 = 1;
    pub(super) const OPERATION_KEY: u32 = 2;
    pub(super) const OPERATION_KEY_BINARY: u32 = 3;
    pub(super) const OPERATION_SET: u32 = 5;
    pub(super) const SET_VALUE: u32 = 2;
    pub(super) const OUTCOME_ITEM: u32 = 3;
    pub(super) const ITEM_VALUE: u32 = 1;
}

/// Room for everything in an operation besides key and value, so that a buffer grows once.
const ROOM: usize = 128;

/// An operation, encoded but for its number. A part of a buffer that others are parts of, too.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    bytes: Bytes,
    key_start: u8,
    key_len: u8,
    key_binary: bool,
    value_len: u32,
}

/// A command as it travels, written to an empty buffer and split off from it. Without
/// `wants_value` a value that is read stays where it is.
///
/// # Panics
/// With a key of more than 255 bytes; none has more than 250.
pub fn pack(command: &Command<'_>, at: Clocked<'_>, wants_value: bool, buffer: &mut BytesMut) -> Packed {
    use pb::operation::Verb as Wire;

    let (mut verb, value) = verb(command.verb, at);
    if let Wire::Get(get) = &mut verb {
        get.no_value = !wants_value;
    }
    buffer.reserve(command.key.len() + value.len() + ROOM);
    encode_key(field::OPERATION_KEY, WireType::LengthDelimited, buffer);
    encode_varint(command.key.len() as u64, buffer);
    let key_start = buffer.len();
    buffer.put_slice(command.key);
    if command.key_binary {
        prost::encoding::bool::encode(field::OPERATION_KEY_BINARY, &true, buffer);
    }
    match &verb {
        Wire::Set(set) => put_with_bytes(field::OPERATION_SET, set, field::SET_VALUE, value, buffer),
        other => other.encode(buffer),
    }
    Packed {
        bytes: buffer.split().freeze(),
        key_start: key_start as u8,
        key_len: u8::try_from(command.key.len()).expect("a key of at most 250 bytes"),
        key_binary: command.key_binary,
        value_len: value.len() as u32,
    }
}

impl Packed {
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
    pub fn put_element(&self, id: u64, buffer: &mut BytesMut) {
        let id_len = key_len(field::OPERATION_ID) + encoded_len_varint(id);
        buffer.reserve(self.bytes.len() + ROOM);
        encode_key(field::OPERATIONS_OPERATIONS, WireType::LengthDelimited, buffer);
        encode_varint((id_len + self.bytes.len()) as u64, buffer);
        encode_key(field::OPERATION_ID, WireType::Varint, buffer);
        encode_varint(id, buffer);
        buffer.put_slice(&self.bytes);
    }

    /// Takes it apart.
    ///
    /// # Panics
    /// Never: only [`pack`] makes one.
    pub fn operation(&self) -> pb::Operation {
        pb::Operation::decode(self.bytes.clone()).expect("encoded here")
    }
}

/// Writes an outcome as it travels, with the value that was found, if that is wanted.
pub fn put_outcome(id: u64, wants_value: bool, outcome: &Outcome<'_>, buffer: &mut BytesMut) {
    let (mut message, value) = parts(id, outcome);
    let value = if wants_value { value } else { &[] };
    let item = message.item.take();
    buffer.reserve(value.len() + ROOM);
    put(&message, buffer);
    if let Some(item) = item {
        put_with_bytes(field::OUTCOME_ITEM, &item, field::ITEM_VALUE, value, buffer);
    }
}

/// Writes a message into a buffer that grows.
pub fn put(message: &impl prost::Message, buffer: &mut BytesMut) {
    message.encode(buffer).expect("a BytesMut grows");
}

/// Writes a message, as a field of another, with one more field that was left out of it.
fn put_with_bytes(
    number: u32,
    message: &impl prost::Message,
    bytes_number: u32,
    bytes: &[u8],
    buffer: &mut BytesMut,
) {
    let bytes_len = match bytes.len() {
        0 => 0,
        len => key_len(bytes_number) + encoded_len_varint(len as u64) + len,
    };
    encode_key(number, WireType::LengthDelimited, buffer);
    encode_varint((message.encoded_len() + bytes_len) as u64, buffer);
    put(message, buffer);
    if !bytes.is_empty() {
        encode_key(bytes_number, WireType::LengthDelimited, buffer);
        encode_varint(bytes.len() as u64, buffer);
        buffer.put_slice(bytes);
    }
}
