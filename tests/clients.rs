//! Real memcached clients and tools, through the Python tests of `tests/clients/`.
//!
//! Each file runs against filbert and against memcached: a test that fails on both is wrong itself. The file about
//! clusters runs against filbert alone.

use crate::support::python::{Server, assert_each_test_file_is_named, run};

fn pytest(file: &str, server: Server) {
    run("clients", &["-m", "pytest", file], server);
}

macro_rules! client {
    ($name:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn with_filbert() {
                pytest(concat!("test_", stringify!($name), ".py"), Server::Filbert);
            }

            #[test]
            fn with_memcached() {
                pytest(concat!("test_", stringify!($name), ".py"), Server::Memcached);
            }
        }
    };
}

/// For what memcached does not do.
macro_rules! filbert_client {
    ($name:ident) => {
        mod $name {
            #[test]
            fn with_filbert() {
                super::pytest(concat!("test_", stringify!($name), ".py"), super::Server::Filbert);
            }
        }
    };
}

filbert_client!(cluster);
filbert_client!(sasl);

client!(aiomcache);
client!(bmemcached);
client!(libmemcached_tools);
client!(memcached_tool);
client!(netcat);
client!(other_languages);
client!(pylibmc);
client!(pylibmc_binary);
client!(pymemcache);
client!(pymemcache_tls);
client!(python_memcached);

#[test]
fn every_python_file_is_run() {
    assert_each_test_file_is_named("clients", "client!", include_str!("clients.rs"));
}
