//! The memcached listener's connections.
//!
//! A [`connection`] owns its stream, its codec and its session side by side: it reads, has the codec find requests, and
//! writes. The `session` has each request executed, by the cache or as one of the `commands`; its `pipeline`
//! keeps the replies in order, whether they are there at once or come later. `input` and `reply_memory` bound what a
//! connection holds on its way in and out.

mod commands;
pub mod connection;
mod input;
mod pending_reply;
mod pipeline;
mod reply_memory;
mod session;
