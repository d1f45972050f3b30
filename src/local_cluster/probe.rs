//! Questions to what was started, to know when it is ready.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::cluster::etcd::calls::Calls as _;
use crate::cluster::etcd::client::Client;

/// How long one answer may take: something is asked again rather than waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest answer that is read: `stats ring` has a few lines for each member.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Whether etcd answers a read, for which it must have elected itself.
pub(super) async fn etcd_answers(endpoint: &str) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{endpoint}")) else {
        return false;
    };
    match Client::connect(endpoint, None, PATIENCE).await {
        Ok(client) => client.read("/filbert/").await.is_ok(),
        Err(_) => false,
    }
}

/// Whether a node answers its clients.
pub(super) async fn node_answers(port: u16) -> bool {
    ask(port, "version").await.is_ok_and(|answer| answer.starts_with("VERSION "))
}

/// How many members a node sees; `None` when it does not tell.
pub(super) async fn members(port: u16) -> Option<usize> {
    let ring = ask(port, "stats ring").await.ok()?;
    ring.lines().find_map(|line| line.strip_prefix("STAT members "))?.trim().parse().ok()
}

/// The answer to a command: lines of `STAT` and the one that ends them.
async fn ask(port: u16, command: &str) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) && answer.len() < ANSWER_MAX_BYTES {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(lines) = answer.strip_suffix(b"\r\n") else {
        return false;
    };
    let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    !last.starts_with(b"STAT ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_a_line_that_is_no_stat() {
        for whole in ["VERSION 1.6.45\r\n", "ERROR\r\n", "END\r\n", "STAT a 1\r\nSTAT b 2\r\nEND\r\n"] {
            assert!(is_whole(whole.as_bytes()), "{whole:?}");
            for len in 0..whole.len() {
                assert!(!is_whole(&whole.as_bytes()[..len]), "{:?}", &whole[..len]);
            }
        }
    }
}
