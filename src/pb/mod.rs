//! What nodes say to each other, generated from `proto/filbert.proto`, and its conversions to
//! and from commands and outcomes.

mod convert;
mod generated;
mod packed;

pub use convert::{Clocked, Malformed, command, outcome, view};
pub use generated::*;
pub use packed::{Opened, Packed, pack, put_outcome, put_refusal, take_outcome};
