//! What the side-by-side comparisons share: the load, the processes it is put on, and what is said about them.

pub mod load;
pub mod process;
pub mod report;
pub mod server;
