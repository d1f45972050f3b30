//! A membership that a test scripts: each node believes the views it is given, when it is given
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::cluster::seat::{Effect, Seat};
use crate::cluster::view::{Member, View};
use crate::cluster::{Hooks, Membership};

/// The test's end of a scripted membership; cheap to clone.
///
/// Views may be given late, twice or in any order: as with etcd, one that is not newer than the
/// present one is ignored, and epochs that were skipped make the node forget.
#[derive(Clone)]
pub struct Script(Arc<Mutex<Seat>>);

impl Script {
    /// A node outside of any view, that serves whenever a view has it. Its incarnation is in the
    /// states of the membership, and in [`Script::me`].
    pub fn new(me: Member, hooks: Arc<dyn Hooks>) -> (Self, Membership) {
        let mut seat = Seat::new(me, hooks);
        seat.serve_unlimited();
        let seat = Arc::new(Mutex::new(seat));
        (Self(Arc::clone(&seat)), Membership::of_script(seat))
    }

    /// The node as it stands in a view that has it; another incarnation after each removal.
    pub fn me(&self) -> Member {
        self.0.lock().me().clone()
    }

    /// Gives the node a view.
    pub fn push(&self, epoch: u64, view: View) -> Effect {
        self.0.lock().take(epoch, view)
    }

    /// Fences the node, or lets it serve again.
    pub fn fence(&self, fenced: bool) {
        self.0.lock().stand(Instant::now(), fenced);
    }

    /// Tells the node which epoch each member has come to.
    pub fn acknowledge(&self, acknowledged: BTreeMap<String, u64>) {
        self.0.lock().acknowledge(acknowledged);
    }
}
