use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::origin::sql::scanner::{self, Dialect};
use crate::origin::sql::{Options, Sql};
use crate::origin::{Failed, Fetched, Loaded, Origin};

const SCORES: &str = "
    create table scores (name text primary key, score, ttl);
    insert into scores values
        ('ann', '600', 60), ('bob', 7, null), ('real', 1.5, 59.9), ('blob', x'00ff', -3), ('null', null, 60),
        ('empty', '', 0), ('Zoë', 'é', 1e300), ('text ttl', 'x', 'soon'), ('long', '123456789012345678901', null);
    insert into scores values (x'ff', 'by bytes', null);
";

const QUERY: &str = "select score, ttl from scores where name = $1";

/// A database in a file.
struct Database {
    dir: TempDir,
}

impl Database {
    async fn new(sql: &str) -> Self {
        let database = Self { dir: TempDir::new().expect("a temporary directory can be made") };
        database.run(sql).await;
        database
    }

    async fn run(&self, sql: &str) {
        let path = self.dir.path().join("scores.db");
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.connect().await.expect("the file can be made");
        connection.execute(AssertSqlSafe(sql.to_owned())).await.expect("it is SQL");
        connection.close().await.expect("all is written");
    }

    fn options(&self, query: &str) -> Options {
        options(query, &format!("sqlite://{}/scores.db", self.dir.path().display()))
    }

    fn asks(&self, query: &str) -> Sql {
        Sql::new(&self.options(query)).expect("valid")
    }
}

fn options(query: &str, url: &str) -> Options {
    Options {
        query: query.to_owned(),
        url: url.to_owned(),
        password_file: None,
        connections: 2,
        value_max: 20,
        connect_timeout: Duration::from_secs(5),
    }
}

fn found(value: &[u8], ttl_secs: Option<u64>) -> Result<Fetched, Failed> {
    let ttl = ttl_secs.map(Duration::from_secs);
    Ok(Fetched::Found(Loaded { value: value.to_vec().into(), ttl, ..Loaded::default() }))
}

fn refused(options: &Options) -> String {
    Sql::check(options).expect_err("it cannot be used").to_string()
}

#[test]
fn one_parameter_is_found_wherever_it_stands() {
    let good = [
        (Dialect::Postgres, "select v from t where k = $1"),
        (Dialect::Postgres, "select v from t where k = $1 or other = $1;"),
        (
            Dialect::Postgres,
            "select '?', '$2', e'\\'$2', \"$2\", $$ $2 $$, $a_b$ $2 $$ $c$ $a_b$ from t where k=$1",
        ),
        (Dialect::Postgres, "select a$2, v -- $2 ;\n from t /* $2 /* $3 */ $4 */ where k = $1 ; -- done"),
        (Dialect::Postgres, "select v from t where data ? 'a' and k = $1::bigint"),
        (Dialect::Postgres, "select 'a\\' from t where k = $1"),
        (Dialect::Postgres, "select 'it''s $2' from t where k = ($1)"),
        (Dialect::MySql, "select v from t where k = ?"),
        (Dialect::MySql, "select '?', \"?\", `?`, '\\'?', 'a''?' from t where k = ? # ?\n -- ?"),
        (Dialect::MySql, "select 5--3, $1, v from t where k = ? /* ? */ limit 1"),
        (Dialect::MySql, "select 1 /*! from t where k = ? */"),
        (Dialect::Sqlite, "select v from t where k = ?"),
        (Dialect::Sqlite, "select v, $1 from t where k = $1"),
        (
            Dialect::Sqlite,
            "select '?', \"?\", `?`, [? $2], 'a''?', a$2 from t where k = ? -- ?\n /* ? /* ? */;",
        ),
    ];
    for (dialect, query) in good {
        assert_eq!(scanner::check(query, dialect), Ok(()), "{query}");
    }
}

