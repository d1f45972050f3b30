//! Runs the tests that are written in Python, in the virtual environment that `tests/run` makes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The server a Python test runs against.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    /// The binary of this build.
    Filbert,
    /// The system's memcached: shows that the test itself is right.
    Memcached,
}

impl Server {
    /// What the Python side finds in `SERVER_BIN`: a path, or a name to look up on `PATH`.
    fn binary(self) -> PathBuf {
        match self {
            Server::Memcached => PathBuf::from("memcached"),
            Server::Filbert => option_env!("CARGO_BIN_EXE_filbert")
                .map(PathBuf::from)
                .or_else(|| env::var_os("FILBERT_BIN").map(PathBuf::from))
                .expect("cargo sets CARGO_BIN_EXE_filbert; elsewhere set FILBERT_BIN to the filbert binary"),
        }
    }
}

/// Runs `python ARGUMENTS` in `directory` (relative to `tests/`) with `SERVER_BIN` set.
///
/// # Panics
///
/// When the virtual environment is missing, or when Python exits with anything but 0: its output is in the message.
pub fn run(directory: &str, arguments: &[&str], server: Server) {
    let mut python = python();
    python.args(arguments).current_dir(tests().join(directory)).env("SERVER_BIN", server.binary());
    succeed(python, &format!("{arguments:?} against {server:?}"));
}

/// Runs `python ARGUMENTS` in the repository's directory, and returns what it printed.
///
/// # Panics
///
/// As [`run`].
pub fn said(arguments: &[&str]) -> String {
    let mut python = python();
    python.args(arguments).current_dir(tests().join(".."));
    text(&succeed(python, &format!("{arguments:?}")))
}

/// A file that nobody runs would be a test that never fails: each `test_NAME.py` of a directory below `tests/` has to be
/// named in the Rust file that runs it, as `MACRO(NAME);`.
pub fn assert_each_test_file_is_named(directory: &str, macro_: &str, rust: &str) {
    for file in fs::read_dir(tests().join(directory)).expect("the directory exists") {
        let file = file.expect("the directory is readable").file_name().into_string();
        let file = file.expect("the names are ASCII");
        if let Some(name) = file.strip_prefix("test_").and_then(|rest| rest.strip_suffix(".py")) {
            assert!(rust.contains(&format!("{macro_}({name});")), "nobody runs tests/{directory}/{file}");
        }
    }
}

/// Reads a file of YAML.
///
/// # Panics
///
/// As [`run`], and when the file is not YAML.
pub fn yaml(path: &Path) -> serde_json::Value {
    documents(path)[0].take()
}

/// The same of a file of several documents, as a list.
pub fn documents(path: &Path) -> serde_json::Value {
    let program = "import json, sys, yaml; json.dump([*yaml.safe_load_all(open(sys.argv[1]))], sys.stdout)";
    let mut python = python();
    python.args(["-c", program]).arg(path);
    let output = succeed(python, &path.display().to_string());
    serde_json::from_slice(&output.stdout).expect("json.dump writes JSON")
}

/// What Python printed, which must exit with 0; `what` it ran is for the message.
fn succeed(mut command: Command, what: &str) -> Output {
    let output = command.output().expect("the virtual environment's Python starts");
    assert!(output.status.success(), "{what}: {}\n{}", output.status, text(&output));
    output
}

fn python() -> Command {
    let python = venv().join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: `tests/run` creates it (or set FILBERT_TEST_VENV)",
        python.display()
    );
    let mut command = Command::new(python);
    // Nothing is written beside the sources, so that a read-only checkout and parallel runs are fine.
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    // There pytest would show values whole, however large.
    command.env_remove("CI").env_remove("BUILD_NUMBER");
    command
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn venv() -> PathBuf {
    env::var_os("FILBERT_TEST_VENV")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
