//! Filbert: a memcached-compatible cache of one node or of many.
//!
//! The rooms, from the ground up: [`item`] and [`command`] say what a cache holds and does;
//! [`protocol`] turns bytes into commands and outcomes into bytes; [`store`] is this node's
//! memory; [`cluster`] knows who is there and who owns what, [`peer`] calls the others, [`cache`]
//! decides who executes a command; [`server`] is what listens; [`node`] builds them all, from what
//! [`config`] was told.
//!
//! With the feature `testkit`, which only tests ask for, there is a module of that name: views and a
//! network that a test scripts.

pub mod allocator;
pub mod auth;
pub mod cache;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod events;
pub mod groups;
pub mod item;
pub mod local_cluster;
pub mod logs;
pub mod node;
pub mod origin;
pub mod pb;
pub mod peer;
pub mod prefixes;
pub mod process;
pub mod protocol;
pub mod server;
pub mod snapshot;
pub mod spare;
pub mod stats;
pub mod store;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod tls;
pub mod watchdog;

#[cfg(test)]
#[path = "../tests/support/shown.rs"]
#[allow(dead_code, reason = "tests/ uses all of it")]
mod shown;
