//! Conversations written down: each file in `tests/transcripts/` is held with a real memcached, with Filbert and with a
//! cluster of Filberts.
//!
//! `tests/transcripts/README.md` describes the format, `DIFFERENCES.md` every place where the two may differ.

mod pattern;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tempfile::TempDir;

use crate::support::cluster::{Cluster, STEADY};
use crate::support::server::{Product, Server};
use crate::support::shown::Cut;
use crate::support::wire::Wire;
use crate::transcripts::pattern::{Captured, Pattern};
use crate::transcripts::script::{Action, Script};

/// One test per file and server, so that a failure names both; and one with a cluster, whose nodes together must answer
/// as a single one does. The last ones are about one node.
macro_rules! transcripts {
    ($($name:ident)*; $($local:ident $reason:literal)*) => {
        const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($local)),*];
        $(mod $name {
            transcripts!(@both $name);

            #[test]
            fn cluster() {
                super::run(stringify!($name), TEXT, Product::Filbert, super::Host::cluster);
            }
        })*
        $(#[doc = $reason]
        mod $local {
            transcripts!(@both $local);
        })*
    };
    (@both $name:ident) => {
        use crate::support::server::Product;

        const TEXT: &str = include_str!(concat!("transcripts/", stringify!($name), ".txt"));

        #[test]
        fn memcached() {
            super::run(stringify!($name), TEXT, Product::Memcached, super::Host::memcached);
        }

        #[test]
        fn filbert() {
            super::run(stringify!($name), TEXT, Product::Filbert, super::Host::filbert);
        }
    };
}

transcripts! {
    add
    admin
    append_prepend
    append_too_large
    bad_data_chunk
    bad_lengths
    cas
    cas_bad_lines
    delete
    dump_disabled
    empty_lines
    exptime
    flags
    flush_all
    flush_disabled
    gat_touch
    get
    get_long_key
    http
    incr_decr
    incr_decr_errors
    item_size_limit
    long_lines
    ma
    ma_errors
    md
    md_errors
    me
    meta_and_classic
    meta_base64
    meta_explicit_cas
    meta_opaque
    meta_quiet
    meta_recache
    meta_stale
    meta_vivify
    mg
    mg_conditional
    mg_errors
    missing_arguments
    ms
    ms_modes
    noreply
    numbers
    quit
    replace
    set
    shutdown
    slabs_lru
    storage_bad_lines
    storage_long_key
    too_large
    unknown_commands
    watch_disabled
    whitespace
    ;
    auth "one node is logged in to"
    cachedump "lists the items of one node"
    lru_crawler "lists the items of one node"
    shutdown_enabled "ends one node"
    shutdown_graceful "ends one node"
    stats "counts what one node did"
    stats_conns "shows the connections of one node"
    stats_detail "counts what one node was asked"
    stats_settings "shows what one node was told"
    stats_items_slabs "counts the items of one node"
    watch "shows what one node does"
    watch_connections "shows the connections of one node"
}

#[test]
fn every_file_is_run() {
    let files: BTreeSet<String> = fs::read_dir(dir())
        .expect("the directory of the transcripts exists")
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().expect("a file has a name").to_string_lossy().into_owned())
        .collect();
    let run: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, run, "the files (left) and the list in transcripts.rs (right)");
}

#[test]
fn every_difference_has_a_reason_and_every_reason_a_difference() {
    let text = fs::read_to_string(dir().join("DIFFERENCES.md")).expect("DIFFERENCES.md exists");
    let listed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once('`'))
        .map(|(reason, _)| reason.to_owned())
        .collect();
    let mut used = BTreeSet::new();
    for name in NAMES {
        let text = fs::read_to_string(dir().join(format!("{name}.txt"))).expect("listed files exist");
        let script = Script::parse(&text).unwrap_or_else(|error| panic!("{name}.txt: {error}"));
        used.extend(script.steps.into_iter().filter_map(|step| Some(step.only?.reason)));
    }
    let unlisted: Vec<_> = used.difference(&listed).collect();
    let unused: Vec<_> = listed.difference(&used).collect();
    assert!(unlisted.is_empty(), "used in a transcript but not in DIFFERENCES.md: {unlisted:?}");
    assert!(unused.is_empty(), "in DIFFERENCES.md but used by no transcript: {unused:?}");
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Holds the conversation with a fresh server, or a fresh cluster of them.
fn run(name: &str, text: &str, product: Product, start: impl FnOnce(&[&str]) -> Host) {
    let script = Script::parse(text).unwrap_or_else(|error| panic!("{name}.txt: {error}"));
    let files = TempDir::new().expect("a temporary directory can be made");
    let mut captured = Captured::new();
    for (file, contents) in &script.files {
        let path = files.path().join(file);
        let contents = contents.render(&captured).expect("contents are plain text");
        fs::write(&path, contents).expect("the temporary directory is writable");
        captured.insert(file.clone(), path.to_string_lossy().into_owned().into_bytes());
    }
    let args: Vec<String> = script.args.iter().map(|arg| rendered(arg, &captured)).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut talk = Talk::new(start(&args), captured);
    for step in &script.steps {
        if step.only.as_ref().is_some_and(|only| only.product != product) {
            continue;
        }
        if let Err(error) = talk.step(&step.action) {
            let line = text.lines().nth(step.line - 1).unwrap_or_default();
            panic!("tests/transcripts/{name}.txt:{}: {product}\n  {line}\n{error}", step.line);
        }
    }
    if let Err(error) = talk.finish() {
        panic!("tests/transcripts/{name}.txt: {product}, after the last line: {error}");
    }
}

fn rendered(arg: &str, captured: &Captured) -> String {
    let bytes =
        Pattern::parse(arg).and_then(|arg| arg.render(captured)).expect("the arguments can be rendered");
    String::from_utf8(bytes).expect("the arguments are text")
}

