//! Commands that are not about one key: functions of what they work with, a `Scope`, which say what is left to do.

pub(super) mod admin;
pub(super) mod binary;
mod cluster;
pub(super) mod dump;
pub(super) mod login;
pub(super) mod scope;
mod stats;
pub(super) mod task;
