//! A turn's part in loads.

use crate::cache::loads::{Loads, Verdict};
use crate::cache::turn::{NotHere, Turn};
use crate::command::{Command, Outcome, Verb};
use crate::item::ItemView;
use crate::pb;
use crate::peer::PendingOp;
use crate::store::{Caller, Load, LoadEnd};

impl Turn<'_> {
    /// Lets a read wait for a load, as [`NotHere::Load`] said. Gives it back with its outcome when there is an item by
    /// now; it may be answered once the turn has ended well.
    pub fn load(&mut self, op: PendingOp, replaces: Option<u64>) -> Option<(PendingOp, pb::Outcome)> {
        // Otherwise nobody would have said so; an operation that is dropped is answered.
        let loads = self.loads?;
        self.admit_again(op.operation().key()).ok()?;
        let op = loads.join(self.store, &self.caller, op, replaces)?;
        let operation = op.operation().open();
        let command = operation.ok().and_then(|operation| pb::command(&operation).ok())?;
        let outcome = self.execute_as_is(&command, |outcome| pb::outcome(0, &outcome)).ok()?;
        Some((op, outcome))
    }

    /// How many seconds a loaded value is kept here that is loaded anew before or after its end; `None` where there is none.
    pub fn loaded_seconds_left(&mut self, key: &[u8]) -> Option<u32> {
        self.admit_again(key).ok()?;
        self.store.loaded_seconds_left(&self.caller, key)
    }

    /// Loads an item anew behind a reply.
    #[cold]
    pub(super) fn refresh(&mut self, key: &[u8], cas: u64) {
        if let Some(loads) = self.loads {
            loads.refresh(self.store, &self.caller, key, cas);
        }
    }

    /// Whether a read that gives what it finds another time to live may be executed now.
    #[cold]
    pub(super) fn judge_touch(&self, loads: &Loads, key: &[u8]) -> Result<(), NotHere> {
        let look = Command { key, key_binary: false, verb: Verb::Inspect };
        let verdict = self.store.execute(&self.caller, &look, |outcome| match outcome {
            Outcome::Found(found) => loads.judge_touch(key, &found),
            _ => Verdict::Answer,
        });
        match verdict {
            Verdict::Load(replaces) => Err(NotHere::Load(replaces)),
            Verdict::Answer | Verdict::Refresh(_) => Ok(()),
        }
    }

    /// Executes a command here that has waited for a load, whatever could be loaded. It was counted before.
    ///
    /// # Errors
    /// The key belongs to another node, or this one may not answer for it.
    pub(in crate::cache) fn execute_as_is<R>(
        &mut self,
        command: &Command<'_>,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> Result<R, NotHere> {
        self.admit_again(command.key)?;
        let capped = self.loads.and_then(|loads| loads.cap(command, self.store.clock(), self.caller.now));
        let caller = Caller { repeats: true, ..self.caller };
        Ok(self.store.execute(&caller, capped.as_ref().unwrap_or(command), reply))
    }

    /// Stores what was loaded; `None` when this node may not answer for the key any more.
    pub(in crate::cache) fn finish_load(&mut self, load: &Load, item: &ItemView<'_>) -> Option<LoadEnd> {
        if self.admit_again(item.key).is_err() {
            self.store.end_load(&self.caller, item.key, load, false);
            return None;
        }
        Some(self.store.finish_load(&self.caller, load, item))
    }

    /// Ends a load whose origin still has the value that was to be replaced, and lets that live on
    /// ([`Store::renew_load`](crate::store::Store::renew_load)). Whether it does.
    pub(in crate::cache) fn renew_load(
        &mut self,
        key: &[u8],
        load: &Load,
        ttl_seconds: Option<u32>,
        loaded: bool,
    ) -> bool {
        if self.admit_again(key).is_err() {
            self.store.end_load(&self.caller, key, load, false);
            return false;
        }
        self.store.renew_load(&self.caller, key, load, ttl_seconds, loaded)
    }

    /// Ends a load that brought nothing to store; with `drop_replaced`, the item goes that it was to replace. Whether
    /// nothing was written under its key meanwhile.
    pub(in crate::cache) fn end_load(&mut self, key: &[u8], load: &Load, drop_replaced: bool) -> bool {
        let is_here = self.admit_again(key).is_ok();
        self.store.end_load(&self.caller, key, load, drop_replaced) && is_here
    }
}
