//! Against servers that break off, send nonsense or nothing, or are not there.

use tokio::net::TcpSocket;

use super::*;

const HIT: Step = Say(b"VA 2 f7 t90 c1\r\nhi\r\n");

/// The fetch that gets the last of these replies fails so and its connection is closed, and the next fetch is well.
async fn fails_alone(replies: &[&'static [u8]], expected: &str) {
    let script = replies.iter().map(|&reply| Say(reply)).collect();
    let server = Scripted::start(vec![script, vec![HIT]]).await;
    let origin = server.origin();
    assert_eq!(why(&origin, b"a", server.address).await, expected, "{:?}", replies.last());
    server.until("1: closed").await;
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
}

#[tokio::test]
async fn a_value_above_the_limit_is_not_read() {
    let why = "a value of 1048577 bytes, where 1048576 are allowed";
    fails_alone(&[b"VA 1048577 f0 t-1 c1\r\nthe first bytes"], why).await;
    fails_alone(&[b"ERROR\r\n", b"VALUE p:a 0 1048577\r\nthe first bytes"], why).await;
}

#[tokio::test]
async fn what_is_no_reply_fails() {
    for reply in [
        &b"\0\xff\r\n"[..],
        b"\r\n",
        b"VA 2 f0 t-1 c1\nhi\n",
        b"VA 2 f0 t-1 c1\r\nhi!\r\n",
        b"VA 99999999999999999999 f0 t-1 c1\r\n",
        b"VA -1 f0 t-1 c1\r\n",
        b"VA 2 t-1 c1\r\nhi\r\n",
        b"HD\r\n",
        b"END\r\n",
        b"EN\r\nEN\r\n",
        b"VA 2 f0 t-1 c1\r\nhi\r\nEN\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[b'x'; 4096],
    ] {
        fails_alone(&[reply], "malformed reply").await;
    }
    for reply in [
        &b"VALUE p:b 0 2\r\nhi\r\nEND\r\n"[..],
        b"VALUE p:a 0 2\r\nhi\r\nVALUE p:a 0 2\r\nhi\r\nEND\r\n",
        b"VALUE p:a 0 2\r\nhi\r\nSERVER",
        b"VALUE p:a 0 x\r\nhi\r\nEND\r\n",
        b"EN\r\n",
    ] {
        fails_alone(&[b"ERROR\r\n", reply], "malformed reply").await;
    }
}

#[tokio::test]
async fn a_server_that_fails_says_why() {
    let line = b"SERVER_ERROR out of memory writing get response\r\n";
    let says = "SERVER_ERROR out of memory writing get response";
    fails_alone(&[line], says).await;
    fails_alone(&[b"ERROR\r\n", line], says).await;
}

#[tokio::test]
async fn a_reply_that_breaks_off_fails() {
    for half in [&b"VA 2"[..], b"VA 2 f0 t-1 c1\r\n", b"VA 2 f0 t-1 c1\r\nhi", b"EN\r"] {
        let server = Scripted::start(vec![vec![Say(half), Leave], vec![HIT]]).await;
        let origin = server.origin();
        let broken = "connection closed before the end of the reply";
        assert_eq!(why(&origin, b"a", server.address).await, broken, "{}", half.escape_ascii());
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
    }
}

#[tokio::test]
async fn a_fetch_that_is_dropped_takes_its_connection_along() {
    for part in [&b""[..], b"VA 2 f0", b"VA 2 f0 t-1 c1\r\n", b"VA 2 f0 t-1 c1\r\nno"] {
        let server = Scripted::start(vec![vec![HIT, Say(part)], vec![HIT]]).await;
        let origin = Memcached::new(&Options { connections: 1, ..server.options() }).unwrap();
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
        let asked = server.until("1: mg p:slow v f t c\\r\\n");
        tokio::select! {
            biased;
            slow = origin.fetch(b"slow") => panic!("{slow:?}"),
            () = async { asked.await; tokio::task::yield_now().await } => {}
        }
        assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)), "{}", part.escape_ascii());
        server.until("1: closed").await;
    }
}

#[tokio::test]
async fn a_fetch_that_waits_for_a_connection_can_be_dropped() {
    let server = Scripted::start(vec![vec![Say(b""), Say(b"")], vec![HIT]]).await;
    let origin = Memcached::new(&Options { connections: 1, ..server.options() }).unwrap();
    let mut slow = origin.fetch(b"slow");
    tokio::select! {
        biased;
        answer = &mut slow => panic!("{answer:?}"),
        () = server.until("1: mg p:slow v f t c\\r\\n") => {}
    }
    let waited = tokio::time::timeout(Duration::from_millis(1), origin.fetch(b"a")).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(slow);
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced() {
    // Closed while idle, and closed as the question arrives.
    for end in [Leave, Close] {
        let server = Scripted::start(vec![vec![HIT, end.clone()], vec![HIT, end], vec![HIT]]).await;
        let origin = server.origin();
        for _ in 0..3 {
            assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
        }
    }
}

#[tokio::test]
async fn a_new_connection_that_is_closed_is_not_tried_again() {
    let server = Scripted::start(vec![vec![HIT, Close], vec![Close], vec![HIT]]).await;
    let origin = server.origin();
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
    assert_eq!(why(&origin, b"a", server.address).await, "connection closed before the end of the reply");
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
}

#[tokio::test]
async fn what_a_server_sends_unasked_is_no_answer() {
    let server = Scripted::start(vec![vec![HIT, Stray(b"EN\r\n")], vec![HIT]]).await;
    let origin = server.origin();
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
    server.events.lock().push("go".into());
    server.until("1: stray").await;
    assert_eq!(origin.fetch(b"a").await, found(b"hi", 7, Some(90)));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let origin = Memcached::new(&options(&[&closed.to_string()])).unwrap();
    assert_eq!(why(&origin, b"a", closed).await, "connection refused");

    let origin = Memcached::new(&options(&["no-such-host.invalid"])).unwrap();
    let unknown = why(&origin, b"a", "no-such-host.invalid:11211").await;
    assert!(unknown.contains("lookup"), "{unknown}");
}

#[tokio::test]
async fn a_trial_names_each_server_that_is_not_there() {
    let server = Scripted::start(vec![vec![], vec![HIT]]).await;
    let origin = server.origin();
    assert_eq!(origin.try_out().await, Ok(()));
    server.until("1: closed").await;
    assert_eq!(server.events(), ["1: closed"], "it was asked something");
    // Ports that are bound and do not listen.
    let silent = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (socket.local_addr().unwrap().to_string(), socket)
    };
    let ((one, _one), (other, _other)) = (silent(), silent());
    let origin = Memcached::new(&options(&[&one, &server.address.to_string(), &other])).unwrap();
    let why = format!("{one}: connection refused; {other}: connection refused");
    assert_eq!(origin.try_out().await, Err(Failed(why)));
}

#[tokio::test]
async fn a_server_that_does_not_accept_is_not_waited_for() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    // What the system keeps for a listener is a little more than it was told.
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
    }
    let timeout = Duration::from_millis(20);
    let options = Options { connect_timeout: timeout, ..options(&[&address.to_string()]) };
    let origin = Memcached::new(&options).unwrap();
    assert_eq!(why(&origin, b"a", address).await, "no connection within 20ms");
}
