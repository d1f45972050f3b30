//! One source's requests and answers, over one stream after another.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream as _;

use crate::cache::clustered::ClusterContext;
use crate::cache::handovers::Source;
use crate::cache::moves::Waiting;
use crate::cache::moves::pace::BATCH_MAX;
use crate::pb;
use crate::peer::transport::{Calling, Error, MoveStream};

/// Requests on their way, at most.
const SENT_MAX: usize = 64;

/// Keys in one request.
const KEYS_MAX: usize = 256;

/// A source that says nothing for so long is asked over another stream,
const SILENCE: Duration = Duration::from_secs(1);

/// and after so many streams no more.
const TRIES: u32 = 3;

/// Keys that were not waited for, at most: a source of which there are more is not asked any more.
const FORSAKEN_MAX: usize = 1 << 16;

/// What this node takes over from one source.
pub(super) struct Session {
    pub(super) source: Source,
    link: Link,
    requests: mpsc::Sender<pb::MoveRequest>,
    number: u64,
    /// In the order of their answers.
    sent: VecDeque<Sent>,
    unsent: VecDeque<Waiting>,
    /// Hashes of the keys whose commands were executed before the source had answered: what comes under them is old.
    forsaken: HashSet<u64>,
    /// When it was last heard from, or something was sent after everything had been answered.
    heard: Instant,
    tries: u32,
    /// Whether the source is to be told that nothing more is wanted.
    ends: bool,
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) items_left: u64,
    pub(super) bytes_left: u64,
    pub(super) began: Instant,
}

enum Link {
    Opening(Calling<MoveStream>),
    Open(MoveStream),
}

/// A request that was sent.
enum Sent {
    Keys(Vec<Waiting>),
    Pull,
}

/// What has happened.
pub(super) enum News {
    Opened,
    /// What lay under the keys of commands, and the commands that waited for it.
    Answer(pb::MoveReply, Vec<Waiting>),
    /// What else there was.
    Pulled(pb::MoveReply),
    /// The stream has broken.
    Broken(Error),
}

impl Session {
    pub(super) fn new(context: &ClusterContext, source: Source) -> Self {
        let (link, requests) = open(context, &source);
        let now = Instant::now();
        Self {
            source,
            link,
            requests,
            number: 0,
            sent: VecDeque::new(),
            unsent: VecDeque::new(),
            forsaken: HashSet::new(),
            heard: now,
            tries: 1,
            ends: false,
            items: 0,
            bytes: 0,
            items_left: 0,
            bytes_left: 0,
            began: now,
        }
    }

    /// Lets a command wait for what lies under its key at the source.
    pub(super) fn admit(&mut self, waiting: Waiting) {
        self.unsent.push_back(waiting);
    }

