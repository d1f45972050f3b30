//! Commands that are not about one key: functions of a `Scope` that return what is left to do.

pub(super) mod admin;
pub(super) mod binary;
mod cluster;
pub(super) mod dump;
pub(super) mod login;
pub(super) mod scope;
mod stats;
pub(super) mod task;
