//! The binary protocol through any node.

use crate::support::cluster::Cluster;
use crate::support::packet::*;

#[test]
fn every_command_is_answered_for_a_key_of_another_node() {
    let cluster = Cluster::steady(2);
    let mut wires = cluster.connect_all();
    let wire = &mut wires[0];
    for owner in 0..2 {
        let keys = cluster.keys_owned_by(owner, "binary", 3);
        let (key, counter, none) = (&keys[0], &keys[1], &keys[2]);
        let set = Packet::store(SET, key, "b").extras(&[0, 0, 0, 7, 0, 0, 0, 0]);
        let stored = ask(wire, &set);
        assert_eq!(stored.status, 0);
        assert_ne!(stored.cas, 0);
        let found = ask(wire, &Packet::new(GETK, key));
        assert_eq!(
            (found.key.clone(), found.flags(), found.text()),
            (key.clone().into_bytes(), 7, "b".into())
        );
        assert_eq!(found.cas, stored.cas);

        let appended = ask(wire, &Packet::store(APPEND, key, "c").cas(found.cas));
        assert_eq!(appended.status, 0);
        assert_ne!(appended.cas, found.cas);
        assert_eq!(ask(wire, &Packet::store(PREPEND, key, "a").cas(found.cas)).status, EXISTS);
        assert_eq!(ask(wire, &Packet::store(PREPEND, key, "a")).status, 0);
        assert_eq!(ask(wire, &Packet::store(SET, key, "x").cas(found.cas)).status, EXISTS);
        assert_eq!(ask(wire, &Packet::store(ADD, key, "x")).text(), "Data exists for key.");
        assert_eq!(ask(wire, &Packet::store(REPLACE, none, "x")).text(), "Not found");
        assert_eq!(ask(wire, &Packet::store(APPEND, none, "x")).text(), "Not stored.");
        assert_eq!(ask(wire, &Packet::new(GET, key)).text(), "abc");

        let touched = ask(wire, &Packet::new(TOUCH, key).extras(&[0, 0, 1, 0]));
        assert_eq!((touched.status, touched.flags(), touched.text()), (0, 7, String::new()));
        assert_eq!(ask(wire, &Packet::new(GATK, key).extras(&[0; 4])).text(), "abc");
        assert_eq!(ask(wire, &Packet::new(GATK, none).extras(&[0; 4])).key, none.as_bytes());
        assert_eq!(ask(wire, &Packet::new(TOUCH, none).extras(&[0; 4])).text(), "Not found");

        assert_eq!(ask(wire, &Packet::sum(INCREMENT, counter, 1, 5, u32::MAX)).status, NOT_FOUND);
        assert_eq!(ask(wire, &Packet::sum(INCREMENT, counter, 1, 5, 100)).number(), 5);
        let counted = ask(wire, &Packet::sum(INCREMENT, counter, 7, 5, 100));
        assert_eq!(counted.number(), 12);
        assert_ne!(counted.cas, 0);
        assert_eq!(ask(wire, &Packet::sum(DECREMENT, counter, 20, 5, 100).cas(counted.cas)).number(), 0);
        assert_eq!(ask(wire, &Packet::sum(DECREMENT, counter, 20, 5, 100).cas(counted.cas)).status, EXISTS);
        assert_eq!(ask(wire, &Packet::sum(INCREMENT, key, 1, 5, 0)).status, 6, "no number");

        let large = Packet::store(SETQ, key, vec![b'x'; 1 << 20]);
        assert_eq!(ask(wire, &large).status, TOO_LARGE);
        assert_eq!(ask(wire, &Packet::new(GET, key)).status, NOT_FOUND, "it was to be replaced");
        ask(wire, &Packet::store(SET, key, "v"));
        assert_eq!(ask(wire, &Packet::new(DELETE, key).cas(1)).status, EXISTS);
        assert_eq!(ask(wire, &Packet::new(DELETE, key)).status, 0);
        assert_eq!(ask(wire, &Packet::new(DELETE, key)).status, NOT_FOUND);
    }
}