#[test]
fn other_queries_are_refused() {
    let bad = [
        (Dialect::Postgres, "select v from t"),
        (Dialect::Postgres, ""),
        (Dialect::Postgres, "select v from t where k = ?"),
        (Dialect::Postgres, "select v from t where k = '$1'"),
        (Dialect::Postgres, "select v from t where k = $1 and l = $2"),
        (Dialect::Postgres, "select v from t where k = $2"),
        (Dialect::Postgres, "select v from t where k = $11"),
        (Dialect::Postgres, "select v from t where k = $$ $1"),
        (Dialect::Postgres, "select v from t where k = 'unfinished $1"),
        (Dialect::MySql, "select v from t where k = $1"),
        (Dialect::MySql, "select v from t where k = ? and l = ?"),
        (Dialect::MySql, "select v from t # where k = ?"),
        (Dialect::MySql, "select 1 /*! from t where k = ? */ + ?"),
        (Dialect::Sqlite, "select v from t where k = ? and l = ?"),
        (Dialect::Sqlite, "select v from t where k = ? and l = $1"),
        (Dialect::Sqlite, "select v from t where k = ? and l = $2"),
        (Dialect::Sqlite, "select v from t where k = ?1"),
        (Dialect::Sqlite, "select v from t where k = :name"),
        (Dialect::Sqlite, "select v from t where k = @name and l = $1"),
        (Dialect::Sqlite, "select v from t where k = $name"),
    ];
    for (dialect, query) in bad {
        let why = scanner::check(query, dialect).expect_err(query);
        assert!(why.starts_with("needs exactly one parameter, "), "{query}: {why}");
    }
    for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::Sqlite] {
        let parameter = if dialect == Dialect::MySql { "?" } else { "$1" };
        let two = format!("select v from t where k = {parameter}; delete from t");
        let why = scanner::check(&two, dialect).expect_err("two statements");
        assert_eq!(why, "must be one statement: there is more after a semicolon");
    }
}

#[test]
fn a_scan_ends_whatever_it_reads() {
    let pieces = [
        "'", "\"", "`", "[", "]", "$", "$a$", "1", "?", ":", "@", "\\", "--", "#", "/*", "*/", "e", ";",
        "\n", "ä",
    ];
    let mut random = 1_u64;
    for _ in 0..20_000 {
        let mut query = String::new();
        for _ in 0..12 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            query.push_str(pieces[usize::try_from(random >> 33).expect("31 bits") % pieces.len()]);
        }
        for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::Sqlite] {
            let _ = scanner::check(&query, dialect);
        }
    }
}

#[test]
fn what_is_wrong_with_the_options_is_told() {
    let good = options(QUERY, "sqlite:scores.db");
    assert_eq!(Sql::check(&good), Ok(()));
    let told = refused(&options("select 1", &good.url));
    assert_eq!(
        told,
        "sql: needs exactly one parameter, $1 (as often as it is needed) or a single ?, where the key goes"
    );
    let told = refused(&options(QUERY, "mysql://u@h/db"));
    assert_eq!(told, "sql: needs exactly one parameter, ?, where the key goes");
    let told = refused(&options(QUERY, "oracle://u:secret@h/db"));
    assert_eq!(told, "url: allowed: postgres://..., mysql://..., mariadb://..., sqlite:...");
    let told = refused(&options(QUERY, "postgres://u:secret@h:port/db"));
    assert_eq!(told, "url: invalid port number");
    let told = refused(&options(QUERY, "sqlite::memory:"));
    assert_eq!(told, "url: a database in memory has nothing to tell: needs a file");
    let told = refused(&options(QUERY, "sqlite:"));
    assert_eq!(told, "url: needs a file: sqlite:///directory/file, sqlite:file");
    let told = refused(&options(QUERY, "sqlite:a.db?mode=none"));
    assert_eq!(told, "url: unknown value \"none\" for `mode`");
    assert_eq!(refused(&Options { connections: 0, ..good }), "connections: needs at least one");
}

#[test]
fn the_file_of_the_password_is_read_at_once() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("password");
    let with = |url: &str| Options { password_file: Some(path.clone()), ..options(QUERY, url) };
    let url = "postgres://u@h/db";
    let shown = path.display();
    assert_eq!(
        refused(&with(url)),
        format!("password-file: {shown}: No such file or directory (os error 2)")
    );
    fs::write(&path, "\n").expect("the directory is writable");
    assert_eq!(refused(&with(url)), format!("password-file: {shown}: empty: needs the password"));
    fs::write(&path, "secret\n").expect("the directory is writable");
    assert_eq!(Sql::check(&with(url)), Ok(()));
    for url in ["postgres://u:old@h/db", "postgres://h/db?user=u&password=old"] {
        let told = refused(&with(url));
        assert_eq!(told, "password-file: there is a password in the url, too: allowed is one of them");
    }
    assert_eq!(refused(&with("sqlite:a.db")), "password-file: SQLite knows no passwords");
}

