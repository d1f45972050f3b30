//! What nodes say to each other, generated from `proto/filbert.proto`, and its conversions to
//! and from commands and outcomes.

mod convert;
mod generated;
mod packed;

pub use convert::{Clocked, Malformed, command, outcome, view};
pub use generated::*;
pub use packed::{Packed, pack, put, put_outcome};
