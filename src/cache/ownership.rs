//! Takes over the cluster's decisions: which slots are this node's, from when on their items count, and when they may
//! be served.
//!
//! A slot's items count from the generation of the store at which the slot last came to this node: older items may have
//! been overwritten elsewhere. A slot that came is shut until nobody acts on an older view, because its previous owner
//! may still answer for it until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::handovers::{Change, Handovers, Source, Taker};
use crate::cache::routing::{Places, Routing, RoutingHandle, Slots};
use crate::cache::routing_watch::RoutingWatch;
use crate::cluster::view::{Owners, SLOTS, View};
use crate::cluster::{Hooks, State};
use crate::store::{Generation, Store};

/// CAS tokens carry the epoch above this bit, so that no two owners of a key ever give the same:
/// a million million writes of one node under one view, and 16 million views.
const CAS_EPOCH_SHIFT: u32 = 40;

/// Each node starts at another value below that bit, so that tokens of different keys differ, too, unless there are
/// very many.
const CAS_NODE_SHIFT: u32 = 28;

/// Slots that do not open for so long do not keep others from changing: something is wrong that a change may mend.
const OPENING: Duration = Duration::from_secs(5);

/// What this node owns; shared by everything that executes commands.
pub struct Ownership {
    store: Arc<Store>,
    /// Held while a routing is put in force, so that they follow one another everywhere alike.
    routing_handles: Mutex<Vec<Arc<RoutingHandle>>>,
    routing_watch: Arc<RoutingWatch>,
    changes: AtomicU64,
    /// When the view changed last.
    changed: Mutex<Instant>,
}

impl Ownership {
    /// A node that has not joined: it owns nothing.
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        let (owners, min_generations) =
            (Arc::new(Owners::of(&View::default())), same_for_all(Generation::default()));
        let places = Arc::new(Places::of(&owners, None, &min_generations, Generation::default()));
        let routing = Routing {
            version: 0,
            epoch: 0,
            owners,
            me: None,
            min_generations,
            places,
            shut: None,
            handovers: None,
        };
        let routing_watch = Arc::new(RoutingWatch::new(Arc::new(routing)));
        let (changes, changed) = (AtomicU64::new(0), Mutex::new(Instant::now()));
        Arc::new(Self { store, routing_handles: Mutex::default(), routing_watch, changes, changed })
    }

    /// A window for one more thread.
    pub fn routing_handle(&self) -> Arc<RoutingHandle> {
        let mut routing_handles = self.routing_handles.lock();
        let routing_handle = Arc::new(RoutingHandle(Mutex::new(self.routing_watch.present())));
        routing_handles.push(routing_handle.clone());
        routing_handle
    }

    /// Publishes the routings, for tasks that wait for one.
    pub fn routing_watch(&self) -> Arc<RoutingWatch> {
        self.routing_watch.clone()
    }

    /// The routing in force: whatever was done by a later one is done after this returns. Never within a turn.
    pub fn in_force(&self) -> Arc<Routing> {
        // A routing that was put into some handles is put into all of them, and posted.
        let _routing_handles = self.routing_handles.lock();
        self.routing_watch.present()
    }

    /// How many views this node has reached.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Opens the slots that were shut, when nobody acts on an older view.
    pub fn open_slots(&self, state: &State) {
        self.replace(|routing| {
            let opens = routing.epoch == state.epoch && !routing.is_open() && state.is_converged();
            opens.then(|| Routing { shut: None, ..copy(routing) })
        });
    }

    /// Whether items come to slots of this node; or will, as soon as nobody acts on an older view.
    pub fn is_moving(&self) -> bool {
        let routing = self.routing_watch.present();
        let comes = routing.handovers().is_some_and(|handovers| handovers.incoming_slots() > 0);
        comes && (routing.is_open() || self.changed.lock().elapsed() < OPENING)
    }

    /// Nothing more comes from a source: what has not come is a miss.
    pub fn end_source(&self, source: &Source) {
        self.replace(|routing| {
            let handovers = routing.handovers()?;
            let known = handovers.sources().find(|known| known.is(source))?;
            Some(Routing { handovers: handovers.without_source(known), ..copy(routing) })
        });
    }

    /// A taker has everything: what is left here in its slots may go. Never within a turn.
    pub fn end_taker(&self, taker: &Taker) {
        self.replace(|routing| {
            let handovers = routing.handovers()?;
            let is_there = handovers.takers().any(|known| known == taker);
            is_there.then(|| Routing { handovers: handovers.without_taker(taker), ..copy(routing) })
        });
    }

    /// Puts another routing in force. When this returns, nobody acts on the one before.
    fn replace(&self, next: impl FnOnce(&Routing) -> Option<Routing>) {
        let routing_handles = self.routing_handles.lock();
        let routing = self.routing_watch.present();
        let Some(mut next) = next(&routing) else { return };
        next.version = routing.version + 1;
        let next = Arc::new(next);
        let handovers = |routing: &Routing| routing.handovers.as_ref().map(Arc::as_ptr);
        if !Arc::ptr_eq(&next.places, &routing.places) || handovers(&next) != handovers(&routing) {
            // Before anything is written by it, or a sweep might take that for another one's.
            self.store.set_min_generations(Some(next.clone()));
        }
        for routing_handle in routing_handles.iter() {
            *routing_handle.0.lock() = next.clone();
        }
        self.routing_watch.post(next);
    }
}

