//! What nodes say to each other, generated from `proto/filbert.proto`, and its conversions to
//! and from commands and outcomes.

mod convert;
mod generated;
mod packed;

pub use convert::{Clocked, Malformed, command, outcome, view};
pub use generated::*;
pub use packed::{Opened, Packed, Wanted, pack, put_kind, put_outcome, take_outcome};