    /// Whether something that comes under a key with this hash is not to be stored.
    pub(super) fn is_forsaken(&self, hash: u64) -> bool {
        self.forsaken.contains(&hash)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        match &mut self.link {
            Link::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(stream)) => {
                    self.link = Link::Open(stream);
                    self.heard = Instant::now();
                    Poll::Ready(News::Opened)
                }
                Poll::Ready(Err(error)) => Poll::Ready(News::Broken(error)),
            },
            Link::Open(stream) => match Pin::new(stream).poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(reply))) => Poll::Ready(self.take_in(reply)),
                Poll::Ready(Some(Err(error))) => Poll::Ready(News::Broken(error)),
                Poll::Ready(None) => Poll::Ready(News::Broken(Error::Ended("it has ended".to_owned()))),
            },
        }
    }

    fn take_in(&mut self, reply: pb::MoveReply) -> News {
        let expected = self.number + 1 - self.sent.len() as u64;
        if reply.number != expected || self.sent.is_empty() {
            return News::Broken(Error::Ended("an answer was lost".to_owned()));
        }
        (self.heard, self.tries) = (Instant::now(), 0);
        (self.items_left, self.bytes_left) = (reply.items_left, reply.bytes_left);
        match self.sent.pop_front() {
            Some(Sent::Keys(waited)) => News::Answer(reply, waited),
            _ => News::Pulled(reply),
        }
    }

    /// Asks for what commands wait for, and for so many bytes more, in so many requests at a time.
    pub(super) fn send(&mut self, now: Instant, (bytes, pulls): (u32, usize)) {
        while !self.unsent.is_empty() && self.has_room() {
            let waiting: Vec<_> = self.unsent.drain(..self.unsent.len().min(KEYS_MAX)).collect();
            let keys = waiting.iter().map(|waiting| waiting.op.operation().key().to_vec().into()).collect();
            self.request(pb::MoveRequest { keys, ..pb::MoveRequest::default() }, Sent::Keys(waiting), now);
        }
        let pulling = self.sent.iter().filter(|sent| matches!(sent, Sent::Pull)).count();
        let (wanted, bytes) = match self.ends {
            true => (1, 0),
            // The next commands that wait come behind them.
            false if pulling < self.sent.len() => (pulls.min(1), bytes.min(BATCH_MAX)),
            false => (pulls, bytes),
        };
        for _ in pulling..wanted {
            if self.has_room() {
                let request = pb::MoveRequest { bytes, ends: self.ends, ..pb::MoveRequest::default() };
                self.request(request, Sent::Pull, now);
            }
        }
    }

    /// Whether a request can be sent now.
    fn has_room(&self) -> bool {
        matches!(self.link, Link::Open(_)) && self.requests.capacity() > 0
    }

    fn request(&mut self, request: pb::MoveRequest, sent: Sent, now: Instant) {
        self.number += 1;
        // There is room. A stream that has ended says so by itself.
        _ = self.requests.try_send(pb::MoveRequest { number: self.number, ..request });
        if self.sent.is_empty() {
            self.heard = now;
        }
        self.sent.push_back(sent);
    }

    /// Takes those out who must not wait longer: until so shortly before their deadlines. What comes under the keys of those
    /// that change something is not stored any more.
    pub(super) fn take_overdue(&mut self, now: Instant, margin: Duration) -> Vec<Waiting> {
        let is_over = |waiting: &Waiting| waiting.op.deadline.saturating_duration_since(now) < margin;
        let sent = self.sent.iter_mut().filter_map(|sent| match sent {
            Sent::Keys(waiting) => Some(waiting),
            Sent::Pull => None,
        });
        let mut overdue: Vec<Waiting> =
            sent.flat_map(|waiting| waiting.extract_if(.., |waiting| is_over(waiting))).collect();
        // They do not come in the order of their deadlines: some were elsewhere before.
        if self.unsent.iter().any(is_over) {
            let (over, in_time): (VecDeque<_>, _) =
                std::mem::take(&mut self.unsent).into_iter().partition(is_over);
            self.unsent = in_time;
            overdue.extend(over);
        }
        let changing = overdue.iter().filter(|waiting| !waiting.is_read());
        self.forsaken.extend(changing.map(Waiting::hash));
        overdue
    }

    /// Nothing more is wanted: it is over when the source has said so.
    pub(super) fn finish(&mut self) {
        self.ends = true;
    }

    /// Whether the source has not answered for too long, or opens no stream.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let is_waiting = !self.sent.is_empty() || matches!(self.link, Link::Opening(_));
        is_waiting && now.saturating_duration_since(self.heard) >= SILENCE
    }

    /// Opens another stream, on which everything is asked again that was not answered. Whether it is worth another try.
    pub(super) fn try_again(&mut self, context: &ClusterContext, now: Instant) -> bool {
        self.tries += 1;
        if self.tries > TRIES || self.forsaken.len() > FORSAKEN_MAX {
            return false;
        }
        let (link, requests) = open(context, &self.source);
        (self.link, self.requests, self.number, self.heard) = (link, requests, 0, now);
        let unanswered = std::mem::take(&mut self.sent).into_iter().flat_map(Sent::waiting);
        self.unsent = unanswered.chain(std::mem::take(&mut self.unsent)).collect();
        true
    }

    /// Everybody who waits, in the order in which they came.
    pub(super) fn end(self) -> impl Iterator<Item = Waiting> {
        self.sent.into_iter().flat_map(Sent::waiting).chain(self.unsent)
    }
}

impl Sent {
    fn waiting(self) -> Vec<Waiting> {
        match self {
            Self::Keys(waiting) => waiting,
            Self::Pull => Vec::new(),
        }
    }
}

fn open(context: &ClusterContext, source: &Source) -> (Link, mpsc::Sender<pb::MoveRequest>) {
    let (sender, requests) = mpsc::channel(SENT_MAX);
    let greeting = pb::MoveRequest {
        call: Some(context.me.call(&source.member.id)),
        incarnation: context.membership.state().incarnation,
        epoch: source.epoch,
        ..pb::MoveRequest::default()
    };
    // There is room for it.
    _ = sender.try_send(greeting);
    (Link::Opening(context.transport.move_items(&source.member, requests.into())), sender)
}
