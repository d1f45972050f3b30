//! Values that have a tag, and are asked for again by it.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{ETAG, HeaderValue};
use tokio::join;

use super::server::{Server, ok};
use crate::origin::http::etag;
use crate::origin::{Failed, Fetched, Loaded, Origin, Validator};

fn known(tag: &str, ttl: Option<u64>) -> Validator {
    Validator { tag: tag.as_bytes().into(), ttl: ttl.map(Duration::from_secs) }
}

fn unchanged(ttl: Option<u64>) -> Result<Fetched, Failed> {
    Ok(Fetched::Unchanged { ttl: ttl.map(Duration::from_secs) })
}

/// The tag that a request names.
fn asked_about(request: &str) -> Option<&str> {
    request.lines().find_map(|line| line.strip_prefix("if-none-match: "))
}

#[tokio::test]
async fn a_tag_comes_with_a_value_and_is_asked_about() {
    let server = Server::start().await;
    let http = server.http();
    let answer = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nETag: \"b\"\r\nContent-Length: 1\r\n\r\n1";
    let (fetched, (mut client, asked)) = join!(http.fetch(b"k"), server.answer_one(answer));
    assert_eq!(asked_about(&asked), None);
    assert_eq!(fetched, Ok(Fetched::Found(Loaded { value: "1".into(), ..Loaded::default() })));

    let answer =
        "HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\n1";
    let (fetched, _) = join!(http.fetch(b"k"), client.answer(answer));
    let Ok(Fetched::Found(loaded)) = fetched else { panic!("{fetched:?}") };
    let validator = loaded.validator.expect("it has a tag");
    assert_eq!(validator, known("W/\"a\"", Some(60)));

    // Over the same connection: nothing follows a 304.
    for (headers, ttl) in [
        ("Cache-Control: max-age=5\r\n", Some(5)),
        ("Cache-Control: max-age=90\r\nAge: 1\r\n", Some(89)),
        ("Cache-Control: no-store\r\n", Some(0)),
        // What it does not say stays as it was (RFC 9111, 4.3.4).
        ("", Some(60)),
        ("ETag: \"other\"\r\nContent-Length: 100\r\n", Some(60)),
    ] {
        let answer = format!("HTTP/1.1 304 Not Modified\r\n{headers}\r\n");
        let (fetched, asked) = join!(http.fetch_if_changed(b"k", &validator), client.answer(answer));
        assert_eq!(asked_about(&asked), Some("W/\"a\""));
        assert_eq!(fetched, unchanged(ttl), "{headers}");
    }
    let (fetched, _) = join!(http.fetch_if_changed(b"k", &validator), client.answer(ok("2")));
    assert_eq!(fetched, Ok(Fetched::Found(Loaded { value: "2".into(), ..Loaded::default() })));
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let (fetched, _) = join!(http.fetch_if_changed(b"k", &validator), client.answer(gone));
    assert_eq!(fetched, Ok(Fetched::Absent));
    let (fetched, asked) = join!(http.fetch(b"k"), client.answer("HTTP/1.1 304 Not Modified\r\n\r\n"));
    assert_eq!(asked_about(&asked), None);
    assert_eq!(fetched, Err(Failed(format!("{}: 304 Not Modified", server.host()))));
}

#[tokio::test]
async fn a_tag_counts_at_its_own_address_alone() {
    let server = Server::start().await;
    let http = server.http();
    let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let tagged = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 1\r\n\r\n1";
    let serve = async |answer: &str| {
        let (mut client, first) = server.answer_one(elsewhere).await;
        let second = client.answer(answer).await;
        (first, second, client)
    };
    let (fetched, _open) = join!(http.fetch(b"k"), serve(tagged));
    assert_eq!(fetched, Ok(Fetched::Found(Loaded { value: "1".into(), ..Loaded::default() })));

    let http = server.http();
    let known = known("\"a\"", None);
    let not_modified = "HTTP/1.1 304 Not Modified\r\n\r\n";
    let (fetched, (first, second, _open)) = join!(http.fetch_if_changed(b"k", &known), serve(not_modified));
    assert_eq!((asked_about(&first), asked_about(&second)), (Some("\"a\""), None));
    assert_eq!(fetched, Err(Failed(format!("{}: 304 Not Modified", server.host()))));
}

#[test]
fn only_one_tag_in_its_quotes_is_remembered() {
    let tag = |tags: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for tag in tags {
            headers.append(ETAG, HeaderValue::from_bytes(tag).expect("it can be sent"));
        }
        etag::validator(&headers, None).map(|validator| validator.tag.into_vec())
    };
    let longest = format!("\"{}\"", "x".repeat(254));
    for good in ["\"\"", "\"a\"", "W/\"a\"", "\"!#[\\]~,*W/\"", &longest] {
        assert_eq!(tag(&[good.as_bytes()]).as_deref(), Some(good.as_bytes()), "{good}");
    }
    assert!(tag(&[b"\"\x80\xff\""]).is_some());
    let long = format!("\"{}\"", "x".repeat(255));
    for bad in
        ["", "*", "a", "\"", "\"a", "a\"", "w/\"a\"", "W/a", "\"a\", \"b\"", "\"a b\"", "\"a\tb\"", &long]
    {
        assert_eq!(tag(&[bad.as_bytes()]), None, "{bad}");
    }
    assert_eq!(tag(&[]), None);
    assert_eq!(tag(&[b"\"a\"", b"\"b\""]), None, "which one is it?");
}
