use std::cell::RefCell;
use std::thread;

use serde_json::Value;
use tracing::{debug, info, warn};

use super::*;

thread_local! {
    /// What this thread's test reads.
    static WRITTEN: RefCell<String> = const { RefCell::new(String::new()) };
}

fn note(_: Level, line: String) {
    WRITTEN.with_borrow_mut(|page| page.push_str(&line));
}

/// What is written while `speak` runs, line by line, and what was counted.
fn said(format: Format, speak: impl FnOnce()) -> (Vec<String>, Lines) {
    let lines = Lines::default();
    let log = Log { format, lines: lines.clone(), limits: Limits::default(), out: note };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log), speak);
    let text = WRITTEN.take();
    (text.lines().map(str::to_owned).collect(), lines)
}

/// A line without its moment.
fn rest(line: &str) -> &str {
    let (moment, rest) = line.split_once(' ').expect("a moment first");
    assert!(moment.len() == "2025-01-31T12:00:00.000000Z".len() && moment.ends_with('Z'), "{line}");
    rest
}

#[test]
fn people_read_what_happened_and_then_with_what() {
    let (lines, counted) = said(Format::Text, || {
        info!(epoch = 3, members = ?["a", "b"], "the cluster changed");
        warn!(endpoint = "etcd:2379", late = true, "etcd is out of reach: {}", "gone");
        info!(target: "h2::codec", "odd");
    });
    assert_eq!(rest(&lines[0]), " INFO the cluster changed epoch=3 members=[\"a\", \"b\"]");
    assert_eq!(rest(&lines[1]), " WARN etcd is out of reach: gone endpoint=\"etcd:2379\" late=true");
    assert_eq!(rest(&lines[2]), " INFO h2::codec: odd", "a library's line says whose it is");
    assert_eq!((counted.errors(), counted.warnings()), (0, 1));
}

#[test]
fn machines_read_an_object_a_line() {
    let (lines, _) = said(Format::Json, || {
        warn!(endpoint = "a \"b\"\n", share = 0.5, level = "mine", late = -1, "two\nlines \u{1b}[31m");
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let object: Value = serde_json::from_str(line).expect("JSON");
    let moment = object["timestamp"].as_str().expect("a text");
    assert!(moment.ends_with('Z') && moment.contains('T'), "{line}");
    assert_eq!(object["level"], "WARN", "a field of a name that is taken gives way: {line}");
    assert_eq!(object["message"], "two\nlines \u{1b}[31m");
    assert_eq!(object["target"], module_path!());
    assert_eq!(object["endpoint"], "a \"b\"\n");
    assert_eq!((object["share"].as_f64(), object["late"].as_i64()), (Some(0.5), Some(-1)));
    assert!(line.starts_with("{\"timestamp\":") && line.matches("\"level\"").count() == 1, "{line}");
}

#[test]
fn an_event_is_one_line_whatever_it_tells() {
    let (lines, _) = said(Format::Text, || {
        warn!(why = %"b\r\nfake", name = "c\nfake", "a\nfake \u{1b}[31m");
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(rest(&lines[0]), " WARN a\\nfake \\u{1b}[31m why=b\\r\\nfake name=\"c\\nfake\"");
}

#[test]
fn a_flood_is_cut_off_and_counted_whole() {
    for format in [Format::Text, Format::Json] {
        let (lines, counted) = said(format, || {
            for number in 0..1_000 {
                warn!(number, "again");
            }
            error!("something else");
        });
        assert!((2..30).contains(&lines.len()), "{}", lines.len());
        assert!(lines.last().is_some_and(|line| line.contains("something else")), "{lines:?}");
        assert_eq!((counted.errors(), counted.warnings()), (1, 1_000), "what was not written, too");
    }
}

#[test]
fn who_asks_for_more_sees_all_of_it() {
    let (lines, counted) = said(Format::Text, || (0..1_000).for_each(|number| debug!(number, "again")));
    assert_eq!(lines.len(), 1_000);
    assert_eq!((counted.errors(), counted.warnings()), (0, 0));
}

#[test]
fn a_panic_is_a_line() {
    // Other tests go on meanwhile, and theirs are theirs.
    let (usual, me) = (Arc::new(panic::take_hook()), thread::current().id());
    let others = usual.clone();
    panic::set_hook(Box::new(move |panicked| {
        if thread::current().id() == me { say_panic(panicked) } else { others(panicked) }
    }));
    let (lines, counted) = said(Format::Json, || {
        panic::catch_unwind(|| panic!("no {} here\n", "reason")).expect_err("it panics");
    });
    panic::set_hook(Box::new(move |panicked| usual(panicked)));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let object: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(object["level"], "ERROR");
    assert_eq!(object["message"], "a thread panicked, which is a bug: no reason here\n");
    assert!(object["place"].as_str().is_some_and(|place| place.starts_with("src/logs/tests.rs:")), "{line}");
    assert_eq!(counted.errors(), 1);
}
