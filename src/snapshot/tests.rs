//! Snapshots of one store read into another one, whole, damaged, old, and while clients write.

use std::fs;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::command::{Command, Delete, Found, Get, Outcome, Set, SetMode, Verb};
use crate::events::Events;
use crate::item::{Exptime, ItemView};
use crate::snapshot::file::take;
use crate::snapshot::load::{Loaded, load};
use crate::snapshot::save::save;
use crate::stats::Counters;
use crate::store::{self, Caller};

const UNIX: u64 = 1_700_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A store whose clock starts at this Unix time.
fn store(unix: u64) -> Arc<Store> {
    Arc::new(Store::new(&store::Options::default(), Clock::manual(unix), Events::default()))
}

fn run<R>(
    store: &Store,
    key: &[u8],
    key_binary: bool,
    verb: Verb<'_>,
    see: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    let counters = Counters::default();
    let caller = Caller::new(store.clock().now(), &counters, 0);
    store.execute(&caller, &Command { key, key_binary, verb }, see)
}

fn set(store: &Store, key: &[u8], set: Set<'_>) {
    run(store, key, false, Verb::Set(set), |outcome| assert!(matches!(outcome, Outcome::Stored(_))));
}

fn delete(store: &Store, key: &[u8]) {
    run(store, key, false, Verb::Delete(Delete::default()), |_| ());
}

fn value(value: &[u8]) -> Set<'_> {
    Set { value, ..Set::PLAIN }
}

/// The value under a key, looked at without a trace.
fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    run(store, key, false, Verb::Inspect, |outcome| match outcome {
        Outcome::Found(found) => Some(found.item.value.to_vec()),
        _ => None,
    })
}

/// Everything that a command shows of an item but when it was used: a store knows no time before its start.
fn shown(store: &Store, key: &[u8]) -> String {
    run(store, key, false, Verb::Inspect, |outcome| match outcome {
        Outcome::Found(found) => {
            format!("{:?}", Found { item: ItemView { idle_seconds: 0, ..found.item }, ..found })
        }
        outcome => format!("{outcome:?}"),
    })
}

fn file() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("items");
    (dir, path)
}

fn saved(store: &Store, path: &Path) {
    save(store, path, store.clock().unix(store.clock().now()), &|| false)
        .expect("it can be written")
        .expect("nobody breaks it off");
}

/// Reads a snapshot as a start does, with what clients do before any item is there.
fn loaded(store: &Store, path: &Path, clients: impl FnOnce(&Store)) -> Loaded {
    let now = store.clock().unix(store.clock().now());
    let taken = found(path, now).expect("it is in order").expect("it is there");
    store.raise_cas(taken.header.cas);
    store.expect_arrivals();
    let since = store.clock().now();
    clients(store);
    let loaded = load(&taken, store, since, &AtomicBool::new(false)).expect("it is in order");
    taken.remove();
    store.end_arrivals();
    loaded
}

/// Takes the name from a snapshot.
fn found(path: &Path, now: u64) -> Result<Option<file::Found>, file::Refused> {
    take(path, HOUR, now).expect("the directory can be used")
}

fn begin(path: &Path, store: &Arc<Store>) -> Result<Snapshot, Error> {
    let options = Options { path: path.to_owned(), max_age: HOUR };
    let claim = Claim::new(&options, options.open_lock()?).expect("nobody else has it");
    Snapshot::begin(claim, store)
}

/// What lies in the directory of the file, but for the file that is locked.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().expect("in a directory")).expect("it can be read");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| name != "items.lock");
    names.sort();
    names
}

#[test]
fn items_come_back_as_they_were() {
    let (_dir, path) = file();
    let before = store(UNIX);
    let large = vec![b'x'; 100_000];
    set(&before, b"plain", value(b"1"));
    set(&before, b"flags", Set { flags: u32::MAX, new_cas: Some(77), ..value(b"2") });
    set(&before, b"ends", Set { exptime: Exptime::In(100), ..value(b"3") });
    set(&before, b"soon", Set { exptime: Exptime::In(10), ..value(b"4") });
    set(&before, b"large", value(&large));
    set(&before, b"stale", value(b""));
    run(&before, b"stale", false, Verb::Delete(Delete { invalidate: true, ..Delete::default() }), |_| ());
    run(&before, b"\0\xff", true, Verb::Set(value(b"binary")), |_| ());
    run(&before, b"plain", false, Verb::Get(Get::PLAIN), |_| ());
    before.clock().advance(5);
    saved(&before, &path);

    // Down for ten seconds.
    let after = store(UNIX + 15);
    let seen = loaded(&after, &path, |_| ());
    assert_eq!((seen.stored, seen.dead), (6, 1));
    assert_eq!(get(&after, b"soon"), None);
    assert_eq!(get(&after, b"large"), Some(large));
    before.clock().advance(10);
    for key in [&b"plain"[..], b"flags", b"ends", b"stale", b"\0\xff"] {
        assert_eq!(shown(&after, key), shown(&before, key), "{}", key.escape_ascii());
    }
    // Tokens of before are not given again.
    set(&after, b"new", value(b"5"));
    let token = run(&after, b"new", false, Verb::Inspect, |outcome| match outcome {
        Outcome::Found(found) => found.item.cas,
        _ => 0,
    });
    assert!(token > before.highest_cas(), "{token}");
    assert_eq!(names(&path), [] as [&str; 0]);
}

