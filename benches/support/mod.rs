//! What the side-by-side comparisons share: the load, the processes it is put on, and what is said about them.

pub mod case;
#[allow(dead_code)] // Only some of the comparisons do.
pub mod client;
pub mod load;
pub mod measure;
pub mod options;
pub mod process;
pub mod report;
pub mod server;
/// What starts etcd and servers in the tests. No comparison needs all of it, and its own tests run there.
#[allow(dead_code, unused_imports)]
#[path = "../../tests/support"]
pub mod started {
    pub mod child;
    pub mod etcd;
    mod netns;
    pub mod server_process;
    mod shown;
    pub mod site;
}

use std::error::Error;
use std::process::ExitCode;

/// Whatever goes wrong in a comparison ends it with a message for a person.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs a comparison by its options, or shows `usage` when there are none: help was asked for.
pub fn run<O>(
    name: &str,
    options: Result<Option<O>>,
    usage: &str,
    run: impl FnOnce(&O) -> Result<()>,
) -> ExitCode {
    let outcome = options.and_then(|options| match options {
        Some(options) => run(&options),
        None => {
            print!("{usage}");
            Ok(())
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
