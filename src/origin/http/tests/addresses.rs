//! What is asked for, and of whom.

use tokio::join;

use super::server::{Server, ok, options};
use crate::origin::http::{Http, Options};
use crate::origin::{Fetched, Origin};

/// The first line of the request for a key, and its Host.
async fn request_line(template: &str, key: &[u8]) -> String {
    let server = Server::start().await;
    let http = Http::new(&options(&format!("http://{}{template}", server.host()))).expect("valid");
    let (fetched, (_client, asked)) = join!(http.fetch(key), server.answer_one(ok("1")));
    assert!(matches!(fetched, Ok(Fetched::Found(_))));
    assert!(asked.contains(&format!("\r\nhost: {}\r\n", server.host())), "{asked}");
    asked.lines().next().expect("a line").to_owned()
}

/// Why a key is refused, with no server to ask.
async fn refusal(template: &str, key: &[u8]) -> String {
    let http = Http::new(&options(&format!("http://127.0.0.1:1{template}"))).expect("valid");
    let Ok(Fetched::Unaskable(why)) = http.fetch(key).await else { panic!("not refused") };
    why
}

#[tokio::test]
async fn a_key_stays_one_part_of_the_path() {
    for (key, sent) in [
        (&b"player-1_a.b~c"[..], "player-1_a.b~c"),
        (b"", ""),
        (b"?x", "%3Fx"),
        (b"#x", "%23x"),
        (b"%", "%25"),
        (b"%2e%2e", "%252e%252e"),
        (b"%2e%2e%2f", "%252e%252e%252f"),
        (b"a/b", "a%2Fb"),
        (b"/", "%2F"),
        (b"...", "..."),
        (b"a..", "a.."),
        (b".a", ".a"),
        (b"@evil:80", "%40evil%3A80"),
        (b"//evil/", "%2F%2Fevil%2F"),
        (b"http://evil/", "http%3A%2F%2Fevil%2F"),
        (b"{key}", "%7Bkey%7D"),
        (b"'; drop table", "%27%3B%20drop%20table"),
        (b"\r\nHost: evil\r\n\r\n", "%0D%0AHost%3A%20evil%0D%0A%0D%0A"),
        (b"\0", "%00"),
        ("\u{e9}".as_bytes(), "%C3%A9"),
        (&[0xff; 250], &"%FF".repeat(250)),
    ] {
        assert_eq!(request_line("/scores/{key}", key).await, format!("GET /scores/{sent} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_key_that_would_climb_is_not_sent() {
    let refused = "127.0.0.1:1: the key makes a . or .. between slashes";
    for key in ["..", ".", "/../", "../x", "x/..", "a/./b", "..\\x", "/.."] {
        assert_eq!(refusal("/scores/{key}", key.as_bytes()).await, refused, "{key}");
        assert_eq!(refusal("/scores/{key}?x=y", key.as_bytes()).await, refused, "{key}");
    }
    assert_eq!(refusal("/scores/.{key}", b".").await, refused);
    assert_eq!(refusal("/scores/.{key}/x", b"").await, refused);
    assert_eq!(refusal("/scores/%2e{key}", b".").await, refused);
    assert_eq!(refusal("/scores/{key}{key}", b".").await, refused);
    assert_eq!(request_line("/scores/x{key}", b"..").await, "GET /scores/x.. HTTP/1.1");
    // Nothing climbs in a query.
    assert_eq!(request_line("/scores?of={key}", b"../x").await, "GET /scores?of=..%2Fx HTTP/1.1");
}

#[tokio::test]
async fn a_key_adds_nothing_to_a_query() {
    let line = request_line("/scores?of={key}&x=y", b"a&b=c;d+e f#g").await;
    assert_eq!(line, "GET /scores?of=a%26b%3Dc%3Bd%2Be%20f%23g&x=y HTTP/1.1");
    assert_eq!(request_line("?{key}", b"a?b").await, "GET /?a%3Fb HTTP/1.1");
    assert_eq!(request_line("/{key}/{key}.json", b"1").await, "GET /1/1.json HTTP/1.1");
}

#[test]
fn a_template_has_a_fixed_host_and_keys_after_it() {
    let check = |url: &str| Http::check(&options(url)).map_err(|invalid| invalid.to_string());
    for url in [
        "https://gateway.internal/scores/{key}",
        "HTTP://Gateway:8080/{key}",
        "http://[::1]:1/%7e/{key}?a=b&c={key}",
        "http://10.0.0.1?{key}",
        "https://[::1]/{key}",
        "http://a/b:c@d/{key}!$&'()*+,;=",
    ] {
        assert_eq!(check(url), Ok(()), "{url}");
    }
    for (url, why) in [
        ("", "begins with neither http:// nor https://"),
        ("ftp://host/{key}", "begins with neither http:// nor https://"),
        ("{key}://host/", "begins with neither http:// nor https://"),
        ("/scores/{key}", "begins with neither http:// nor https://"),
        ("http:///{key}", "has no host"),
        ("http://:80/{key}", "has no host"),
        ("http://{key}/", "has {key} in its host or port, which are the same for all keys"),
        ("http://{key}.host/{key}", "has {key} in its host or port, which are the same for all keys"),
        ("http://host:{key}/", "has {key} in its host or port, which are the same for all keys"),
        ("http://host/", "has no {key}"),
        ("http://host", "has no {key}"),
        ("http://host/{Key}", "has a brace that is not of {key}"),
        ("http://host/{{key}}", "has a brace that is not of {key}"),
        ("http://host/{key}#x", "has a fragment (#), which is never sent"),
        (
            "http://me:secret@host/{key}",
            "has a user name or a password, which bearer-token-file and headers are for",
        ),
        ("http://host:0/{key}", "has a port that is not from 1 to 65535"),
        ("http://host:65536/{key}", "has a port that is not from 1 to 65535"),
        ("http://host:+1/{key}", "has a port that is not from 1 to 65535"),
        ("http://host:/{key}", "has a port that is not from 1 to 65535"),
        ("http://::1/{key}", "has a host of other than letters, digits, -, . and _"),
        ("http://[1]/{key}", "has brackets without an IPv6 address"),
        ("http://ho%73t/{key}", "has a host of other than letters, digits, -, . and _"),
        ("https://ho..st/{key}", "has a host that no certificate can name"),
        ("http://h\u{f6}st/{key}", "has characters that must be percent-encoded"),
        ("http://host/a b/{key}", "has characters that must be percent-encoded"),
        ("http://host\\evil/{key}", "has characters that must be percent-encoded"),
        ("http://host/{key}\r\nX: y", "has characters that must be percent-encoded"),
        ("http://host/%2{key}", "has a % without two hexadecimal digits"),
        ("http://host/%{key}", "has a % without two hexadecimal digits"),
        ("http://host/a/../{key}", "has a . or .. between slashes"),
        ("http://host/%2E%2e/{key}", "has a . or .. between slashes"),
    ] {
        let error = check(url).expect_err(url);
        assert!(error.starts_with(&format!("http: {why} (allowed: http:// or https://, ")), "{url}: {error}");
        assert!(!error.contains("secret"));
    }
}

#[tokio::test]
async fn headers_are_sent_and_checked() {
    let server = Server::start().await;
    let with = |headers: &[(&str, &str)]| Options {
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..server.options()
    };
    let http =
        Http::new(&with(&[("X-Tenant", "a"), ("X-Tenant", "b"), ("User-Agent", "me")])).expect("valid");
    let (_, (_client, asked)) = join!(http.fetch(b"k"), server.answer_one(ok("1")));
    assert!(
        asked.contains("\r\nx-tenant: a\r\nx-tenant: b\r\n") && asked.contains("\r\nuser-agent: me\r\n"),
        "{asked}"
    );

    let check = |name, value| Http::check(&with(&[(name, value)])).expect_err("refused").to_string();
    let error = check("X Tenant", "secret");
    assert!(error.starts_with("headers: \"X Tenant\" is no name of a header (allowed: "), "{error}");
    let error = check("X-Tenant", "secret\r\nX: y");
    assert!(error.starts_with("headers: \"X-Tenant\" has a value that cannot be sent (allowed: "), "{error}");
    for reserved in ["Host", "Connection", "content-length", "Transfer-Encoding", "Keep-Alive"] {
        let error = check(reserved, "secret");
        assert!(error.starts_with(&format!("headers: {reserved:?} is set by the connection")), "{error}");
    }
}

#[tokio::test]
async fn redirects_stay_on_the_site() {
    let server = Server::start().await;
    let http = server.http();
    let host = server.host();
    let redirect =
        |status: u16, to: &str| format!("HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    let mut client = {
        let (fetched, (client, _)) = join!(http.fetch(b"k"), server.answer_one(ok("1")));
        assert!(matches!(fetched, Ok(Fetched::Found(_))));
        client
    };
    for (status, to, next) in [
        (301, "/a/b?c=d#e".to_owned(), "/a/b?c=d"),
        (302, format!("http://{host}/x"), "/x"),
        (303, format!("HTTP://{host}"), "/"),
        (307, format!("//{host}?q"), "/?q"),
        (308, "../up/./x/../y".to_owned(), "/up/y"),
        (302, "next".to_owned(), "/scores/next"),
        (302, "../../../..".to_owned(), "/"),
        (302, "?q=a:b//c".to_owned(), "/scores/k?q=a:b//c"),
        (302, "//".to_owned() + &host + "//evil/", "//evil/"),
    ] {
        let serve = async {
            client.answer(&redirect(status, &to)).await;
            client.answer(ok("there")).await
        };
        let (fetched, asked) = join!(http.fetch(b"k"), serve);
        assert!(matches!(fetched, Ok(Fetched::Found(loaded)) if loaded.value == "there"), "{to}");
        assert!(asked.starts_with(&format!("GET {next} HTTP/1.1\r\n")), "{to}: {asked}");
    }
    let elsewhere = "which is not followed";
    for to in [
        "http://evil/".to_owned(),
        "//evil/".to_owned(),
        format!("https://{host}/"),
        format!("http://me@{host}/"),
        format!("http://{host}.evil/"),
        "http://127.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http:relative".to_owned(),
    ] {
        let answer = redirect(302, &to);
        // Its connection is closed, as the rest of its answer is of no interest.
        let (fetched, _) = join!(http.fetch(b"k"), client.answer(&answer));
        let Ok(Fetched::Refused(why)) = fetched else { panic!("followed to {to}") };
        assert!(why.starts_with(&format!("{host}: 302 Found to ")) && why.ends_with(elsewhere), "{why}");
        client = server_again(&server, &http).await;
    }
    let (fetched, _) = join!(http.fetch(b"k"), client.answer("HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n"));
    let why = format!("{host}: 302 Found without a Location, which is not followed");
    assert_eq!(fetched, Ok(Fetched::Refused(why)));
}

/// A new connection, which was used once.
async fn server_again(server: &Server, http: &Http) -> super::server::Client {
    let (fetched, (client, _)) = join!(http.fetch(b"k"), server.answer_one(ok("1")));
    assert!(matches!(fetched, Ok(Fetched::Found(_))));
    client
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start().await;
    let http = server.http();
    let answer = "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 4\r\n\r\nbody";
    let serve = async {
        let (mut client, _) = server.answer_one(answer).await;
        for _ in 0..5 {
            client.answer(answer).await;
        }
        client
    };
    let (fetched, _client) = join!(http.fetch(b"k"), serve);
    assert_eq!(fetched, Ok(Fetched::Refused(format!("{}: more than 5 redirects", server.host()))));
}
