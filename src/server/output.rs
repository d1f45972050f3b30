//! The memory for a client's replies: what it holds while its client does not take them, and what
//! has to wait while there is none.

use std::task::{Context, Poll, ready};

use crate::command::{Command, Outcome, Verb};
use crate::protocol::error::ProtocolError;
use crate::server::forward::NotHere;
use crate::server::input::UNCOUNTED_BYTES;
use crate::server::quota::Refused;
use crate::server::session::{OUT_HIGH_WATER, Session};
use crate::store::Caller;

/// In place of [`OUT_HIGH_WATER`] while there is no room.
const OUT_TIGHT: usize = 16 << 10;

/// What a reply takes beside its value, at most.
const HEAD_BYTES: usize = 1 << 10;

impl Session {
    /// Looks whether there is room for replies; once for a batch, before which all replies have
    /// been sent.
    #[inline]
    pub(super) fn begin_batch(&mut self) {
        self.unsent_since = self.turn_left;
        self.tight = self.share.quota().is_tight();
        self.high_water = if self.tight { OUT_TIGHT } else { OUT_HIGH_WATER };
    }

    /// While there is no room for replies: whether this command may be executed all the same. If
    /// not, [`Session::poll_room`] says when.
    #[cold]
    pub(super) fn is_ready_when_tight(&mut self, command: &Command<'_>) -> bool {
        if !matches!(command.verb, Verb::Get(_)) {
            return true;
        }
        let here = self.forward.as_mut().map_or(Ok(None), |forward| forward.place(command.key).map(Some));
        let value_bytes = match here {
            Ok(since) => {
                let mut bytes = 0;
                let caller = Caller { since, ..self.caller() };
                let look = Command { verb: Verb::Inspect, ..*command };
                self.context.store.execute(&caller, &look, |outcome| {
                    if let Outcome::Found(found) = outcome {
                        bytes = found.item.value_len;
                    }
                });
                bytes
            }
            // Only its owner knows.
            Err(NotHere::At(_)) => self.context.store.item_size_max(),
            Err(NotHere::Unknown(_)) => 0,
        };
        if value_bytes <= UNCOUNTED_BYTES {
            return true;
        }
        let wanted = self.out.len() + value_bytes + HEAD_BYTES;
        let ready = self.share.held() >= wanted && !self.is_awaited();
        self.wanted = if ready { 0 } else { wanted };
        ready
    }

    /// Waits until the command that was not ready may be executed; when it never may, its client
    /// hears of it.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.wanted > 0
            && let Err(Refused) = ready!(self.share.poll_reserve(cx, self.wanted))
        {
            self.close_for_want_of_room(ProtocolError::NoRoomWriting);
        }
        self.wanted = 0;
        Poll::Ready(())
    }

    /// Counts what its client does not take, `sent` bytes of which were sent. Little does not hold
    /// on to the memory of much. Returns how much of it was sent.
    #[cold]
    pub(super) fn hold_unsent(&mut self, cx: &Context<'_>, sent: usize) -> usize {
        let out = self.sendable();
        let left = out.len() - sent;
        let shrinks = out.capacity() > UNCOUNTED_BYTES && out.capacity() / 2 > left;
        if shrinks {
            *out = out[sent..].to_vec();
        }
        let bytes = self.unsent_bytes();
        self.share.set(cx, if bytes > UNCOUNTED_BYTES { bytes } else { 0 });
        if shrinks { 0 } else { sent }
    }

    /// Gives back what was held, once everything has been sent and nothing is on its way.
    #[inline]
    pub(super) fn release_sent(&mut self, cx: &Context<'_>) {
        if self.share.held() > 0 && !self.is_awaited() {
            self.share.set(cx, 0);
        }
    }

    fn unsent_bytes(&self) -> usize {
        self.out.capacity() + self.forward.as_ref().map_or(0, |forward| forward.replies.held_bytes())
    }
}
