//! What the side-by-side comparisons share: the load, the processes it is put on, and what is said about them.

pub mod case;
pub mod load;
pub mod measure;
pub mod options;
pub mod process;
pub mod report;
pub mod server;

use std::error::Error;

/// Whatever goes wrong in a comparison ends it with a message for a person.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;