#[test]
fn quiet_commands_for_all_owners_keep_their_order() {
    const KEYS: u32 = 300;
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    let sets: Vec<_> =
        (0..KEYS).map(|n| Packet::store(SETQ, &format!("key{n}"), n.to_string()).opaque(n)).collect();
    assert_eq!(ask_all(&mut wires[0], &sets), []);
    let gets: Vec<_> = (0..2 * KEYS).map(|n| Packet::new(GETKQ, &format!("key{n}")).opaque(n)).collect();
    for wire in &mut wires {
        let found = ask_all(wire, &gets);
        let seen: Vec<_> = found.iter().map(|answer| (answer.opaque, answer.text())).collect();
        assert_eq!(seen, (0..KEYS).map(|n| (n, n.to_string())).collect::<Vec<_>>());
    }
    // Refusals stand where their commands stood.
    let adds: Vec<_> = (0..2 * KEYS)
        .map(|n| Packet::store(if n % 2 == 0 { ADDQ } else { ADD }, &format!("key{n}"), "x").opaque(n))
        .collect();
    let answers = ask_all(&mut wires[1], &adds);
    let seen: Vec<_> = answers.iter().map(|answer| (answer.opaque, answer.status)).collect();
    let expected = (0..2 * KEYS).filter(|n| *n < KEYS || n % 2 == 1);
    assert_eq!(seen, expected.map(|n| (n, if n < KEYS { EXISTS } else { 0 })).collect::<Vec<_>>());
}

/// When the owner of a key cannot be asked, a read is a miss, and a write fails with a packet, not a line.
#[test]
fn a_key_whose_owner_is_gone_is_a_miss_or_a_temporary_failure() {
    const TEMPORARY: u16 = 0x86;
    let mut cluster = Cluster::start(3);
    let key = cluster.key_owned_by(1);
    let mut wire = cluster.nodes[0].connect();
    assert_eq!(ask(&mut wire, &Packet::store(SET, &key, "v")).status, 0);
    // Nobody takes its keys over.
    cluster.etcd.kill();
    cluster.nodes[1].kill9();
    let packets = [
        Packet::new(GETK, &key),
        Packet::new(GETQ, &key),
        Packet::store(SETQ, &key, "w"),
        Packet::new(DELETE, &key),
        Packet::sum(INCREMENTQ, &key, 1, 0, 0),
        Packet::new(TOUCH, &key).extras(&[0; 4]),
    ];
    let answers = ask_all(&mut wire, &packets);
    let seen: Vec<_> = answers.iter().map(|answer| (answer.opcode, answer.status)).collect();
    let failed = [SETQ, DELETE, INCREMENTQ, TOUCH].map(|opcode| (opcode, TEMPORARY));
    assert_eq!(seen, [&[(GETK, NOT_FOUND)][..], &failed].concat());
    assert_eq!(answers[0].key, key.as_bytes());
    assert!(answers[1].text().starts_with("the owner of this key"), "{}", answers[1].text());
}

#[test]
fn a_flush_and_statistics_are_those_of_the_cluster() {
    let cluster = Cluster::steady(2);
    let mut wires = cluster.connect_all();
    for owner in 0..2 {
        let key = cluster.key_owned_by(owner);
        assert_eq!(ask(&mut wires[0], &Packet::store(SET, &key, "v")).status, 0);
    }
    let answers = ask_all(&mut wires[1], &[Packet::new(FLUSHQ, ""), Packet::new(FLUSH, "").opaque(9)]);
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].opcode, answers[0].opaque, answers[0].status), (FLUSH, 9, 0));
    for owner in 0..2 {
        let key = cluster.key_owned_by(owner);
        assert_eq!(ask(&mut wires[0], &Packet::new(GET, &key)).status, NOT_FOUND);
    }
    assert_eq!(stat(&mut wires[0], "cluster", "members"), "2");
    assert_eq!(stat(&mut wires[0], "ring", "members"), "2");
}
