//! What every test here stands on: server processes, clusters and networks of them, a client that
//! speaks raw bytes, certificates, and the Python environment of the real clients.

pub mod certificates;
pub mod child;
pub mod cluster;
pub mod counter;
pub mod daemon;
pub mod database;
pub mod etcd;
pub mod history;
pub mod http;
pub mod mariadb;
pub mod netns;
pub mod node;
pub mod origin;
pub mod packet;
pub mod pipe;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod python;
pub mod run;
pub mod server;
pub mod server_process;
pub mod shown;
pub mod site;
pub mod tree;
pub mod wire;

/// Each of the functions named is a test of memcached and a test of Filbert.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod memcached {
            $(#[test]
            fn $name() {
                super::$name(crate::support::server::Product::Memcached);
            })*
        }

        mod filbert {
            $(#[test]
            fn $name() {
                super::$name(crate::support::server::Product::Filbert);
            })*
        }
    };
}
pub(crate) use for_both;