fn copy(routing: &Routing) -> Routing {
    let Routing { version, epoch, owners, me, min_generations, places, shut, handovers } = routing;
    Routing {
        version: *version,
        epoch: *epoch,
        owners: owners.clone(),
        me: *me,
        min_generations: min_generations.clone(),
        places: places.clone(),
        shut: shut.clone(),
        handovers: handovers.clone(),
    }
}

fn same_for_all(generation: Generation) -> Arc<[Generation]> {
    std::iter::repeat_n(generation, SLOTS).collect()
}

/// Unchanged when there are no such slots.
fn raised_for(slots: &Slots, generation: Generation, before: &Arc<[Generation]>) -> Arc<[Generation]> {
    if slots.is_empty() {
        return before.clone();
    }
    let mut min_generations: Arc<[Generation]> = before.as_ref().into();
    let ours = Arc::get_mut(&mut min_generations).expect("nobody else has it yet");
    slots.iter().for_each(|slot| ours[slot] = generation);
    min_generations
}

impl Hooks for Ownership {
    fn forget(&self) {
        let generation = self.store.advance();
        self.replace(|routing| {
            let min_generations = same_for_all(generation);
            let places = Arc::new(Places::of(&routing.owners, routing.me, &min_generations, generation));
            Some(Routing { min_generations, places, handovers: None, ..copy(routing) })
        });
    }

    fn change(&self, before: &State, after: &State) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        *self.changed.lock() = Instant::now();
        let lane = xxh3_64(after.me.as_bytes()) >> (64 + CAS_NODE_SHIFT - CAS_EPOCH_SHIFT);
        self.store.raise_cas(after.epoch << CAS_EPOCH_SHIFT | lane << CAS_NODE_SHIFT);
        let generation = self.store.advance();
        let flushed = after.view.flush_generation > before.view.flush_generation;
        let me = after.is_member().then(|| after.owners.position(&after.me)).flatten();
        // A node that missed views does not know who owned which slot in them.
        let goes_on = after.epoch == before.epoch + 1 && before.incarnation == after.incarnation;
        let was_me = (goes_on && before.is_member()).then(|| before.owners.position(&before.me)).flatten();
        self.replace(|routing| {
            let (mut gained, mut shut) = (Slots::none(), Slots::none());
            for slot in me.into_iter().flat_map(|me| after.owners.slots_at(me)) {
                let was_mine = was_me.is_some() && before.owners.index(slot) == was_me;
                if !was_mine {
                    gained.insert(slot);
                }
                if !was_mine || routing.shut.as_ref().is_some_and(|shut| shut.contains(slot)) {
                    shut.insert(slot);
                }
            }
            let min_generations = match flushed {
                true => same_for_all(generation),
                false => raised_for(&gained, generation, &routing.min_generations),
            };
            let shut = (!shut.is_empty() && !after.is_converged()).then(|| Arc::new(shut));
            let owners = after.owners.clone();
            let places = Arc::new(Places::of(&owners, me, &min_generations, generation));
            let change = Change { before, after, was_me, me, goes_on: goes_on && !flushed };
            let was_open = |slot| routing.shut.as_ref().is_none_or(|shut| !shut.contains(slot));
            let handovers = Handovers::after(routing.handovers(), &change, was_open);
            Some(Routing {
                version: 0,
                epoch: after.epoch,
                owners,
                me,
                min_generations,
                places,
                shut,
                handovers,
            })
        });
    }
}
