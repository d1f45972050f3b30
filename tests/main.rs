//! Filbert's tests on real parts: a real server process, real sockets, a real memcached beside
//! it, real clients.

mod binary;
mod buffers;
mod client_suites;
mod clients;
mod cluster;
mod cluster_checker;
mod command_line;
mod compose;
mod connections;
mod differential;
mod fuzz;
mod house;
mod http;
mod kubernetes;
mod limits;
mod local_cluster;
mod logs;
mod membership;
mod memory;
mod memory_bound;
mod observability;
mod origins;
mod process;
mod proto;
mod readme;
mod simulation;
mod snapshot;
mod standstill;
mod statistics;
mod status_page;
mod support;
mod tls;
mod transcripts;

use filbert::allocator::Configuration;

/// What jemalloc reads last (jemalloc's manual, TUNING). The memory of these processes is not measured, unlike a node's, and
/// simulations take a third less time where it is kept.
// SAFETY: the name is jemalloc's own with the prefix that tikv-jemallocator builds it with, where it is weak and declared as
// `const char *`.
#[expect(unsafe_code, reason = "jemalloc finds it by this name")]
#[unsafe(export_name = "_rjem_malloc_conf_2_conf_harder")]
static CONFIGURATION: Configuration = Configuration::new(c"tcache:true,dirty_decay_ms:10000");
