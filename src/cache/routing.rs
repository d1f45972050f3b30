//! Where a key's command is executed, under one view of the cluster.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::cluster::view::{Member, Owners, SLOTS, slot};
use crate::store::Floors;

/// Where a command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here; what was written under a lower generation of the store is not this cluster's.
    Here {
        /// The generation.
        since: u32,
    },
    /// Here, but not before every node knows that it is so.
    Soon,
    /// At another member, by its place in [`Routing::members`].
    Member(u16),
    /// Nobody is known who owns keys.
    Nowhere,
}

/// One view of the cluster, ready to be looked up in; never changed, only replaced.
#[derive(Debug)]
pub struct Routing {
    /// Counts the routings of this process.
    pub version: u64,
    /// The epoch of the view.
    pub epoch: u64,
    pub(super) owners: Arc<Owners>,
    /// This node among the owners.
    pub(super) me: Option<u16>,
    /// For each slot the generation of the store from which on its items count.
    pub(super) since: Arc<[u32]>,
    /// The slots that others may still answer for.
    pub(super) shut: Option<Arc<Slots>>,
}

impl Routing {
    /// Where a key's command is executed. Costs a hash of the key and two loads.
    #[inline]
    pub fn place(&self, key: &[u8]) -> Place {
        self.place_of(slot(key))
    }

    fn place_of(&self, slot: u16) -> Place {
        match self.owners.index(slot) {
            None => Place::Nowhere,
            owner if owner != self.me => owner.map_or(Place::Nowhere, Place::Member),
            _ if self.shut.as_ref().is_some_and(|shut| shut.contains(slot)) => Place::Soon,
            _ => Place::Here { since: self.since[usize::from(slot)] },
        }
    }

    /// Who may own keys, in the order that [`Place::Member`] counts in.
    pub fn members(&self) -> &[Member] {
        self.owners.members()
    }

    /// The owner of each slot.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether every slot that is this node's may be answered for.
    pub fn is_open(&self) -> bool {
        self.shut.is_none()
    }
}

impl Floors for Routing {
    fn floor(&self, key: &[u8]) -> Option<u32> {
        match self.place(key) {
            Place::Here { since } => Some(since),
            Place::Soon => Some(self.since[usize::from(slot(key))]),
            Place::Member(_) | Place::Nowhere => None,
        }
    }
}

/// A thread's window on the routing. Whoever executes commands holds it while it does: so a
/// new routing is in force everywhere once it has been put into every pane.
#[derive(Debug)]
pub struct Pane(pub(super) Mutex<Arc<Routing>>);

impl Pane {
    /// The present routing, which stays in force as long as it is held. Not across an await.
    #[inline]
    pub fn hold(&self) -> MutexGuard<'_, Arc<Routing>> {
        self.0.lock()
    }
}

/// A set of slots.
#[derive(Debug, Clone)]
pub(super) struct Slots(Box<[u64]>);

impl Slots {
    pub(super) fn none() -> Self {
        Self(vec![0; SLOTS / 64].into())
    }

    pub(super) fn insert(&mut self, slot: u16) {
        self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        self.0[usize::from(slot) / 64] >> (slot % 64) & 1 == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}
