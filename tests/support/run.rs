//! Runs of Filbert that end by themselves: texts and refusals.

use std::fs::{self, File};

use tempfile::TempDir;

use crate::support::server::{Product, command, eventually};

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `filbert ARGS` until it ends.
///
/// # Panics
///
/// If it does not end within the deadline.
pub fn filbert(args: &[&str]) -> Ended {
    filbert_in(&[], &[], args)
}

/// As [`filbert`], through wrappers and with environment variables.
pub fn filbert_in(wrapper: &[&str], variables: &[(&str, &str)], args: &[&str]) -> Ended {
    let dir = TempDir::new().expect("a temporary directory can be made");
    // Files rather than pipes: a process in the background could hold a pipe open.
    let file = |name| File::create(dir.path().join(name)).expect("the directory is writable");
    let mut child = command(Product::Filbert, wrapper)
        .args(args)
        .envs(variables.iter().copied())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .expect("setpriv starts");
    let mut status = None;
    eventually(&format!("filbert {args:?} ends"), || {
        status = child.try_wait().expect("the child can be waited for");
        status.is_some()
    });
    let read = |name| fs::read_to_string(dir.path().join(name)).expect("UTF-8 text");
    Ended { code: status.and_then(|status| status.code()), stdout: read("stdout"), stderr: read("stderr") }
}
