//! Who is alive, and who owns what.

pub mod propose;
pub mod view;