#[test]
fn options_are_shown_without_the_password() {
    let shown = format!("{:?}", options(QUERY, "postgres://ann:secret@h/db?password=secret"));
    assert!(shown.contains("postgres://ann:...@h/db?...") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn sqlite_tells_values_and_times() {
    let database = Database::new(SCORES).await;
    let sql = database.asks(QUERY);
    assert_eq!(sql.prepare().await, Ok(()));
    assert_eq!(sql.fetch(b"ann").await, found(b"600", Some(60)));
    assert_eq!(sql.fetch(b"bob").await, found(b"7", None));
    assert_eq!(sql.fetch(b"real").await, found(b"1.5", Some(59)));
    assert_eq!(sql.fetch(b"blob").await, found(b"\x00\xff", Some(0)));
    assert_eq!(sql.fetch(b"empty").await, found(b"", Some(0)));
    assert_eq!(sql.fetch("Zoë".as_bytes()).await, found("é".as_bytes(), Some(u32::MAX.into())));
    assert_eq!(sql.fetch(b"\xff").await, found(b"by bytes", None));
    assert_eq!(sql.fetch(b"null").await, Ok(Fetched::Absent));
    assert_eq!(sql.fetch(b"nobody").await, Ok(Fetched::Absent));
    assert_eq!(sql.fetch(b"").await, Ok(Fetched::Absent));
    assert_eq!(sql.fetch(&[0xff; 250]).await, Ok(Fetched::Absent));
    let place = format!("sqlite:{}/scores.db", database.dir.path().display());
    let too_long = format!("{place}: a value of 21 bytes, over the limit of 20");
    assert_eq!(sql.fetch(b"long").await, Ok(Fetched::Refused(too_long)));
    let told = sql.fetch(b"text ttl").await.expect_err("no number").0;
    assert_eq!(
        told,
        format!("{place}: the second column, the ttl in seconds, is text or bytes: needs a number")
    );
}

#[tokio::test]
async fn one_column_is_enough_and_the_first_row_counts() {
    let database = Database::new(SCORES).await;
    let sql = database.asks("select score from scores where score = ?");
    assert_eq!(sql.fetch(b"600").await, found(b"600", None));
    let sql = database
        .asks("select 'first', 1, 'more' where $1 = $1 union all select 'second', 2, 'more' order by 1");
    assert_eq!(sql.fetch(b"x").await, found(b"first", Some(1)));
    let sql = database.asks("select null, 5 where $1 = 'x'");
    assert_eq!(sql.fetch(b"x").await, Ok(Fetched::Absent));
}

#[tokio::test]
async fn a_key_is_never_sql() {
    let database = Database::new(SCORES).await;
    let sql = database.asks(QUERY);
    for key in ["'; drop table scores; --", "' or '1' = '1", "$1", "?", "\0", "ann\0", "ann'--"] {
        assert_eq!(sql.fetch(key.as_bytes()).await, Ok(Fetched::Absent), "{key:?}");
    }
    assert_eq!(sql.fetch(b"ann").await, found(b"600", Some(60)));
    database.run("insert into scores values ('''; drop table scores; --', 'still there', null)").await;
    assert_eq!(sql.fetch(b"'; drop table scores; --").await, found(b"still there", None));
}

#[tokio::test]
async fn a_file_is_not_made_and_not_written() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("none.db");
    let url = format!("sqlite://{}", path.display());
    let sql = Sql::new(&options(QUERY, &url)).expect("valid");
    let told = sql.fetch(b"ann").await.expect_err("no file").0;
    assert_eq!(told, format!("sqlite:{}: unable to open database file", path.display()));
    assert!(sql.prepare().await.is_err() && !Path::new(&path).exists());

    let database = Database::new(SCORES).await;
    let writing = "insert into scores values ($1, 'new', null) returning score";
    let told = database.asks(writing).fetch(b"new").await.expect_err("opened for reading").0;
    assert!(told.ends_with(": attempt to write a readonly database"), "{told}");
    let options = database.options(writing);
    let sql = Sql::new(&Options { url: format!("{}?mode=rw", options.url), ..options }).expect("valid");
    assert_eq!(sql.fetch(b"new").await, found(b"new", None));
}

#[tokio::test]
async fn wrong_sql_is_told_at_the_start() {
    let database = Database::new(SCORES).await;
    let told = |query: &'static str| {
        let sql = database.asks(query);
        async move { sql.prepare().await.expect_err(query).0 }
    };
    assert!(
        told("select score frm scores where name = $1").await.ends_with(": near \"scores\": syntax error")
    );
    assert!(told("select score from none where name = $1").await.ends_with(": no such table: none"));
    let none = told("delete from scores where name = $1").await;
    assert!(none.ends_with(": the query answers without a column: needs the value"), "{none}");
}

