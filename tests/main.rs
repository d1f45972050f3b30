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
