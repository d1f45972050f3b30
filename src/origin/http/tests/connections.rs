//! Connections: how many, used again, replaced, given up; and the token.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use tokio::time::{advance, pause, resume};
use tokio::{join, select};

use super::server::{Server, ok, options};
use crate::origin::http::{Http, Options};
use crate::origin::{Failed, Fetched, Origin};

fn value(fetched: Result<Fetched, Failed>) -> String {
    match fetched {
        Ok(Fetched::Found(loaded)) => String::from_utf8(loaded.value.to_vec()).expect("text"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start().await;
    let http = server.http();
    let (fetched, (mut client, _)) = join!(http.fetch(b"1"), server.answer_one(ok("one")));
    assert_eq!(value(fetched), "one");
    // Also after a body that nobody wants.
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let (fetched, asked) = join!(http.fetch(b"2"), client.answer(answer));
        assert!(!matches!(fetched, Ok(Fetched::Found(_))));
        assert!(asked.starts_with("GET /scores/2 "), "{asked}");
    }
    let (fetched, _) = join!(http.fetch(b"3"), client.answer(ok("three")));
    assert_eq!(value(fetched), "three");
}

#[tokio::test]
async fn a_trial_connects_and_asks_for_nothing() {
    let server = Server::start().await;
    let http = server.http();
    let (tried, mut client) = join!(http.try_out(), server.accept());
    assert_eq!((tried, &*client.asked().await), (Ok(()), ""));
    let host = server.host();
    drop(server);
    assert_eq!(http.try_out().await, Err(Failed(format!("{host}: connection refused"))));
}

#[tokio::test]
async fn there_are_no_more_than_allowed() {
    let server = Server::start().await;
    let http = Http::new(&Options { connections: 2, ..server.options() }).expect("valid");
    let serve = async {
        let (mut one, mut two) = (server.accept().await, server.accept().await);
        let three = async {
            one.asked().await;
            two.asked().await;
            // The third waits for one of the two.
            one.send(ok("1")).await;
            one.answer(ok("3")).await;
            two.send(ok("2")).await;
        };
        select! {
            () = three => {}
            _ = server.accept() => panic!("a third connection"),
        }
        (one, two)
    };
    let (first, second, third, mut clients) =
        join!(http.fetch(b"1"), http.fetch(b"2"), http.fetch(b"3"), serve);
    let mut values = [value(first), value(second), value(third)];
    values.sort();
    assert_eq!(values, ["1", "2", "3"]);

    // Both are idle now, and many requests one after another need no other.
    let many = async {
        for _ in 0..20 {
            let (x, y, z) = join!(http.fetch(b"x"), http.fetch(b"y"), http.fetch(b"z"));
            assert_eq!([value(x), value(y), value(z)], ["x"; 3]);
        }
    };
    let (one, two) = (&mut clients.0, &mut clients.1);
    let serve = async {
        loop {
            select! {
                asked = one.asked() => { assert!(!asked.is_empty()); one.send(ok("x")).await; }
                asked = two.asked() => { assert!(!asked.is_empty()); two.send(ok("x")).await; }
                _ = server.accept() => panic!("a third connection"),
            }
        }
    };
    select! {
        () = many => {}
        () = serve => {}
    }
}

#[tokio::test]
async fn a_dead_connection_is_replaced_once() {
    let server = Server::start().await;
    let http = server.http();
    let (_, (client, _)) = join!(http.fetch(b"1"), server.answer_one(ok("1")));
    // Closed while idle.
    drop(client);
    let (fetched, (mut client, _)) = join!(http.fetch(b"2"), server.answer_one(ok("2")));
    assert_eq!(value(fetched), "2");

    // Closed as it is asked on.
    let serve = async {
        let asked = client.asked().await;
        assert!(asked.starts_with("GET /scores/3 "), "{asked}");
        drop(client);
        server.answer_one(ok("3")).await
    };
    let (fetched, (mut client, asked)) = join!(http.fetch(b"3"), serve);
    assert_eq!(value(fetched), "3");
    assert!(asked.starts_with("GET /scores/3 "), "{asked}");

    // And the one in its place, too: that is enough.
    let serve = async {
        client.asked().await;
        drop(client);
        server.answer_one("").await;
    };
    let (fetched, ()) = join!(http.fetch(b"4"), serve);
    assert_eq!(
        fetched,
        Err(Failed(format!("{}: connection closed before message completed", server.host())))
    );
}

#[tokio::test]
async fn half_an_answer_is_not_asked_for_again() {
    let server = Server::start().await;
    let http = server.http();
    let (_, (mut client, _)) = join!(http.fetch(b"1"), server.answer_one(ok("1")));
    let serve = async {
        client.answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
        drop(client);
    };
    let (fetched, ()) = join!(http.fetch(b"2"), serve);
    assert_eq!(fetched, Err(Failed(format!("{}: end of file before message length reached", server.host()))));
}

#[tokio::test]
async fn who_gives_up_closes_the_connection_and_frees_its_slot() {
    let server = Server::start().await;
    let http = Http::new(&Options { connections: 1, ..server.options() }).expect("valid");
    let mut client = select! {
        _ = http.fetch(b"1") => panic!("nobody has answered"),
        client = async {
            let mut client = server.accept().await;
            client.asked().await;
            client
        } => client,
    };
    client.closed().await;
    let (fetched, _) = join!(http.fetch(b"2"), server.answer_one(ok("2")));
    assert_eq!(value(fetched), "2");
}

#[tokio::test]
async fn idle_connections_are_closed_after_some_time() {
    let server = Server::start().await;
    let http = server.http();
    // The second time as well.
    for _ in 0..2 {
        let (fetched, (mut client, _)) = join!(http.fetch(b"1"), server.answer_one(ok("1")));
        assert_eq!(value(fetched), "1");
        pause();
        client.closed().await;
        resume();
    }
}

#[tokio::test]
async fn an_answer_of_absence_does_not_wait_for_its_body() {
    let server = Server::start().await;
    let http = server.http();
    let serve = async {
        let (mut client, _) = server.answer_one("HTTP/1.1 404 X\r\nContent-Length: 10\r\n\r\n").await;
        client.closed().await;
    };
    let (fetched, ()) = join!(http.fetch(b"1"), serve);
    assert_eq!(fetched, Ok(Fetched::Absent));
}

#[tokio::test]
async fn failures_to_connect_say_which() {
    let free = Server::start().await.host();
    let http = Http::new(&options(&format!("http://{free}/{{key}}"))).expect("valid");
    assert_eq!(http.fetch(b"k").await, Err(Failed(format!("{free}: connection refused"))));
    let http = Http::new(&options("http://nowhere.invalid/{key}")).expect("valid");
    let Err(Failed(why)) = http.fetch(b"k").await else { panic!("found") };
    assert!(why.starts_with("nowhere.invalid: failed to lookup address"), "{why}");
}

#[tokio::test]
async fn the_token_follows_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    let server = Server::start().await;
    let with_token = Options { bearer_token_file: Some(path.clone()), ..server.options() };
    let write = |text: &str, second: u64| {
        fs::write(&path, text).expect("writable");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("writable");
    };
    let check = || Http::check(&with_token).map_err(|invalid| invalid.to_string());

    let error = check().expect_err("no file");
    assert_eq!(
        error,
        format!("bearer-token-file: {}: No such file or directory (os error 2)", path.display())
    );
    for none in ["", " \n", "two secrets", "s\u{e9}cret", "a\nb", &"s".repeat(8001)] {
        write(none, 1);
        let error = check().expect_err("no token");
        assert!(error.contains("holds no token (allowed: 1 to 8000") && !error.contains("ecret"), "{error}");
    }
    write("one\n", 1);
    let both =
        Options { headers: vec![("authorization".to_owned(), "secret".to_owned())], ..with_token.clone() };
    let error = Http::check(&both).expect_err("two").to_string();
    assert_eq!(error, "headers: Authorization comes from bearer-token-file (allowed: one of the two)");

    let http = Http::new(&with_token).expect("valid");
    for (text, second, after, sent) in [
        ("one", 1, 0, "one"),
        // Changed, and seen a second later.
        ("two", 2, 1, "two"),
        // Within one time stamp, and seen a minute after the last reading.
        ("three", 2, 1, "two"),
        ("three", 2, 60, "three"),
        // Not a token: the last stays.
        ("", 3, 1, "three"),
        ("four", 4, 1, "four"),
    ] {
        write(text, second);
        pause();
        advance(Duration::from_secs(after)).await;
        resume();
        let (_, (_, asked)) =
            join!(http.fetch(b"k"), server.answer_one("HTTP/1.1 404 X\r\nConnection: close\r\n\r\n"));
        assert!(asked.contains(&format!("\r\nauthorization: Bearer {sent}\r\n")), "{text}: {asked}");
    }
}
