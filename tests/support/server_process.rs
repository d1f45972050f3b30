//! A process of Filbert or memcached, from its command to the ports that it listens on.
//!
//! The benches use this file, too.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::child::{self, Child};

/// A server that tells its ports in a file; killed on drop.
#[derive(Debug)]
pub struct ServerProcess {
    pub child: Child,
    dir: TempDir,
}

impl ServerProcess {
    /// Starts what `command` says with these arguments, on a free port unless they name one, and does not wait. What it
    /// writes to its standard error is kept, unless that goes elsewhere.
    pub fn spawn(mut command: Command, args: &[&str], stderr: Option<Stdio>) -> io::Result<ServerProcess> {
        let dir = TempDir::new()?;
        let stderr = match stderr {
            Some(stderr) => stderr,
            None => fs::File::create(dir.path().join("stderr"))?.into(),
        };
        if !args.contains(&"-p") {
            command.args(["-p", "-1"]);
        }
        // memcached.c, main: "MEMCACHED_PORT_FILENAME".
        command.args(args).env("MEMCACHED_PORT_FILENAME", dir.path().join("ports"));
        let child = Child::spawn(command.stdout(Stdio::null()).stderr(stderr))?;
        Ok(ServerProcess { child, dir })
    }

    /// What it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.dir.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it wrote of its ports so far.
    pub fn port_file(&self) -> String {
        fs::read_to_string(self.dir.path().join("ports")).unwrap_or_default()
    }

    /// Waits until it listens, and returns the TCP ports.
    ///
    /// # Errors
    ///
    /// It ends instead, or tells no port within the deadline.
    pub fn await_ports(&mut self) -> io::Result<Vec<u16>> {
        let file = self.dir.path().join("ports");
        self.child.await_start(|| {
            let ports = tcp_ports(&fs::read_to_string(&file).unwrap_or_default());
            (!ports.is_empty()).then_some(ports)
        })
    }
}

/// A command that starts this program through `wrapper`, programs that become what they start; see [`child::command`].
pub fn command(wrapper: &[&str], program: &Path) -> Command {
    let mut command = child::command();
    command.args(wrapper).arg(program);
    // Filbert reads its options from such variables, too; these two are meant for the tests.
    command.env_remove("FILBERT_BIN").env_remove("FILBERT_SEED");
    // Each its own: the usual port is one node's only.
    command.env("FILBERT_HTTP_LISTEN", "127.0.0.1:0");
    command
}

/// The ports in lines such as `TCP INET: 12345`.
fn tcp_ports(text: &str) -> Vec<u16> {
    // A line without its end may still be in the writing.
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole
        .filter_map(|line| line.strip_prefix("TCP INET: ").or_else(|| line.strip_prefix("TCP INET6: ")))
        .filter_map(|port| port.trim().parse().ok())
        .collect()
}
