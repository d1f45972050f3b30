//! Values that are loaded from elsewhere: a load begins under a key, and its value comes in later, unless a client has
//! written something under the key meanwhile.

use crate::clock::Seconds;
use crate::item::ItemView;
use crate::store::commands;
use crate::store::context::{Context, Request};
use crate::store::facts::LOADED;
use crate::store::load::{Load, LoadEnd, LoadStart, may_replace};
use crate::store::moving::MovingItem;
use crate::store::table::Table;
use crate::store::{Before, Caller, Generation, Store};

impl Store {
    /// Begins to load a value under a key at which there is nothing, or a loaded item that has the CAS token `replaces`.
    pub fn begin_load(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        number: u64,
        replaces: Option<u64>,
    ) -> LoadStart {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let cx = Context::new(&self.shards.shared, caller);
        let rq = Request { cx, key, key_binary: false };
        let there = commands::live(&mut table, &rq);
        if !may_replace(there.as_ref(), replaces) {
            return LoadStart::Present;
        }
        let there = there.map(|facts| facts.cas);
        let writes = table.writes();
        // One that began before something else changed here is not joined, though it still runs.
        if let Some(running) = writes.load(key.hash)
            && running.replaces == there
            && cx.admits_load(running.generation)
        {
            return LoadStart::Running(running.number);
        }
        let load = Load { number, generation: cx.current, replaces: there };
        writes.begin_load(key.hash, load);
        LoadStart::Begun(load)
    }

    /// Ends a load, and stores its value if nothing has happened to the key since it began. No command is counted.
    pub fn finish_load(&self, caller: &Caller<'_>, load: &Load, item: &ItemView<'_>) -> LoadEnd {
        let (key, index) = self.shards.locate(item.key);
        let mut table = self.shards.lock(index);
        let cx = Context::new(&self.shards.shared, caller);
        if !end(&mut table, key.hash, load) || !cx.admits_load(load.generation) {
            return LoadEnd::Overwritten;
        }
        let before = Before::of(&table);
        let rq = Request { cx, key, key_binary: item.key_binary };
        let generation = load.generation;
        let moving = MovingItem { item: *item, stale: false, win_sent: false, uses: 0, generation };
        let end = commands::arrive_loaded(&mut table, &rq, &moving, load.replaces);
        self.account(caller, index, table, before, true);
        end
    }

    /// Ends a load whose origin still has the value that was to be replaced. If nothing has happened to the key since it
    /// began, the item lives on, so many seconds and `loaded` as its value would be if it had come anew. Returns whether it
    /// does. No command is counted.
    pub fn renew_load(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        load: &Load,
        ttl_seconds: Option<u32>,
        loaded: bool,
    ) -> bool {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let cx = Context::new(&self.shards.shared, caller);
        if !end(&mut table, key.hash, load) || !cx.admits_load(load.generation) {
            return false;
        }
        let before = Before::of(&table);
        let rq = Request { cx, key, key_binary: false };
        let is_renewed = commands::renew_loaded(&mut table, &rq, load, ttl_seconds, loaded);
        self.account(caller, index, table, before, true);
        is_renewed
    }

    /// Ends a load that brought nothing to store. With `drop_replaced`, the item goes that it was to replace. Whether
    /// nothing has happened to the key since it began.
    pub fn end_load(&self, caller: &Caller<'_>, key: &[u8], load: &Load, drop_replaced: bool) -> bool {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let cx = Context::new(&self.shards.shared, caller);
        if !end(&mut table, key.hash, load) || !cx.admits_load(load.generation) {
            return false;
        }
        let before = Before::of(&table);
        let rq = Request { cx, key, key_binary: false };
        let there = commands::live(&mut table, &rq);
        let is_unchanged = may_replace(there.as_ref(), load.replaces);
        if drop_replaced && there.is_some() && is_unchanged {
            table.remove(&key);
        }
        self.account(caller, index, table, before, true);
        is_unchanged
    }

    /// Whether a value is being loaded under a key, and nothing was written there since.
    pub fn is_loading(&self, key: &[u8]) -> bool {
        let (key, index) = self.shards.locate(key);
        self.shards.lock(index).writes().load(key.hash).is_some()
    }

    /// How many seconds a loaded value is kept that is loaded anew before or after its end; `None` where there is none.
    pub fn loaded_seconds_left(&self, caller: &Caller<'_>, key: &[u8]) -> Option<u32> {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let rq = Request { cx: Context::new(&self.shards.shared, caller), key, key_binary: false };
        commands::live(&mut table, &rq).filter(|facts| facts.is(LOADED))?.ttl(caller.now)
    }

    /// Changes whenever what is here may be made dead at one stroke.
    pub fn generation(&self, now: Seconds) -> Generation {
        self.shards.shared.generations.0.span(now).current
    }
}

/// Ends a load of a key; whether nothing was written there since it began.
fn end(table: &mut Table, hash: u64, load: &Load) -> bool {
    let writes = table.writes();
    // What a reader was shown must not be followed by something older.
    writes.note_touch(hash);
    let is_present = writes.load(hash).is_some_and(|running| running.number == load.number);
    if is_present {
        writes.end_load(hash);
    }
    is_present
}
