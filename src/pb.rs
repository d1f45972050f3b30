//! What nodes say to each other, generated from `proto/filbert.proto`, and its conversions to
//! and from commands and outcomes.

mod convert;
mod encoded;
mod generated;

pub use convert::{Clocked, Malformed, command, item, item_view, outcome, view};
pub use encoded::{
    EncodedOp, OpRef, Projection, pack, put_kind, put_message, put_moved, put_outcome, take_moved,
    take_outcome,
};
pub use generated::*;
