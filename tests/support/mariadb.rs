//! MariaDB servers on free ports, with a temporary directory, killed when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use crate::support::database::{ATTEMPTS, Home, printed, program};
use crate::support::site::Site;

const PACKAGE: &str = "mariadb-server";
const USER: &str = "filbert";
const PASSWORD: &str = "secret";
const DATABASE: &str = "filbert";

/// A MariaDB with a database and a user. It dies with the thread that started it, as a `Server` does.
pub struct MariaDb {
    child: Child,
    home: Home,
    port: u16,
}

impl MariaDb {
    /// Makes a database, starts a server and waits until it answers.
    ///
    /// # Panics
    ///
    /// If the programs are missing, or it does not start.
    pub fn start() -> MariaDb {
        let home = Home::new("mysql");
        let mut install = home.command(&server_program("mariadb-install-db"));
        install.arg("--no-defaults").arg(format!("--datadir={}", home.path("data").display()));
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
        install.args(["--innodb-flush-method=nosync", "--innodb-log-file-size=4M"]);
        printed("mariadb-install-db", &install.output().expect("setpriv starts"));
        let (child, port) = start(&home, None);
        let server = MariaDb { child, home, port };
        let output = mariadb(
            &server.home,
            "",
            &format!(
                "create database {DATABASE} character set utf8mb4;
            create user {USER} identified by '{PASSWORD}';
            grant all on {DATABASE}.* to {USER};",
            ),
        );
        printed("mariadb", &output);
        server
    }

    /// Where clients connect, with the user and the password.
    pub fn url(&self) -> String {
        format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The same without the password.
    pub fn url_without_password(&self) -> String {
        format!("mysql://{USER}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL, as root, and returns what it answered: a line a row, with tabs between columns.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn run(&self, sql: &str) -> String {
        printed("mariadb", &mariadb(&self.home, DATABASE, sql))
    }

    /// Kills it.
    pub fn stop(&mut self) {
        // Fails only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`MariaDb::stop`], with the same data and port.
    pub fn restart(&mut self) {
        self.child = start(&self.home, Some(self.port)).0;
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("--- last of MariaDB's log:\n{}", self.home.log());
        }
    }
}

fn start(home: &Home, port: Option<u16>) -> (Child, u16) {
    for _ in 0..ATTEMPTS {
        let port = port.unwrap_or_else(|| Site::localhost().free_port());
        let mut command = home.command(&server_program("mariadbd"));
        command.arg("--no-defaults").arg(format!("--datadir={}", home.path("data").display()));
        command.arg(format!("--socket={}", socket(home).display()));
        command.args(["--bind-address=127.0.0.1", &format!("--port={port}"), "--skip-name-resolve"]);
        // What is committed outlasts the process, not the machine.
        command.args(["--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=2"]);
        command.args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M"]);
        let mut child = home.spawn(command);
        if home.await_answer(&mut child, || mariadb(home, "", "select 1").status.success()) {
            return (child, port);
        }
    }
    panic!("MariaDB does not start: {}", home.log());
}

fn mariadb(home: &Home, database: &str, sql: &str) -> Output {
    let mut command = Command::new(program("mariadb", &[], "mariadb-client"));
    command.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names", "--connect-timeout=10"]);
    command.args(["--default-character-set=utf8mb4", &format!("--socket={}", socket(home).display())]);
    command.args([&format!("--database={database}"), &format!("--execute={sql}")]);
    command.stdin(Stdio::null()).output().expect("mariadb starts")
}

fn socket(home: &Home) -> PathBuf {
    home.path("socket")
}

fn server_program(name: &str) -> PathBuf {
    program(name, &[Path::new("/usr/sbin").to_owned()], PACKAGE)
}