#[test]
fn what_clients_write_meanwhile_wins() {
    let (_dir, path) = file();
    let before = store(UNIX);
    let keys: [&[u8]; 5] = [b"kept", b"set", b"deleted", b"expired", b"unstored"];
    keys.iter().for_each(|key| set(&before, key, value(b"old")));
    saved(&before, &path);

    let after = store(UNIX);
    let seen = loaded(&after, &path, |store| {
        set(store, b"set", value(b"new"));
        delete(store, b"deleted");
        set(store, b"expired", Set { exptime: Exptime::In(1), ..value(b"new") });
        store.drop_unstored(b"unstored", SetMode::Set);
        store.clock().advance(1);
        let counters = Counters::default();
        let caller = Caller::new(store.clock().now(), &counters, 0);
        store.sweep(&caller, |_| std::ops::ControlFlow::Continue(()));
        assert_eq!(store.len(), 1);
    });
    assert_eq!((seen.stored, seen.overwritten), (1, 4));
    let held: Vec<_> = keys.iter().map(|key| get(&after, key)).collect();
    assert_eq!(held, [Some(b"old".to_vec()), Some(b"new".to_vec()), None, None, None]);
}

#[test]
fn a_flush_meanwhile_leaves_nothing() {
    for delay in [Exptime::Never, Exptime::In(1)] {
        let (_dir, path) = file();
        let before = store(UNIX);
        set(&before, b"k", value(b"old"));
        saved(&before, &path);
        let after = store(UNIX);
        let seen = loaded(&after, &path, |store| {
            let counters = Counters::default();
            store.flush_all(&Caller::new(store.clock().now(), &counters, 0), delay);
            store.clock().advance(1);
        });
        assert_eq!((seen.dead, get(&after, b"k")), (1, None), "{delay:?}");
    }
}

#[test]
fn a_delayed_flush_of_before_happens() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"k", value(b"old"));
    set(&before, b"ends", Set { exptime: Exptime::In(5), ..value(b"old") });
    let counters = Counters::default();
    before.flush_all(&Caller::new(before.clock().now(), &counters, 0), Exptime::In(10));
    saved(&before, &path);
    let after = store(UNIX + 4);
    assert_eq!(loaded(&after, &path, |_| ()).stored, 2);
    let held = || [&b"k"[..], b"ends"].map(|key| get(&after, key).is_some());
    assert_eq!(held(), [true, true]);
    after.clock().advance(1);
    assert_eq!(held(), [true, false]);
    after.clock().advance(5);
    assert_eq!(held(), [false, false]);
}

/// As if clients kept the thread that reads from it, for so long that the item ends.
#[test]
fn time_goes_on_while_it_is_read() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"ends", Set { exptime: Exptime::In(5), ..value(b"old") });
    set(&before, b"later", Set { exptime: Exptime::In(7), ..value(b"old") });
    saved(&before, &path);
    let after = store(UNIX + 1);
    let seen = loaded(&after, &path, |store| store.clock().advance(5));
    assert_eq!((seen.stored, seen.dead), (1, 1));
    after.clock().advance(1);
    assert_eq!(get(&after, b"later"), None);
}

#[test]
fn a_snapshot_larger_than_the_memory_pushes_nothing_out() {
    let (_dir, path) = file();
    let before = store(UNIX);
    let large = vec![b'x'; 500_000];
    for number in 0..100_u32 {
        set(&before, &number.to_be_bytes(), value(&large));
    }
    saved(&before, &path);
    let options = store::Options { budget_bytes: 8 << 20, ..store::Options::default() };
    let after = Store::new(&options, Clock::manual(UNIX), Events::default());
    let seen = loaded(&after, &path, |store| set(store, b"client", value(&large)));
    assert!((8..20).contains(&seen.stored) && seen.stored + seen.refused == 100, "{seen}");
    assert!(get(&after, b"client").is_some());
}

#[test]
fn nothing_is_read_of_what_is_damaged() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"value"));
    set(&before, b"other", Set { exptime: Exptime::In(100), ..value(b"value") });
    save(&before, &path, unix_seconds(), &|| false)
        .expect("it can be written")
        .expect("nobody breaks it off");
    let whole = fs::read(&path).expect("it is there");
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
    let longer = [whole.clone(), b"x".to_vec()].concat();
    for damaged in flipped.chain(cut).chain([longer]) {
        fs::write(&path, &damaged).expect("it can be written");
        let after = store(UNIX);
        let snapshot = begin(&path, &after).expect("the directory can be used");
        if let Some(loader) = snapshot.loader {
            loader.thread.join().expect("it does not panic");
        }
        assert_eq!((after.len(), names(&path)), (0, vec!["items.refused".to_owned()]));
        assert_eq!(fs::read(path.with_extension("refused")).expect("it is there"), damaged);
    }
}

