//! Against servers that answer as a test says: dialects, connections, and what goes over them.

use super::*;

const HIT: Step = Say(b"VA 2 f7 t90 c1\r\nhi\r\n");
const MISS: Step = Say(b"EN\r\n");

#[tokio::test]
async fn a_value_comes_with_its_flags_and_lifetime() {
    let server = Scripted::start(vec![vec![HIT, MISS, Say(b"VA 4 f0 t-1 c2 X Z\r\n\r\n\r\n\r\n")]]).await;
    let origin = server.origin();
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
    assert_eq!(origin.fetch(b"b").await, Ok(Fetched::Absent));
    assert_eq!(origin.fetch(b"c").await, found(b"\r\n\r\n", 0, None));
    let asked = ["1: mg p:a v f t c\\r\\n", "1: mg p:b v f t c\\r\\n", "1: mg p:c v f t c\\r\\n"];
    assert_eq!(server.events(), asked, "on one connection");
}

#[tokio::test]
async fn a_server_without_meta_commands_is_asked_by_get_for_a_while() {
    for unknown in [&b"ERROR\r\n"[..], b"CLIENT_ERROR what?\r\n"] {
        let classic = Say(b"VALUE p:a 7 2\r\nhi\r\nEND\r\n");
        let script = vec![Say(unknown), classic.clone(), Say(b"END\r\n"), classic];
        let server = Scripted::start(vec![script, vec![HIT]]).await;
        let origin = server.origin();
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, None));
        assert_eq!(origin.fetch(b"b").await, Ok(Fetched::Absent));
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, None));
        pass(Duration::from_secs(301)).await;
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)), "it may know them by now");
        server.until("1: closed").await;
        let asked: Vec<_> = server.events().into_iter().filter(|event| event != "1: closed").collect();
        let meta = "mg p:a v f t c\\r\\n";
        let expected = [
            &format!("1: {meta}"),
            "1: get p:a\\r\\n",
            "1: get p:b\\r\\n",
            "1: get p:a\\r\\n",
            &format!("2: {meta}"),
        ];
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn of_a_server_that_understands_nothing_nothing_is_learnt() {
    let refusal = Say(b"CLIENT_ERROR unauthenticated\r\n");
    let server = Scripted::start(vec![vec![refusal.clone(), refusal], vec![HIT]]).await;
    let origin = server.origin();
    assert_eq!(why(&origin, b"a", server.address).await, "CLIENT_ERROR unauthenticated");
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
}

#[tokio::test]
async fn a_binary_key_is_asked_for_in_base64() {
    let server = Scripted::start(vec![vec![HIT, Say(b"ERROR\r\n")], vec![HIT]]).await;
    let origin = server.origin();
    assert_eq!(origin.fetch(b" \r\n").await, found(b"hi", 7, Some(90)));
    assert_eq!(why(&origin, b"\0", server.address).await, "ERROR");
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)), "no other key is asked for differently");
    server.until("2: mg p:a v f t c\\r\\n").await;
    assert_eq!(server.events()[..2], ["1: mg cDogDQo= v f t c b\\r\\n", "1: mg cDoA v f t c b\\r\\n"]);
}

#[tokio::test]
async fn keys_that_no_server_holds_are_not_asked_for() {
    let server = Scripted::start(vec![]).await;
    let origin = server.origin();
    assert_eq!(origin.fetch(&[b'x'; 249]).await, Ok(Fetched::Absent), "251 bytes with the prefix");
    let origin = Memcached::new(&Options { prefix: Vec::new(), ..server.options() }).unwrap();
    assert_eq!(origin.fetch(b"").await, Ok(Fetched::Absent));
    let refused = why(&origin, &[0; 187], server.address).await;
    assert_eq!(refused, "no text command can ask for a binary key of this length");
}

#[tokio::test]
async fn a_win_is_given_back() {
    let won = Say(b"VA 2 f0 t5 c9 X W\r\nhi\r\n");
    let script = vec![won.clone(), Say(b"HD\r\n"), won.clone(), Say(b"EX\r\n"), won, Say(b"ERROR\r\n")];
    let server = Scripted::start(vec![script, vec![MISS]]).await;
    let origin = server.origin();
    for _ in 0..2 {
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 0, Some(5)));
    }
    assert_eq!(origin.fetch(b"\n").await, found(b"hi", 0, Some(5)), "the value is good all the same");
    assert_eq!(origin.fetch(b"a").await, Ok(Fetched::Absent));
    let events = server.events();
    assert_eq!(events[1], "1: md p:a I C9\\r\\n");
    assert_eq!(events[5], "1: md cDoK I C9 b\\r\\n");
    server.until("1: closed").await;
}

#[tokio::test]
async fn a_place_held_for_a_value_is_none() {
    let script = vec![Say(b"VA 0 f0 t30 c6 Z\r\n\r\n"), Say(b"VA 0 f0 t30 c6\r\n\r\n")];
    let server = Scripted::start(vec![script]).await;
    let origin = server.origin();
    assert_eq!(origin.fetch(b"a").await, Ok(Fetched::Absent));
    assert_eq!(origin.fetch(b"a").await, found(b"", 0, Some(30)), "an empty value is one");
}

#[tokio::test]
async fn connections_are_no_more_than_allowed() {
    let server = Scripted::start(vec![vec![HIT, MISS, HIT], vec![HIT]]).await;
    let origin = Memcached::new(&Options { connections: 1, ..server.options() }).unwrap();
    let (a, b, c) = tokio::join!(origin.fetch(b"a"), origin.fetch(b"b"), origin.fetch(b"c"));
    assert_eq!((a, b, c), (found(b"hi", 7, Some(90)), Ok(Fetched::Absent), found(b"hi", 7, Some(90))));
    assert!(server.events().iter().all(|event| event.starts_with("1: ")), "{:?}", server.events());
}

#[tokio::test]
async fn a_connection_that_is_idle_for_a_minute_is_closed() {
    let server = Scripted::start(vec![vec![HIT, MISS], vec![HIT]]).await;
    let origin = server.origin();
    origin.fetch(b"a").await.unwrap();
    pass(Duration::from_secs(59)).await;
    assert_eq!(origin.fetch(b"a").await, Ok(Fetched::Absent), "it is kept that long");
    pass(Duration::from_secs(61)).await;
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
    server.until("1: closed").await;
}

/// Lets time pass, but not while something waits for the network.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
