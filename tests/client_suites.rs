//! The test suites that clients publish with their sources, run on memcached and on filbert with equal results.

use crate::support::python::{Server, run};

#[test]
fn pymemcache_suite() {
    compare("pymemcache");
}

#[test]
fn pylibmc_suite() {
    compare("pylibmc");
}

#[test]
fn python_memcached_suite() {
    compare("python-memcached");
}

/// `compare.py` runs the suite on both servers itself.
fn compare(suite: &str) {
    run("client_suites", &["compare.py", suite], Server::Filbert);
}
