//! What listens: for clients of memcached, for other nodes, and for HTTP.

pub mod acceptor;
pub mod admin;
pub mod connections;
mod context;
pub mod guests;
pub mod history;
pub mod listen;
pub mod memcached;
pub mod metrics;
mod options;
pub mod peer;
pub mod prefix;
pub mod quota;
mod statistics;
pub mod strangers;
pub mod stream;
pub mod worker;

pub use context::ServerContext;
pub use options::{Listen, Options, Security, UnixListen};
