//! What nodes say to each other, generated from `proto/filbert.proto`, and its conversions to
//! and from commands and outcomes.

mod convert;
mod generated;

pub use convert::{Clocked, Malformed, command, operation, outcome, view};
pub use generated::*;
