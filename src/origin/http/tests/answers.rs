//! What is made of answers.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{AGE, CACHE_CONTROL, HeaderValue};
use tokio::io::AsyncWriteExt;
use tokio::join;

use super::server::{Server, ok};
use crate::origin::http::{Http, Options, freshness};
use crate::origin::{Failed, Fetched, Loaded, Origin};

/// What a fetch makes of an answer, after which the server closes if told to.
async fn fetched(answer: &str, closes: bool) -> Result<Fetched, String> {
    let server = Server::start().await;
    let http = Http::new(&Options { value_max: 100, ..server.options() }).expect("valid");
    let serve = async {
        let (client, _) = server.answer_one(answer).await;
        (!closes).then_some(client)
    };
    let (fetched, _client) = join!(http.fetch(b"k"), serve);
    let bare = |why: &str| why.strip_prefix(&format!("{}: ", server.host())).expect("the host").to_owned();
    match fetched {
        Ok(Fetched::Refused(why)) => Ok(Fetched::Refused(bare(&why))),
        fetched => fetched.map_err(|Failed(why)| bare(&why)),
    }
}

fn found(value: &'static [u8]) -> Result<Fetched, String> {
    Ok(Fetched::Found(Loaded { value: Bytes::from_static(value), ..Loaded::default() }))
}

fn failed(why: &str) -> Result<Fetched, String> {
    Err(why.to_owned())
}

#[tokio::test]
async fn it_is_found_absent_or_neither() {
    assert_eq!(fetched(&ok("one"), false).await, found(b"one"));
    assert_eq!(fetched(&ok(""), false).await, found(b""));
    for absent in ["404 Not Found", "410 Gone", "404 What?"] {
        let answer = format!("HTTP/1.1 {absent}\r\nContent-Length: 2\r\n\r\nno");
        assert_eq!(fetched(&answer, false).await, Ok(Fetched::Absent));
    }
    for status in
        ["500 Internal Server Error", "503 Service Unavailable", "401 Unauthorized", "204 No Content"]
    {
        let answer = format!("HTTP/1.1 {status}\r\n\r\n");
        assert_eq!(fetched(&answer, true).await, failed(status));
    }
    for status in ["206 Partial Content", "304 Not Modified", "300 Multiple Choices"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(fetched(&answer, false).await, failed(status));
    }
    // The server's own words are not repeated.
    assert_eq!(fetched("HTTP/1.1 599 secret\r\nContent-Length: 0\r\n\r\n", false).await, failed("599"));
}

#[tokio::test]
async fn a_body_ends_by_its_length_its_last_chunk_or_with_the_connection() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    assert_eq!(
        fetched(&format!("{chunked}2;x=y\r\n, \r\n0\r\nTrailer: x\r\n\r\n"), false).await,
        found(b"one, ")
    );
    assert_eq!(fetched("HTTP/1.1 200 OK\r\n\r\nto the end", true).await, found(b"to the end"));
    assert_eq!(fetched("HTTP/1.0 200 OK\r\n\r\nto the end", true).await, found(b"to the end"));
    let early = failed("unexpected EOF during chunk size line");
    assert_eq!(fetched(chunked, true).await, early);
    let early = failed("end of file before message length reached");
    assert_eq!(fetched("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true).await, early);
    let none = failed("connection closed before message completed");
    assert_eq!(fetched("", true).await, none);
    assert_eq!(fetched("HTTP/1.1 200", true).await, none);
    assert_eq!(fetched("SSH-2.0-OpenSSH_9.6\r\n\r\n", false).await, failed("invalid HTTP version parsed"));
}

#[tokio::test]
async fn coded_values_stay_as_they_are() {
    let server = Server::start().await;
    let http = server.http();
    let answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x0bxy";
    let (fetched, (_client, asked)) = join!(http.fetch(b"k"), server.answer_one(answer));
    assert!(asked.contains("\r\naccept-encoding: identity\r\n"), "{asked}");
    assert!(matches!(fetched, Ok(Fetched::Found(loaded)) if loaded.value == "\x1f\x0bxy"));
}

#[tokio::test]
async fn a_value_over_the_bound_is_not_read_on() {
    let most = "x".repeat(100);
    assert!(matches!(fetched(&ok(&most), false).await, Ok(Fetched::Found(loaded)) if loaded.value == most));
    let over = Ok(Fetched::Refused("a value of more than 100 bytes".to_owned()));
    assert_eq!(fetched(&ok(&"x".repeat(101)), false).await, over);

    let endless =
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n"];
    for head in endless {
        let server = Server::start().await;
        let http = Http::new(&Options { value_max: 100, ..server.options() }).expect("valid");
        let serve = async {
            let (mut client, _) = server.answer_one(head).await;
            // Ends only as the other side closes.
            while client.stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
        };
        let (fetched, ()) = join!(http.fetch(b"k"), serve);
        let over = Fetched::Refused(format!("{}: a value of more than 100 bytes", server.host()));
        assert_eq!(fetched, Ok(over));
    }

    // Announced, it is not waited for.
    let server = Server::start().await;
    let http = Http::new(&Options { value_max: 100, ..server.options() }).expect("valid");
    for length in ["101", "10000000000", "9000000000000000000"] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let serve = async {
            let (mut client, _) = server.answer_one(&head).await;
            client.closed().await;
        };
        let (fetched, ()) = join!(http.fetch(b"k"), serve);
        let over = Fetched::Refused(format!("{}: a value of more than 100 bytes", server.host()));
        assert_eq!(fetched, Ok(over));
    }
}