#[test]
fn what_cannot_be_relied_on_is_moved_aside_and_named() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"value"));
    let at = |now: u64, change: fn(&mut Vec<u8>)| {
        saved(&before, &path);
        let mut bytes = fs::read(&path).expect("it is there");
        change(&mut bytes);
        fs::write(&path, bytes).expect("it can be written");
        found(&path, now).expect_err("it is refused").to_string()
    };
    let moved = format!("; it is now {}.refused", path.display());
    for (now, change, why) in [
        (UNIX + 3601, (|_| ()) as fn(&mut Vec<u8>), "it is 3601 s old, and --snapshot-max-age is 3600 s"),
        (UNIX - 61, |_| (), "it comes from the future, by 61 s: a clock is wrong"),
        (UNIX, |bytes| bytes[8] = 2, "its format is version 2, and not 1"),
        (UNIX, |bytes| *bytes = b"hello".to_vec(), "it is no snapshot"),
        (UNIX, |bytes| bytes[20] ^= 1, "it is damaged"),
    ] {
        assert_eq!(at(now, change), format!("{why}{moved}"));
        assert_eq!(names(&path), ["items.refused"]);
    }
    // A clock that goes a little slow is none.
    saved(&before, &path);
    assert!(matches!(found(&path, UNIX - 60), Ok(Some(_))));
}

#[test]
fn a_snapshot_is_read_once() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"old"));
    saved(&before, &path);
    drop(found(&path, UNIX).expect("it is in order").expect("it is there"));
    // The node was killed here; perhaps it had served clients.
    assert_eq!(names(&path), ["items.loading"]);
    assert!(found(&path, UNIX).expect("nothing is wrong").is_none());
    assert_eq!(names(&path), [] as [&str; 0]);
}

#[test]
fn who_breaks_off_leaves_nothing_and_who_goes_on_leaves_a_file_for_the_owner() {
    use std::os::unix::fs::PermissionsExt;

    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"old"));
    let begin_here = || begin(&path, &before).expect("the directory can be used");
    begin_here().end(&before, || true);
    assert_eq!(names(&path), [] as [&str; 0]);
    begin_here().end(&before, || false);
    assert_eq!(names(&path), ["items"]);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);

    let error = begin(Path::new("/nowhere/items"), &before).expect_err("there is no such directory");
    assert!(error.to_string().starts_with("--snapshot /nowhere/items: cannot write there: "), "{error}");
    let directory = path.parent().expect("in a directory");
    let error = begin(directory, &before).expect_err("it is a directory");
    assert!(error.to_string().contains("is a directory"), "{error}");
}

#[test]
fn a_name_that_cannot_be_taken_away_stops_the_start() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"old"));
    saved(&before, &path);
    // In the way, as what belongs to another user would be.
    fs::create_dir(path.with_extension("loading")).expect("it can be made");
    let error = begin(&path, &store(UNIX)).expect_err("it keeps its name");
    assert!(error.to_string().starts_with(&format!("--snapshot {}: ", path.display())), "{error}");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (_dir, path) = file();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("it can be made");
    assert!(found(&path, UNIX).expect_err("it is refused").to_string().starts_with("it is no file"));
}

#[test]
fn reading_is_broken_off_when_told_to() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"old"));
    saved(&before, &path);
    let taken = found(&path, UNIX).expect("it is in order").expect("it is there");
    let after = store(UNIX);
    let why = load(&taken, &after, after.clock().now(), &AtomicBool::new(true)).expect_err("broken off");
    assert_eq!((why.to_string().as_str(), after.len()), ("told to stop at once", 0));
}

#[test]
fn a_touch_meanwhile_is_not_undone() {
    let (_dir, path) = file();
    let before = store(UNIX);
    set(&before, b"key", value(b"old"));
    saved(&before, &path);
    let after = store(UNIX);
    let touch = Verb::Get(Get { touch: Some(Exptime::At(1)), ..Get::PLAIN });
    let seen = loaded(&after, &path, |store| run(store, b"key", false, touch, |_| ()));
    assert_eq!((seen.overwritten, get(&after, b"key")), (1, None));
}

#[test]
fn items_without_tokens_get_some() {
    let (_dir, path) = file();
    let options = store::Options { cas: false, ..store::Options::default() };
    let before = Store::new(&options, Clock::manual(UNIX), Events::default());
    set(&before, b"key", value(b"old"));
    saved(&before, &path);
    let after = store(UNIX);
    loaded(&after, &path, |_| ());
    assert!(!shown(&after, b"key").contains("cas: 0,"), "{}", shown(&after, b"key"));
}
