//! Stands for `http.rs` in a build without the Cargo feature `origin-http`: has its options, and refuses them.

mod options;

use crate::origin::{Fetching, Invalid, Origin};
pub use options::Options;

/// An origin of a kind that this build leaves out: there is none.
pub enum Http {}

impl Http {
    /// Says that this build has no such origin.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn check(options: &Options) -> Result<(), Invalid> {
        Self::new(options).map(drop)
    }

    /// Says that this build has no such origin.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn new(_: &Options) -> Result<Self, Invalid> {
        Err(Invalid::new("http", "this build has no HTTP origins (Cargo feature origin-http)"))
    }
}

impl Origin for Http {
    fn fetch<'a>(&'a self, _: &'a [u8]) -> Fetching<'a> {
        match *self {}
    }
}
