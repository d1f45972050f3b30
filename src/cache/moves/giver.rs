//! The source's end of a handover.

use std::sync::Arc;

use bytes::BytesMut;

use crate::cache::clustered::Clustered;
use crate::cache::handovers::Taker;
use crate::cache::moves::stats::add;
use crate::cache::moves::walk::{Walk, item_bytes};
use crate::cluster::view::slot;
use crate::pb;
use crate::peer::receive;
use crate::store::{Caller, MovingItem};

/// The memory of an answer is used again up to this size.
const BUFFER_KEPT_BYTES: usize = 256 << 10;

/// Hands out items to one taker.
pub struct Giver {
    clustered: Arc<Clustered>,
    taker: Taker,
    walk: Walk,
    /// What the items of an answer are written to. Its memory is used again once that has been sent.
    buffer: BytesMut,
}

impl Giver {
    pub(in crate::cache) fn new(clustered: Arc<Clustered>, taker: Taker) -> Self {
        clustered.context().moves.note_stream(&taker, true);
        Self { clustered, taker, walk: Walk::default(), buffer: BytesMut::new() }
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.clustered.context().moves.note_stream(&self.taker, false);
    }
}

impl receive::Giver for Giver {
    fn give(&mut self, request: &pb::MoveRequest) -> pb::MoveReply {
        let clustered = self.clustered.clone();
        let context = clustered.context();
        let store = &context.store;
        // Held meanwhile: none of the slots comes back here before this is over.
        let routing = clustered.routing_handle().hold();
        let handovers = routing.handovers();
        let place = handovers.and_then(|all| all.place_of(&self.taker));
        let is_wanted =
            |slot: u16| place.is_some() && handovers.is_some_and(|all| all.place_of_taker(slot) == place);
        let caller = Caller::new(store.clock().now(), clustered.counters(), 0);
        let (mut count, mut bytes) = (0, 0);
        let buffer = &mut self.buffer;
        let mut give = |moving: &MovingItem<'_>| {
            count += 1;
            bytes += item_bytes(moving);
            pb::put_moved(moved(moving), moving.item.key, moving.item.value, buffer);
        };
        for key in &request.keys {
            let slot = slot(key);
            if is_wanted(slot) {
                let min_generation = Some(routing.min_generation_of(slot));
                store.take(&Caller { min_generation, ..caller }, key, &mut give);
            }
        }
        let is_known = handovers.is_some_and(|all| all.takers().any(|taker| *taker == self.taker));
        let wanted = |key: &[u8]| is_wanted(slot(key));
        let is_over = !is_known
            || request.ends
            || request.bytes > 0 && self.walk.step(store, &caller, wanted, request.bytes as usize, give);
        drop(routing);
        if is_over {
            context.ownership.end_taker(&self.taker);
        }
        let stats = context.moves.stats();
        add(&stats.items_out, count);
        add(&stats.bytes_out, bytes);
        let Walk { items: items_left, bytes: bytes_left, .. } = &mut self.walk;
        *items_left = items_left.saturating_sub(count as u64);
        *bytes_left = bytes_left.saturating_sub(bytes as u64);
        let items = self.buffer.split().freeze();
        if items.len() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        pb::MoveReply {
            number: request.number,
            items,
            is_over,
            items_left: *items_left,
            bytes_left: *bytes_left,
            flush_seconds: store.flush_due().map(|due| due.saturating_sub(caller.now)),
        }
    }
}

/// All of it but its key and its value.
fn moved(moving: &MovingItem<'_>) -> pb::MovedItem {
    let MovingItem { item, stale, win_sent, uses, .. } = *moving;
    pb::MovedItem {
        item: Some(pb::item(&item)),
        stale,
        win_sent,
        loaded: item.loaded,
        uses: uses.into(),
        ..pb::MovedItem::default()
    }
}