#[tokio::test]
async fn a_table_may_come_and_change_while_it_runs() {
    let database = Database::new("create table other (a)").await;
    let sql = database.asks(QUERY);
    let told = sql.fetch(b"ann").await.expect_err("no table yet").0;
    assert!(told.ends_with(": no such table: scores"), "{told}");
    database.run(SCORES).await;
    assert_eq!(sql.fetch(b"ann").await, found(b"600", Some(60)));
    database.run("drop table scores; create table scores (name, ttl, score)").await;
    database.run("insert into scores values ('ann', 5, 'new')").await;
    assert_eq!(sql.fetch(b"ann").await, found(b"new", Some(5)));
}

/// Counts for many minutes, unless it is for `ann`.
const ENDLESS: &str = "select count(*) from (with recursive n(i) as (select 1 union all select i + 1 from n \
    where i < case when $1 = 'ann' then 3 else 100000000000 end) select i from n)";

#[tokio::test]
async fn questions_that_are_given_up_leave_room_for_others() {
    let database = Database::new(SCORES).await;
    let sql = database.asks(ENDLESS);
    let start = Instant::now();
    for _ in 0..5 {
        let given_up = timeout(Duration::from_millis(20), sql.fetch(b"endless")).await;
        assert!(given_up.is_err(), "it counts for longer");
    }
    assert_eq!(sql.fetch(b"ann").await, found(b"3", None));
    assert!(start.elapsed() < Duration::from_secs(60), "nobody waits for the count");
    // Their threads end, too.
    let deadline = Instant::now() + Duration::from_secs(60);
    while threads() > 0 {
        assert!(Instant::now() < deadline, "they count on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Threads of SQLite's connections that are at work, in other tests, too, which are soon done.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let runs = |stat: &String| stat.contains("(sqlx-sqlite") && stat.contains(") R ");
    names.filter(runs).count()
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let database = Database::new(SCORES).await;
    let options = Options { connect_timeout: Duration::from_secs(1), ..database.options(ENDLESS) };
    let sql = Sql::new(&options).expect("valid");
    let (first, second) = (sql.fetch(b"endless"), sql.fetch(b"endless"));
    let third = async {
        let told = sql.fetch(b"ann").await.expect_err("two are counting").0;
        assert!(told.ends_with(": all 2 connections were in use for 1s"), "{told}");
    };
    tokio::select! {
        // The two have the connections before the third asks for one.
        biased;
        _ = first => panic!("it counts for longer"),
        _ = second => panic!("it counts for longer"),
        () = third => {}
    }
    assert_eq!(sql.fetch(b"ann").await, found(b"3", None));
}

#[tokio::test]
async fn many_ask_at_the_same_time() {
    let database = Database::new(SCORES).await;
    let sql = database.asks(QUERY);
    let mut answers = tokio::task::JoinSet::new();
    let sql = std::sync::Arc::new(sql);
    for number in 0..200 {
        let sql = std::sync::Arc::clone(&sql);
        answers.spawn(async move {
            let key: &[u8] = if number % 2 == 0 { b"ann" } else { b"bob" };
            let wanted = if number % 2 == 0 { found(b"600", Some(60)) } else { found(b"7", None) };
            assert_eq!(sql.fetch(key).await, wanted);
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer.expect("the same as alone");
    }
}
