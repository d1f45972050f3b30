//! Filbert in the background, which no death signal reaches.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::run;
use crate::support::server::{self, eventually};
use crate::support::wire::Wire;

/// Ends a process that leaves its parent, when its owner is dropped and also when the tests are killed: a shell waits
/// for the end of a pipe that only this process holds open.
pub struct KillWithTests(Child);

impl KillWithTests {
    /// Ties a process of the filbert under test.
    pub fn to(pid: u32) -> KillWithTests {
        let child = Command::new("sh")
            // By then the number may be another program's.
            .args([
                "-c",
                r#"cat; [ "/proc/$1/exe" -ef "$2" ] && kill -9 "$1""#,
                "kill-with-tests",
                &pid.to_string(),
            ])
            .arg(server::filbert())
            .stdin(Stdio::piped())
            // Ctrl-C at a terminal goes to the whole group.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        KillWithTests(child)
    }
}

impl Drop for KillWithTests {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// One Filbert that was started with `-d`.
pub struct Daemon {
    pub pid: Pid,
    port: u16,
    dir: TempDir,
    _killer: KillWithTests,
}

impl Daemon {
    /// Starts `filbert -d -P FILE` on a free port and waits for its pid file.
    ///
    /// # Panics
    ///
    /// If the process in the foreground does not end with 0, or no pid file comes.
    pub fn start(args: &[&str]) -> Daemon {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let pid_file = dir.path().join("pid");
        let port_file = dir.path().join("ports");
        let mut all = vec!["-d", "-P", pid_file.to_str().expect("temporary paths are text"), "-p", "-1"];
        all.extend_from_slice(args);
        let port_variable =
            ("MEMCACHED_PORT_FILENAME", port_file.to_str().expect("temporary paths are text"));
        let ended = run::filbert_in(&[], &[port_variable], &all);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let mut pid = None;
        eventually("the pid file appears", || {
            pid = fs::read_to_string(&pid_file).ok();
            pid.is_some()
        });
        let pid = pid.expect("set when it appeared").trim().parse::<u32>().expect("a process id");
        let killer = KillWithTests::to(pid);
        let ports = fs::read_to_string(&port_file).expect("written before going into the background");
        let port = ports.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.parse().ok());
        Daemon {
            pid: Pid::from_raw(pid.try_into().expect("Linux process ids fit in i32")),
            port: port.unwrap_or_else(|| panic!("{ports:?} names a port")),
            dir,
            _killer: killer,
        }
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    pub fn pid_file(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the process is there");
    }

    /// Waits until the process has ended.
    pub fn wait_exit(&self) {
        eventually("the daemon ends", || {
            // Nobody may be there to reap it, as in a container whose first process does not.
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
        });
    }
}
