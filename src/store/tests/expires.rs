//! Commands that come too late: refused, and nothing happens.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::command::Arithmetic;
use crate::stats::{Counter, Registry};

const REFUSED: Outcome<'static> = Outcome::Failed(Failure::Unavailable(Unavailable::Unanswered));

fn verbs() -> [Verb<'static>; 6] {
    let sum = Arithmetic { vivify: Some(Exptime::Never), ..Arithmetic::PLAIN };
    [
        Verb::Get(Get { vivify: Some(Exptime::Never), touch: Some(Exptime::In(9)), ..Get::PLAIN }),
        Verb::Set(Set { value: b"2", ..SET }),
        // Too large; refused as late all the same, and drops nothing.
        Verb::Set(Set { value: &[b'x'; 2000], ..SET }),
        Verb::Delete(Delete::default()),
        Verb::Arithmetic(sum),
        Verb::Inspect,
    ]
}

#[test]
fn what_has_expired_is_refused_and_changes_nothing() {
    let rig = Rig::one_shard(&Options { item_size_max: 1024, ..Options::default() });
    let registry = Registry::default();
    let counters = registry.block();
    rig.set(b"there", b"1", Exptime::Never);
    let before = rig.run(b"there", Verb::Inspect, |outcome| format!("{outcome:?}"));
    let used = rig.store.used_bytes();
    let caller = Caller { expires: Some(Instant::now()), ..Caller::new(rig.clock.now(), &counters, 1) };
    for (key, verb) in verbs().into_iter().flat_map(|verb| [(&b"there"[..], verb), (b"absent", verb)]) {
        let outcome = rig
            .store
            .execute(&caller, &Command { key, key_binary: false, verb }, |outcome| format!("{outcome:?}"));
        assert_eq!(outcome, format!("{REFUSED:?}"), "{verb:?}");
    }
    assert_eq!(rig.run(b"there", Verb::Inspect, |outcome| format!("{outcome:?}")), before);
    assert_eq!((rig.store.len(), rig.store.used_bytes()), (1, used));
    let counted = Counter::ALL.iter().filter(|&&counter| registry.totals().get(counter) > 0);
    assert_eq!(counted.count(), 0, "it was no command");
}

#[test]
fn what_has_not_expired_is_executed() {
    let rig = Rig::one_shard(&Options::default());
    let expires = Some(Instant::now() + Duration::from_secs(3600));
    let caller = Caller { expires, ..rig.caller() };
    let command = Command { key: b"k", key_binary: false, verb: Verb::Set(SET) };
    assert_eq!(rig.store.execute(&caller, &command, |outcome| outcome.name()), "stored");
    assert!(rig.holds(b"k"));
}

#[test]
fn a_command_that_expires_while_it_waits_for_the_lock_is_refused() {
    let rig = Rig::one_shard(&Options::default());
    let (began, begins) = mpsc::channel();
    let lock = rig.store.shards.tables[0].lock();
    std::thread::scope(|scope| {
        let (store, now) = (&rig.store, rig.clock.now());
        let late = scope.spawn(move || {
            let counters = Counters::default();
            let moment = Instant::now() + Duration::from_millis(20);
            let caller = Caller { expires: Some(moment), ..Caller::new(now, &counters, 1) };
            let command = Command { key: b"k", key_binary: false, verb: Verb::Set(SET) };
            began.send(moment).unwrap();
            store.execute(&caller, &command, |outcome| outcome.name())
        });
        let moment: Instant = begins.recv().unwrap();
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        drop(lock);
        assert_eq!(late.join().unwrap(), "unavailable");
    });
    assert!(rig.store.is_empty());
}