/// The servers of a conversation.
enum Host {
    One(Server),
    /// Each connection is to the next node.
    Cluster(Box<Cluster>),
}

impl Host {
    fn memcached(args: &[&str]) -> Host {
        Host::One(Server::memcached(args))
    }

    fn filbert(args: &[&str]) -> Host {
        Host::One(Server::filbert(args))
    }

    fn cluster(args: &[&str]) -> Host {
        Host::Cluster(Box::new(Cluster::start_with(3, &[&STEADY[..], args].concat())))
    }

    /// The connection of this number.
    fn connect(&self, number: usize) -> Wire {
        match self {
            Host::One(server) => server.connect(),
            Host::Cluster(cluster) => cluster.nodes[number % cluster.nodes.len()].connect(),
        }
    }

    fn wait_exit(&mut self) -> ExitStatus {
        match self {
            Host::One(server) => server.wait_exit(),
            Host::Cluster(cluster) => cluster.nodes[0].wait_exit(),
        }
    }
}

/// A conversation under way.
struct Talk {
    host: Host,
    /// How many connections there were.
    opened: usize,
    wires: BTreeMap<String, Wire>,
    /// The connection that `>` and `<` are about.
    current: String,
    /// Lines to send together before the next reply is read: successive `>` lines are pipelined.
    outbox: Vec<u8>,
    captured: Captured,
    block: Vec<Vec<u8>>,
}

impl Talk {
    fn new(host: Host, captured: Captured) -> Talk {
        let wires = BTreeMap::from([("main".to_owned(), host.connect(0))]);
        Talk {
            host,
            opened: 1,
            wires,
            current: "main".to_owned(),
            outbox: Vec::new(),
            captured,
            block: Vec::new(),
        }
    }

    fn step(&mut self, action: &Action) -> Result<(), String> {
        if let Action::Send { text, line_end } = action {
            self.outbox.extend(text.render(&self.captured)?);
            self.outbox.extend(line_ending(*line_end));
            return Ok(());
        }
        self.flush();
        match action {
            Action::Send { .. } => {}
            Action::Expect { text, line_end } => self.expect(text, *line_end)?,
            Action::Block(last) => self.read_block(last)?,
            Action::InBlock { text, wanted } => {
                let found = self.block.iter().any(|line| text.matches(line, &mut self.captured));
                if found != *wanted {
                    return Err(format!("  the block:\n{}", Cut(shown_lines(&self.block))));
                }
            }
            Action::Switch(name) => {
                if !self.wires.contains_key(name) {
                    self.wires.insert(name.clone(), self.host.connect(self.opened));
                    self.opened += 1;
                }
                self.current.clone_from(name);
            }
            Action::Close => {
                let rest = self.wire().rest().map_err(|error| format!("  it did not close: {error}"))?;
                if !rest.is_empty() {
                    return Err(format!("  before closing it sent {}", shown(&rest)));
                }
                let closed = self.current.clone();
                self.wires.remove(&closed);
            }
            Action::Leave => {
                let left = self.current.clone();
                self.wires.remove(&left);
            }
            Action::Exit(code) => {
                let status = self.host.wait_exit();
                if status.code() != Some(*code) {
                    return Err(format!("  it ended with {status}"));
                }
                self.wires.clear();
            }
        }
        Ok(())
    }

    /// Nothing may be left unsaid: every connection answers no more than was expected.
    fn finish(mut self) -> Result<(), String> {
        self.flush();
        for (name, mut wire) in self.wires {
            wire.finish_sending();
            let rest = wire.rest().map_err(|error| format!("connection `{name}`: {error}"))?;
            if !rest.is_empty() {
                return Err(format!("connection `{name}` also sent {}", shown(&rest)));
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.outbox);
        if !bytes.is_empty() {
            // A server that closes in the middle is noticed by the next expectation.
            let _ = self.wire().try_send(&bytes);
        }
    }

    fn expect(&mut self, text: &Pattern, line_end: bool) -> Result<(), String> {
        let fixed = text.fixed_len(&self.captured);
        let wire = self.wires.get_mut(&self.current).ok_or("  this connection is closed")?;
        let got = match fixed {
            Some(len) if !line_end => wire.bytes(len),
            _ => wire.line(),
        };
        let got = got.map_err(|error| format!("  {error}"))?;
        let body = got.strip_suffix(line_ending(line_end));
        if body.is_some_and(|body| text.matches(body, &mut self.captured)) {
            return Ok(());
        }
        Err(format!("  got {}", if got.is_empty() { "a closed connection".to_owned() } else { shown(&got) }))
    }

    fn read_block(&mut self, last: &Pattern) -> Result<(), String> {
        self.block.clear();
        loop {
            let line = self.wire().line().map_err(|error| format!("  {error}"))?;
            let Some(body) = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n")) else {
                return Err(format!("  closed after:\n{}", Cut(shown_lines(&self.block))));
            };
            self.block.push(body.to_vec());
            if last.matches(body, &mut self.captured) {
                return Ok(());
            }
        }
    }

    fn wire(&mut self) -> &mut Wire {
        let current = &self.current;
        self.wires.get_mut(current).unwrap_or_else(|| panic!("connection `{current}` is closed"))
    }
}

fn line_ending(wanted: bool) -> &'static [u8] {
    if wanted { b"\r\n" } else { b"" }
}

fn shown_lines(lines: &[Vec<u8>]) -> String {
    lines.iter().map(|line| format!("    {}\n", shown(line))).collect()
}

/// Bytes as a person can read them, cut where they get long.
fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    let cut = if bytes.len() > SHOWN { "..." } else { "" };
    format!("\"{}\"{cut}", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}
