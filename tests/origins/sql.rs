//! Values from PostgreSQL and MariaDB.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use filbert::origin::sql::{Options, Sql};
use filbert::origin::{Failed, Fetched, Loaded, Origin};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::certificates::Authority;
use crate::support::mariadb::MariaDb;
use crate::support::postgres::Postgres;

fn options(query: &str, url: &str) -> Options {
    Options {
        query: query.to_owned(),
        url: url.to_owned(),
        password_file: None,
        connections: 2,
        value_max: 100,
        connect_timeout: Duration::from_secs(10),
    }
}

fn asks(query: &str, url: &str) -> Sql {
    Sql::new(&options(query, url)).expect("valid")
}

fn found(value: impl AsRef<[u8]>, ttl_secs: Option<u64>) -> Fetched {
    let ttl = ttl_secs.map(Duration::from_secs);
    Fetched::Found(Loaded { value: value.as_ref().to_vec().into(), ttl, ..Loaded::default() })
}

async fn fetched(sql: &Sql, key: impl AsRef<[u8]>) -> Fetched {
    sql.fetch(key.as_ref()).await.expect("the database answers")
}

/// What is fetched as soon as the database answers again.
async fn fetched_again(sql: &Sql, key: &str) -> Fetched {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match sql.fetch(key.as_bytes()).await {
            Ok(fetched) => return fetched,
            Err(failed) => assert!(Instant::now() < deadline, "{failed}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the refusal of a key, or of the query, says behind the place of the database.
async fn refused(query: &str, url: &str, key: Option<&str>) -> String {
    let sql = asks(query, url);
    let failed = match key {
        Some(key) => sql.fetch(key.as_bytes()).await.expect_err(query),
        None => sql.prepare().await.expect_err(query),
    };
    why(&failed.0, url)
}

/// Likewise, where it is a matter of the key alone, and no failure of the database.
async fn refused_key(query: &str, url: &str, key: &str) -> String {
    match asks(query, url).fetch(key.as_bytes()).await {
        Ok(Fetched::Refused(told)) => why(&told, url),
        Ok(other) => panic!("{query}: {other:?}"),
        Err(Failed(told)) => panic!("{query}: failed: {told}"),
    }
}

/// What is said behind the place of the database.
fn why(told: &str, url: &str) -> String {
    assert!(!told.contains("secret"), "{told}");
    let place = format!(
        "127.0.0.1:{}/",
        url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).expect("a port").0
    );
    let (_, rest) = told.split_once(&place).unwrap_or_else(|| panic!("{told} names {place}"));
    rest.split_once(": ").expect("there is more than the place").1.to_owned()
}

/// Each expression with the value that is read from it.
async fn values_are(url: &str, parameter: &str, cases: &[(&str, &[u8])]) {
    for (expression, wanted) in cases {
        let sql = asks(&format!("select {expression} where '' <> {parameter}"), url);
        assert_eq!(fetched(&sql, "any").await, found(wanted, None), "{expression}");
    }
}

/// Each expression with the time to live, in seconds, that is read from it.
async fn times_are(url: &str, parameter: &str, cases: &[(&str, Option<u64>)]) {
    for &(expression, wanted) in cases {
        let sql = asks(&format!("select 'v', {expression} where '' <> {parameter}"), url);
        assert_eq!(fetched(&sql, "any").await, found("v", wanted), "{expression}");
    }
}

const TABLES: &str = "
    create table scores (name varchar(250) primary key, score int, ttl int);
    insert into scores values ('ann', 600, 60), ('bob', null, 60), ('Zoë', 7, null), ('gone', 1, -5);
";

const HOSTILE: [&str; 5] = ["'; drop table scores; --", "' or '1' = '1", "$1", "?", "\\"];

async fn scores_are_told(sql: &Sql) {
    assert_eq!(sql.prepare().await, Ok(()));
    assert_eq!(fetched(sql, "ann").await, found("600", Some(60)));
    assert_eq!(fetched(sql, "Zoë").await, found("7", None));
    assert_eq!(fetched(sql, "gone").await, found("1", Some(0)));
    for absent in ["bob", "nobody", ""].into_iter().chain(HOSTILE) {
        assert_eq!(fetched(sql, absent).await, Fetched::Absent, "{absent:?}");
    }
    assert_eq!(fetched(sql, [0xff; 250]).await, Fetched::Absent);
    assert_eq!(fetched(sql, b"ann\0").await, Fetched::Absent);
    assert_eq!(fetched(sql, "ann").await, found("600", Some(60)));
}

/// Many more questions than connections, then as many that are given up, then one that is answered.
async fn nobody_is_in_the_way(query: &str, slow: &str, url: &str) {
    let sql = Arc::new(asks(query, url));
    let mut answers = JoinSet::new();
    for _ in 0..200 {
        let sql = Arc::clone(&sql);
        answers.spawn(async move { assert_eq!(fetched(&sql, "ann").await, found("600", Some(60))) });
    }
    while let Some(answer) = answers.join_next().await {
        answer.expect("the same as alone");
    }
    let sql = asks(slow, url);
    let start = Instant::now();
    for _ in 0..5 {
        let given_up = timeout(Duration::from_millis(100), sql.fetch(b"slow")).await;
        assert!(given_up.is_err(), "it takes a minute");
    }
    assert_eq!(fetched(&sql, "quick").await, found("quick", None));
    assert!(start.elapsed() < Duration::from_secs(30), "nobody waits for those that were given up");
}

#[tokio::test]
async fn postgres_tells_values_of_many_types() {
    let postgres = Postgres::start();
    postgres.run(TABLES);
    postgres.run("create type mood as enum ('sad', 'happy'); create domain short as varchar(5)");
    let url = postgres.url();
    scores_are_told(&asks("select score, ttl from scores where name = $1", &url)).await;
    nobody_is_in_the_way(
        "select score, ttl from scores where name = $1",
        "select $1::text from (select pg_sleep(case when $1 = 'slow' then 60 else 0 end)) as pause",
        &url,
    )
    .await;

    let cases: [(&str, &[u8]); 24] = [
        ("'text'::text", b"text"),
        ("''::varchar", b""),
        ("'é'::short", "é".as_bytes()),
        ("'ab'::char(3)", b"ab "),
        ("'name'::name", b"name"),
        ("'happy'::mood", b"happy"),
        ("'\\x00ff27'::bytea", b"\x00\xff'"),
        ("(-32768)::int2", b"-32768"),
        ("7", b"7"),
        ("9223372036854775807", b"9223372036854775807"),
        ("4294967295::oid", b"4294967295"),
        ("0.1::float4", b"0.1"),
        ("1e20::float8", b"100000000000000000000"),
        ("'-Infinity'::float8", b"-Infinity"),
        ("-12345678901234567890.0123400", b"-12345678901234567890.0123400"),
        ("1e-10::numeric", b"0.0000000001"),
        ("10000::numeric", b"10000"),
        ("100000000.50::numeric", b"100000000.50"),
        ("'NaN'::numeric", b"NaN"),
        ("true", b"1"),
        ("false", b"0"),
        ("'{\"a\": 1}'::json", b"{\"a\": 1}"),
        ("'{\"a\":1}'::jsonb", b"{\"a\": 1}"),
        ("'0D4BF2A0-0000-4000-8000-00000000000a'::uuid", b"0d4bf2a0-0000-4000-8000-00000000000a"),
    ];
    values_are(&url, "$1", &cases).await;
    let times = [
        ("60", Some(60)),
        ("60::int2", Some(60)),
        ("60::int8", Some(60)),
        ("0", Some(0)),
        ("-1", Some(0)),
        ("59.99", Some(59)),
        ("59.99::float8", Some(59)),
        ("extract(epoch from interval '1 minute 30.5 seconds')", Some(90)),
        ("null::int", None),
    ];
    times_are(&url, "$1", &times).await;

    for (expression, name) in [("now()", "TIMESTAMPTZ"), ("current_date", "DATE"), ("array[1]", "INT4[]")] {
        let why = refused(&format!("select {expression} where '' <> $1"), &url, Some("any")).await;
        assert_eq!(
            why,
            format!("the value is of type {name}, which is not read: cast it to text in the query")
        );
    }
    let why = refused("select 1, 'soon' where '' <> $1", &url, Some("any")).await;
    assert_eq!(why, "the second column, the ttl in seconds, is text or bytes: needs a number");
    let why = refused_key("select repeat('x', 101) where '' <> $1", &url, "any").await;
    assert_eq!(why, "a value of 101 bytes, over the limit of 100");
}

#[tokio::test]
async fn postgres_says_what_a_key_has_to_be() {
    let postgres = Postgres::start();
    postgres.run(
        "create table small (id int2, v text); insert into small values (7, 'seven'), (-7, 'minus');
        create table large (id int8, v text); insert into large values (9223372036854775807, 'most');
        create table bytes (id bytea, v text); insert into bytes values ('\\xff00', 'raw'), ('ann', 'text');
        create table ids (id uuid, v text);
        insert into ids values ('0d4bf2a0-0000-4000-8000-00000000000a', 'here');",
    );
    let url = postgres.url();
    let small = asks("select v from small where id = $1", &url);
    assert_eq!(fetched(&small, "7").await, found("seven", None));
    assert_eq!(fetched(&small, "-7").await, found("minus", None));
    for absent in ["8", "07", "+7", " 7", "7.0", "70000", "", "seven", "7\0", "-0"] {
        assert_eq!(fetched(&small, absent).await, Fetched::Absent, "{absent:?}");
    }
    assert_eq!(fetched(&small, [0xff]).await, Fetched::Absent);
    let large = asks("select v from large where id = $1", &url);
    assert_eq!(fetched(&large, "9223372036854775807").await, found("most", None));
    assert_eq!(fetched(&large, "9223372036854775808").await, Fetched::Absent);
    let bytes = asks("select v from bytes where id = $1", &url);
    assert_eq!(fetched(&bytes, [0xff, 0]).await, found("raw", None));
    assert_eq!(fetched(&bytes, "ann").await, found("text", None));
    assert_eq!(fetched(&bytes, [0xff; 250]).await, Fetched::Absent);
    let ids = asks("select v from ids where id = $1", &url);
    assert_eq!(fetched(&ids, "0d4bf2a0-0000-4000-8000-00000000000a").await, found("here", None));
    assert_eq!(fetched(&ids, "0D4BF2A0-0000-4000-8000-00000000000A").await, Fetched::Absent);
    assert_eq!(fetched(&ids, "nonsense").await, Fetched::Absent);
    for sql in [small, large, bytes, ids] {
        assert_eq!(sql.prepare().await, Ok(()));
    }

    let refusals = [
        ("select v from nowhere where id = $1", "relation \"nowhere\" does not exist"),
        ("selec v from small where id = $1", "syntax error at or near \"selec\""),
        ("delete from small where id = $1", "the query answers without a column: needs the value"),
        (
            "select v from small where now() > $1",
            "the parameter is of type TIMESTAMPTZ, which a key cannot be: write $1::text in the query",
        ),
        ("select $1 is null", "could not determine data type of parameter $1"),
    ];
    for (query, wanted) in refusals {
        assert_eq!(refused(query, &url, None).await, wanted);
    }
    // The scanner sees none that the database does not.
    let why = refused_key("select '$1' as a$1 where 1 / length($1) = 0", &url, "").await;
    assert_eq!(why, "division by zero");
    // Errors in the data of one key are no failures.
    let why = refused_key("select v from small where id = ($1::text)::int", &url, "99999999999").await;
    assert_eq!(why, "value \"99999999999\" is out of range for type integer");
}

#[tokio::test]
async fn postgres_is_found_again() {
    let mut postgres = Postgres::start();
    postgres.run(TABLES);
    let query = "select score, ttl from scores where name = $1";
    let dir = TempDir::new().expect("a temporary directory can be made");
    let password_file = dir.path().join("password");
    fs::write(&password_file, "wrong\n").expect("the directory is writable");
    let with_file = Options {
        password_file: Some(password_file.clone()),
        ..options(query, &postgres.url_without_password())
    };
    let failed = Sql::new(&with_file).expect("valid").fetch(b"ann").await.expect_err("another password");
    let place = format!("postgres://127.0.0.1:{}/postgres", postgres.port());
    assert_eq!(failed.0, format!("{place}: password authentication failed for user \"filbert\""));
    fs::write(&password_file, format!("{}\n", postgres.password())).expect("the directory is writable");
    let sql = Sql::new(&with_file).expect("valid");
    assert_eq!(fetched(&sql, "ann").await, found("600", Some(60)));
    assert_eq!(connections(&postgres), 1, "one is used again and again");

    // What is prepared no longer fits: one question fails, and the next does not.
    postgres.run("alter table scores alter column score type text using 'n' || score");
    let failed = sql.fetch(b"ann").await.expect_err("prepared for numbers");
    assert_eq!(failed.0, format!("{place}: cached plan must not change result type"));
    assert_eq!(fetched(&sql, "ann").await, found("n600", Some(60)));

    postgres.stop();
    let started_without = asks(query, &postgres.url());
    sql.fetch(b"ann").await.expect_err("it is gone");
    let failed = sql.fetch(b"ann").await.expect_err("it is gone");
    assert_eq!(failed.0, format!("{place}: Connection refused (os error 111)"));
    started_without.prepare().await.expect_err("it is gone");
    postgres.restart();
    for sql in [sql, started_without] {
        assert_eq!(fetched_again(&sql, "ann").await, found("n600", Some(60)));
    }
}

fn connections(postgres: &Postgres) -> usize {
    let count = "select count(*) from pg_stat_activity \
        where backend_type = 'client backend' and pid <> pg_backend_pid()";
    postgres.run(count).trim().parse().expect("a number")
}

#[tokio::test]
async fn postgres_is_reached_through_tls() {
    let postgres = Postgres::start();
    postgres.run(TABLES);
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign_for("postgres", &["127.0.0.1"]);
    let mut paths = Vec::new();
    for name in ["postgres.pem", "postgres.key"] {
        let text = fs::read(authority.path(name)).expect("it was written");
        paths.push(postgres.put(name, &text).display().to_string());
    }
    postgres.run(&format!("alter system set ssl_cert_file = '{}'", paths[0]));
    postgres.run(&format!("alter system set ssl_key_file = '{}'", paths[1]));
    postgres.run("alter system set ssl = on");
    postgres.run("select pg_reload_conf()");

    let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid() and '' <> $1";
    let url = |settings: &str| format!("{}?{settings}", postgres.url());
    // The setting is read by those who connect once the server has seen it.
    let required = asks(query, &url("sslmode=require"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(failed) = required.fetch(b"any").await {
        assert!(Instant::now() < deadline, "{failed}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let trusted = format!("sslmode=verify-full&sslrootcert={}", authority.path("ca.pem").display());
    for (settings, wanted) in [("sslmode=disable", "0"), ("", "1"), ("sslmode=require", "1"), (&trusted, "1")]
    {
        assert_eq!(fetched(&asks(query, &url(settings)), "any").await, found(wanted, None), "{settings}");
    }
    let untrusted = format!("sslmode=verify-full&sslrootcert={}", other.path("ca.pem").display());
    let failed = asks(query, &url(&untrusted)).fetch(b"any").await.expect_err("signed by somebody else");
    assert!(failed.0.contains("certificate"), "{failed}");
}

#[tokio::test]
async fn mariadb_tells_values_of_many_types() {
    let mariadb = MariaDb::start();
    mariadb.run(TABLES);
    let url = mariadb.url();
    let query = "select score, ttl from scores where name = ?";
    scores_are_told(&asks(query, &url)).await;
    let slow = "select name from (select ? as name) as asked where if(name = 'slow', sleep(60), 0) = 0";
    nobody_is_in_the_way(query, slow, &url).await;

    mariadb.run(
        "create table kinds (tiny tinyint, flag boolean, small smallint unsigned, medium mediumint, whole int,
            large bigint unsigned, bits bit(10), born year, single float, precise double, price decimal(20, 4),
            fixed char(5), raw varbinary(5), plain text, pile blob, doc json, mood enum ('sad', 'happy'),
            many set ('a', 'b'), day date, instant timestamp);
        insert into kinds values (-128, true, 65535, -8388608, -2147483648, 18446744073709551615, b'1000000001', 1999,
            0.1, 1e20, -1234567890.5, 'ab', x'00ff27', 'é', x'ff', '{\"a\": 1}', 'happy', 'a,b', '2026-01-01', now());",
    );
    let kinds: [(&str, &[u8]); 18] = [
        ("tiny", b"-128"),
        ("flag", b"1"),
        ("small", b"65535"),
        ("medium", b"-8388608"),
        ("whole", b"-2147483648"),
        ("large", b"18446744073709551615"),
        ("bits", b"513"),
        ("born", b"1999"),
        ("single", b"0.1"),
        ("precise", b"100000000000000000000"),
        ("price", b"-1234567890.5000"),
        ("fixed", b"ab"),
        ("raw", b"\x00\xff'"),
        ("plain", "é".as_bytes()),
        ("pile", b"\xff"),
        ("doc", b"{\"a\": 1}"),
        ("mood", b"happy"),
        ("many", b"a,b"),
    ];
    for (column, wanted) in kinds {
        let sql = asks(&format!("select {column} from kinds where '' <> ?"), &url);
        assert_eq!(fetched(&sql, "any").await, found(wanted, None), "{column}");
    }
    let cases: [(&str, &[u8]); 4] = [("1 + 1", b"2"), ("1.50", b"1.50"), ("'text'", b"text"), ("true", b"1")];
    values_are(&url, "?", &cases).await;
    let times = [
        ("60", Some(60)),
        ("cast(60 as unsigned)", Some(60)),
        ("0", Some(0)),
        ("-1", Some(0)),
        ("59.99", Some(59)),
        ("59.99e0", Some(59)),
        ("null", None),
    ];
    times_are(&url, "?", &times).await;

    for (column, name) in [("day", "DATE"), ("instant", "TIMESTAMP")] {
        let why = refused(&format!("select {column} from kinds where '' <> ?"), &url, Some("any")).await;
        assert_eq!(
            why,
            format!("the value is of type {name}, which is not read: cast it to text in the query")
        );
    }
    let why = refused_key("select repeat('x', 101) where '' <> ?", &url, "any").await;
    assert_eq!(why, "a value of 101 bytes, over the limit of 100");
}

#[tokio::test]
async fn mariadb_compares_keys_as_it_does() {
    let mariadb = MariaDb::start();
    mariadb.run(
        "create table numbers (id int, v text); insert into numbers values (7, 'seven');
        create table bytes (id varbinary(250), v text); insert into bytes values (x'ff00', 'raw'), ('ann', 'text');",
    );
    let url = mariadb.url();
    let numbers = asks("select v from numbers where id = ?", &url);
    assert_eq!(fetched(&numbers, "7").await, found("seven", None));
    assert_eq!(fetched(&numbers, "07").await, found("seven", None));
    assert_eq!(fetched(&numbers, "8").await, Fetched::Absent);
    let bytes = asks("select v from bytes where id = ?", &url);
    assert_eq!(fetched(&bytes, [0xff, 0]).await, found("raw", None));
    assert_eq!(fetched(&bytes, "ann").await, found("text", None));
    assert_eq!(fetched(&bytes, "ANN").await, Fetched::Absent);

    let several = asks("select v from bytes where '' <> ? order by v desc", &url);
    for _ in 0..3 {
        assert_eq!(fetched(&several, "any").await, found("text", None));
    }
    let why = refused("select v from nowhere where id = ?", &url, None).await;
    assert_eq!(why, "Table 'filbert.nowhere' doesn't exist");
    let why = refused("selec v from numbers where id = ?", &url, None).await;
    assert!(why.starts_with("You have an error in your SQL syntax"), "{why}");
    let why = refused("delete from numbers where id = ?", &url, None).await;
    assert_eq!(why, "the query answers without a column: needs the value");
}

#[tokio::test]
async fn mariadb_is_found_again() {
    let mut mariadb = MariaDb::start();
    mariadb.run(TABLES);
    let query = "select score, ttl from scores where name = ?";
    let dir = TempDir::new().expect("a temporary directory can be made");
    let password_file = dir.path().join("password");
    fs::write(&password_file, mariadb.password()).expect("the directory is writable");
    let with_file =
        Options { password_file: Some(password_file), ..options(query, &mariadb.url_without_password()) };
    let sql = Sql::new(&with_file).expect("valid");
    assert_eq!(fetched(&sql, "ann").await, found("600", Some(60)));
    let wrong = mariadb.url().replace(mariadb.password(), "wrong");
    let why = refused(query, &wrong, Some("ann")).await;
    assert!(why.starts_with("Access denied for user 'filbert'@"), "{why}");

    mariadb.stop();
    sql.fetch(b"ann").await.expect_err("it is gone");
    let place = format!("mysql://127.0.0.1:{}/filbert", mariadb.port());
    let failed = sql.fetch(b"ann").await.expect_err("it is gone");
    assert_eq!(failed.0, format!("{place}: Connection refused (os error 111)"));
    mariadb.restart();
    assert_eq!(fetched_again(&sql, "ann").await, found("600", Some(60)));
}
