//! Reads the command line, the environment and the file into the options of a node and its process. Nothing else in the
//! program reads them.
//!
//! The command line wins over the environment, the environment over the file, and the file over the defaults. Flags,
//! their long names and the words of `-o` are memcached's own; the table in `option_specs.rs` says what each does here.
//! Values keep their origin until they are parsed, so that a refusal names the flag, the variable or the file's key
//! that a person has to change.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::local_cluster::{self, die_with_parent::DieWithParent};
use crate::{logs, process};

mod address;
mod check;
mod cluster;
mod environment;
mod file;
mod groups;
mod help;
mod http;
mod launch;
mod line;
mod listen;
mod local;
mod log_format;
mod node;
mod option_specs;
mod settings;
mod snapshot;
mod values;

pub use help::{MEMCACHED_VERSION, version};
pub use log_format::log_format;

/// What the command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// Run a node.
    Launch(Box<Launch>),
    /// Print this to stdout and exit with 0 (`-h`, `-V`, `-i`, `--check`).
    Print(String),
    /// Run several nodes, as children.
    LocalCluster(local_cluster::Options),
    /// Be one of these children.
    DieWithParent(DieWithParent),
}

/// How to run a node.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The node's options.
    pub node: crate::node::Options,
    /// The options of the process around it.
    pub process: process::Options,
    /// What is logged, where and how.
    pub logs: logs::Options,
    /// Options that were given and have no effect, and why: to be logged once.
    pub warnings: Vec<String>,
}

/// Why the process does not start as requested. The operator can always mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The command line is malformed.
    #[error("{0}; filbert -h lists the flags")]
    Usage(String),
    /// An option, or its value, is refused; says where it was given and what is allowed.
    #[error("{said}: {why}")]
    Value {
        /// The option and its value, in the words of the place it was given in.
        said: String,
        /// What is allowed.
        why: String,
    },
    /// The configuration file cannot be read, or has an unknown key.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file that an option names cannot be used; says which and why.
    #[error("{0}")]
    Unusable(String),
}

impl ConfigError {
    /// sysexits.h, EX_USAGE: what memcached exits with for most of these.
    pub const EXIT_CODE: u8 = 64;

    fn value(said: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Value { said: said.into(), why: why.into() }
    }
}

