//! A cluster on this machine for newcomers and for development: an etcd and a few nodes, started
//! together and stopped together.
//!
//! The nodes are children of this process, run from the same executable, and know nothing of it:
//! they find each other as they would anywhere. All of it ends with this process, however that
//! ends ([`die_with_parent`]).

mod child;
pub mod die_with_parent;
mod parts;
mod probe;
mod start;

use std::io::{self, Write};
use std::time::Duration;

use nix::errno::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::local_cluster::child::Child;
use crate::local_cluster::parts::{Folder, Node};
pub use crate::local_cluster::start::{Error, Options};
use crate::local_cluster::start::{START_LIMIT, say, system};

/// How often a condition that has no event of its own is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long nodes may take to leave their cluster and answer what they have read.
const NODE_GRACE: Duration = Duration::from_secs(15);

/// How long they may hand over what they hold; more than a second, within which two signals are one.
const HANDOVER: Duration = Duration::from_millis(1_500);

/// How long etcd may take to stop.
const ETCD_GRACE: Duration = Duration::from_secs(5);

/// etcd is started again on other ports when somebody else was faster to take one.
const ETCD_TRIES: usize = 3;

/// Starts the cluster, says where it is, and runs it until INT, TERM or HUP. Everything that was
/// started has ended on return.
///
/// # Errors
/// It could not be started. A part that ends later is reported and left to the user.
pub fn run(options: &Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system("starting a runtime"))?.block_on(run_until_stopped(options))
}

async fn run_until_stopped(options: &Options) -> Result<(), Error> {
    let mut stop = Stop::listen().map_err(system("listening to signals"))?;
    parts::find_etcd().await?;
    let folder = Folder::make(&options.scratch).map_err(Errno::into).map_err(system("making a directory"))?;
    let mut cluster = Cluster { options, folder, etcd: None, nodes: Vec::new() };
    let result = tokio::select! {
        () = stop.asked() => Ok(()),
        result = cluster.run() => result,
    };
    if result.is_ok() {
        say("cluster", "stopping");
    }
    cluster.stop(&mut stop).await;
    result
}

/// Everything that was started.
struct Cluster<'a> {
    options: &'a Options,
    folder: Folder,
    etcd: Option<Child>,
    nodes: Vec<Node>,
}

impl Cluster<'_> {
    /// Goes on until it is dropped, unless the start fails. What was started is then in `self`.
    async fn run(&mut self) -> Result<(), Error> {
        let mut doing = "etcd does not answer".to_owned();
        let Ok(started) = timeout(START_LIMIT, self.start(&mut doing)).await else {
            return Err(Error::Late(doing));
        };
        let endpoint = started?;
        // The reader may have gone.
        _ = io::stdout().write_all(self.welcome(&endpoint).as_bytes());
        self.watch().await
    }

    /// Starts everything and waits until the cluster is whole: etcd's address. `doing` says what
    /// has not happened yet.
    async fn start(&mut self, doing: &mut String) -> Result<String, Error> {
        let endpoint = self.start_etcd().await?;
        for index in 0..self.options.nodes {
            let node = Node::start(self.options, &self.folder, index, &endpoint)?;
            self.nodes.push(node);
        }
        for index in 0..self.nodes.len() {
            *doing = format!("{} does not answer", self.nodes[index].child.name);
            while !self.nodes[index].answers(&self.folder).await {
                self.rest().await?;
            }
        }
        for index in 0..self.nodes.len() {
            loop {
                let members = self.nodes[index].members().await;
                if members == Some(self.nodes.len()) {
                    break;
                }
                *doing = format!("{} sees {} members", self.nodes[index].child.name, members.unwrap_or(0));
                self.rest().await?;
            }
        }
        Ok(endpoint)
    }

    async fn start_etcd(&mut self) -> Result<String, Error> {
        let mut tries = 1;
        loop {
            let (child, endpoint) = parts::start_etcd(&self.folder, tries)?;
            self.etcd = Some(child);
            let ended = loop {
                if probe::etcd_answers(&endpoint).await {
                    return Ok(endpoint);
                }
                if let Err(error) = self.rest().await {
                    break error;
                }
            };
            if tries == ETCD_TRIES {
                return Err(ended);
            }
            tries += 1;
        }
    }

    /// Waits a moment, and finds out whether all that was started still runs.
    async fn rest(&mut self) -> Result<(), Error> {
        sleep(LOOK).await;
        if let Some(status) = self.etcd.as_mut().and_then(Child::ended) {
            let said = format!("\n{}", self.folder.end_of_etcd_log());
            return Err(Error::Ended { name: "etcd".into(), status, said });
        }
        for node in &mut self.nodes {
            if let Some(status) = node.child.ended() {
                return Err(Error::Ended { name: node.child.name.clone(), status, said: String::new() });
            }
        }
        Ok(())
    }

    /// Where it is and what to try.
    fn welcome(&self, endpoint: &str) -> String {
        let mut text = format!("\nA cluster of {}, with etcd at {endpoint}.\n\n", self.nodes.len());
        for Node { child, port, http_port, .. } in &self.nodes {
            let (name, pid) = (&child.name, child.pid());
            text.push_str(&format!(
                "  {name:<8}  127.0.0.1:{port:<6} http://127.0.0.1:{http_port}/  pid {pid}\n"
            ));
        }
        let port = |index: usize| self.nodes.iter().cycle().nth(index).map_or(0, |node| node.port);
        text.push_str(&format!(
            "\nTry it:\n  printf 'set a 0 0 1\\r\\n1\\r\\nquit\\r\\n' | nc 127.0.0.1 {}\n  \
             printf 'get a\\r\\nquit\\r\\n' | nc 127.0.0.1 {}\n  \
             printf 'stats ring\\r\\nquit\\r\\n' | nc 127.0.0.1 {}\n\n\
             Ctrl-C stops it, and nothing is left.\n\n",
            port(0),
            port(1),
            port(2)
        ));
        text
    }

    /// Says what ends. Somebody may have ended it to see what happens, so that the rest goes on.
    async fn watch(&mut self) -> Result<(), Error> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(status) = self.etcd.as_mut().and_then(Child::ended) {
                say("cluster", &format!("etcd has ended ({status}): the nodes go on, and none can join"));
                self.etcd = None;
            }
            for node in &mut self.nodes {
                if !node.is_missed
                    && let Some(status) = node.child.ended()
                {
                    node.is_missed = true;
                    let name = &node.child.name;
                    let again =
                        format!("{name} has ended ({status}); to start it again: {}", node.command_line());
                    say("cluster", &again);
                }
            }
        }
    }

    /// Ends everything: the nodes first, which take leave of each other through etcd. Whoever asks
    /// a second time does not want to wait.
    async fn stop(&mut self, stop: &mut Stop) {
        self.nodes.iter_mut().for_each(|node| node.child.terminate());
        for patience in [HANDOVER, NODE_GRACE] {
            let ended = async {
                for node in &mut self.nodes {
                    node.child.wait().await;
                }
            };
            tokio::select! {
                ended = timeout(patience, ended) => if ended.is_ok() {
                    break;
                },
                () = stop.asked() => break,
            }
            // Nobody will be there to have what they hold.
            self.nodes.iter_mut().for_each(|node| node.child.terminate());
        }
        for node in &mut self.nodes {
            node.child.kill().await;
        }
        if let Some(etcd) = &mut self.etcd {
            etcd.terminate();
            _ = timeout(ETCD_GRACE, etcd.wait()).await;
            etcd.kill().await;
        }
    }
}

/// The signals that end it.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them. Cancellation safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