#[tokio::test]
async fn headers_set_flags_and_the_time_to_live() {
    let with = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 1\r\n\r\n1");
    let loaded = |flags, ttl: Option<u64>| {
        Ok(Fetched::Found(Loaded {
            value: "1".into(),
            flags,
            ttl: ttl.map(Duration::from_secs),
            validator: None,
        }))
    };
    let answer = with("X-Memcached-Flags: 123\r\nCache-Control: max-age=60\r\nAge: 20\r\n");
    assert_eq!(fetched(&answer, false).await, loaded(123, Some(40)));
    assert_eq!(fetched(&with("x-memcached-flags: 4294967295\r\n"), false).await, loaded(u32::MAX, None));
    for malformed in ["4294967296", "-1", "0x1", ""] {
        let answer = with(&format!("X-Memcached-Flags: {malformed}\r\n"));
        assert_eq!(fetched(&answer, false).await, loaded(0, None));
    }
}

#[test]
fn cache_control_bounds_the_time_to_live() {
    let ttl = |lines: &[&'static str], age: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        if let Some(age) = age {
            headers.insert(AGE, HeaderValue::from_static(age));
        }
        freshness::ttl(&headers).map(|ttl| ttl.as_secs())
    };
    for (line, seconds) in [
        ("max-age=60", Some(60)),
        ("MAX-AGE = 60 , public", Some(60)),
        ("max-age=\"60\"", Some(60)),
        ("max-age=60, s-maxage=5", Some(5)),
        ("s-maxage=5, max-age=60", Some(5)),
        ("max-age=0", Some(0)),
        ("no-store", Some(0)),
        ("max-age=60, No-Store", Some(0)),
        ("s-maxage=60, no-cache", Some(0)),
        ("private, max-age=60", Some(0)),
        // Of headers, and none is kept.
        ("private=\"set-cookie, x\", max-age=60", Some(60)),
        ("no-cache=\"set-cookie\", max-age=60", Some(60)),
        // What is in a string is no directive.
        ("x=\"no-store, \\\", private\", max-age=60", Some(60)),
        ("x=\", no-store", None),
        ("max-age=60, max-age=5", Some(60)),
        ("max-age=99999999999999999999999999", Some(1 << 31)),
        ("max-age=4294967296", Some(1 << 31)),
        ("max-age", None),
        ("max-age=", None),
        ("max-age=-1", None),
        ("max-age=+1", None),
        ("max-age=1.5", None),
        ("max-age=soon", None),
        ("max-age=soon, max-age=7", Some(7)),
        ("s-maxage=soon, max-age=60", Some(60)),
        ("public, must-revalidate, immutable", None),
        (",,=,", None),
        ("", None),
    ] {
        assert_eq!(ttl(&[line], None), seconds, "{line}");
    }
    assert_eq!(ttl(&["max-age=60", "no-store"], None), Some(0));
    assert_eq!(ttl(&["max-age=60"], Some("59")), Some(1));
    assert_eq!(ttl(&["max-age=60"], Some("61")), Some(0));
    assert_eq!(ttl(&["max-age=60"], Some("-1")), Some(60));
    assert_eq!(ttl(&[], Some("1")), None);
}
