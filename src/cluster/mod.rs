//! Who is alive, and who owns what.

pub mod view;