/// Reads the command line (its first word is the program's name), the environment and the file
/// that one of them may name.
///
/// # Errors
///
/// The first option found that cannot be followed; the message names it, where it was given,
/// its value and what is allowed.
pub fn load(
    args: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Outcome, ConfigError> {
    let (args, environment): (Vec<_>, Vec<_>) = (args.collect(), environment.collect());
    if let Some(asked) = local::read(&args, &environment) {
        return asked;
    }
    node::load(args, environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(args: &[&str], environment: &[(&str, &str)]) -> Result<Outcome, ConfigError> {
        load(
            std::iter::once("filbert").chain(args.iter().copied()).map(OsString::from),
            environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))),
        )
    }

    fn launch(args: &[&str], environment: &[(&str, &str)]) -> Launch {
        match load_with(args, environment) {
            Ok(Outcome::Launch(launch)) => *launch,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn the_line_wins_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("filbert.toml");
        std::fs::write(&path, "memory-limit = 128\nconn-limit = 7\nthreads = 3\nlisten = ['a', 'b']\n")
            .expect("written");
        let path = path.to_str().expect("UTF-8");
        let environment =
            [("FILBERT_CONFIG", path), ("FILBERT_MEMORY_LIMIT", "256"), ("FILBERT_CONN_LIMIT", "8")];

        let told = launch(&["-m", "512", "-l", "c"], &environment);
        assert_eq!(told.node.store.budget_bytes, 512 << 20, "the line");
        assert_eq!(told.node.server.max_connections, 8, "the environment");
        assert_eq!(told.node.server.threads, 3, "the file");
        assert_eq!(told.node.server.backlog, 1024, "the default");
        assert_eq!(told.node.server.listen.len(), 1, "a higher list replaces a lower one");

        let told = launch(&["--config", path], &[("FILBERT_CONFIG", "/nowhere")]);
        assert_eq!(told.node.store.budget_bytes, 128 << 20, "--config wins over FILBERT_CONFIG");
        assert_eq!(told.node.server.listen.len(), 2);
    }

    #[test]
    fn a_switch_can_be_taken_back_above() {
        let on = [("FILBERT_DISABLE_EVICTIONS", "yes"), ("FILBERT_VERBOSE", "2")];
        assert!(!launch(&[], &on).node.store.evict);
        assert!(launch(&["--disable-evictions=false"], &on).node.store.evict);
        assert_eq!(launch(&[], &on).node.server.verbosity, 2);
        assert_eq!(launch(&["-v"], &on).node.server.verbosity, 1);
    }

    #[test]
    fn a_wrong_value_is_named_where_it_was_given() {
        let error = load_with(&["-m", "lots"], &[]).expect_err("no number").to_string();
        assert_eq!(
            error,
            "-m lots: needs a number of megabytes, such as 64, or a size such as 512m or 4g, and at least 1m"
        );
        let error = load_with(&[], &[("FILBERT_MEMORY_LIMIT", "lots")]).expect_err("no number").to_string();
        assert!(error.starts_with("FILBERT_MEMORY_LIMIT=lots: needs a number of megabytes"), "{error}");
        let error = load_with(&["--config", "/nowhere.toml"], &[]).expect_err("no file").to_string();
        assert!(error.starts_with("/nowhere.toml: No such file"), "{error}");
    }

    #[test]
    fn a_cluster_can_be_told_in_every_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("filbert.toml");
        let text = "etcd-endpoints = ['127.0.0.1:1', 'localhost:2']\nnode-id = 'a'\nweight = 7\nzone = 'z'\n";
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("UTF-8");
        let told = launch(&["--config", path, "--weight", "9"], &[("FILBERT_NODE_ID", "b")]);
        let membership = told.node.cluster.expect("etcd is given").membership;
        assert_eq!(membership.endpoints, ["127.0.0.1:1", "localhost:2"]);
        assert_eq!((membership.node_id.as_str(), membership.weight), ("b", 9));
        assert_eq!(membership.zone, "z");

        let error = load_with(&[], &[("FILBERT_ZONE", "z")]).expect_err("alone").to_string();
        assert!(error.starts_with("FILBERT_ZONE=z: needs --etcd-endpoints"), "{error}");
        let error = load_with(&["--config", path], &[("FILBERT_WEIGHT", "0")]).expect_err("zero").to_string();
        assert!(error.starts_with("FILBERT_WEIGHT=0: needs a whole number from 1 to 10000"), "{error}");
    }

    #[test]
    fn texts_are_asked_for_in_memcacheds_ways() {
        for (flag, beginning) in [
            ("-h", "memcached 1.6."),
            ("--help", "memcached 1.6."),
            ("-V", "filbert 0.1.0 (memcached 1.6."),
            ("--version", "filbert 0.1.0 (memcached 1.6."),
            ("-i", "filbert 0.1.0"),
        ] {
            match load_with(&[flag], &[("FILBERT_THREADS", "never read")]) {
                Ok(Outcome::Print(text)) => assert!(text.starts_with(beginning), "{flag}: {text}"),
                other => panic!("{flag}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_budget_beyond_the_memory_is_warned_of() {
        let told = launch(&["-m", "512t"], &[]);
        let warning = told.warnings.last().expect("no machine has that");
        assert!(
            warning.starts_with("-m 512t: more than the ") && warning.contains(" MiB that "),
            "{warning}"
        );
        assert_eq!(launch(&["-m", "2"], &[]).warnings, [""; 0]);
        let settings = settings::Settings::default();
        let warning = node::memory_warning(&settings, 64 << 20, Some((32 << 20, "the machine has")));
        assert!(
            warning
                .expect("less")
                .starts_with("the default of -m: more than the 32 MiB that the machine has")
        );
        assert_eq!(node::memory_warning(&settings, 64 << 20, Some((64 << 20, "the machine has"))), None);
        assert_eq!(node::memory_warning(&settings, 64 << 20, None), None);
    }

    #[test]
    fn a_daemon_has_absolute_paths_since_it_leaves_its_directory() {
        let told = launch(&["-d", "-P", "run/pid", "-Y", "users", "-s", "sock", "--log-file", "log"], &[]);
        assert!(matches!(told.logs.target, logs::Target::File(path) if path.is_absolute()));
        assert!(told.process.pid_file.expect("given").is_absolute());
        assert!(told.node.server.auth_file.expect("given").is_absolute());
        assert!(told.node.server.unix.expect("given").path.is_absolute());
        // Files that are there from where tests run.
        let files = ["--peer-cert", "Cargo.toml", "--peer-key", "Cargo.toml", "--peer-ca", "build.rs"];
        let told = launch(&[&files[..], &["-d", "--etcd-endpoints", "127.0.0.1:2379"]].concat(), &[]);
        let tls = told.node.cluster.and_then(|cluster| cluster.peer.tls).expect("given");
        assert!(tls.cert.is_absolute() && tls.key.is_absolute() && tls.ca.is_absolute());
        let told = launch(&["-Y", "users"], &[]);
        assert_eq!(told.node.server.auth_file, Some("users".into()));
    }
}
