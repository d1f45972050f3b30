//! What every test here stands on: server processes, a client that speaks raw bytes,
//! certificates, and the Python environment of the real clients.

pub mod certificates;
pub mod daemon;
pub mod python;
pub mod run;
pub mod server;
pub mod wire;
