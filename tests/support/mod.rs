//! What every test here stands on: server processes, a client that speaks raw bytes, and the
//! Python environment of the real clients.

pub mod python;
pub mod server;
pub mod wire;
