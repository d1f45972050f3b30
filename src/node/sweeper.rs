//! The thread that drops dead items.

use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::events::Kinds;
use crate::server::ServerContext;
use crate::store::Caller;
use crate::watchdog::Heartbeat;

/// How often the store is searched for expired items.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A sweep rests this many times as long as it worked: one twentieth of a core at most.
const SWEEP_REST: u32 = 19;

/// Drops expired items in the background, shard by shard, at a bounded share of one core.
pub(super) fn sweep_until_stopped(context: &ServerContext, asked: &Receiver<()>, heartbeat: &Heartbeat) {
    let counters = context.registry.block();
    let mut due = Instant::now() + SWEEP_INTERVAL;
    while !context.stop.is_cancelled() {
        heartbeat.beat();
        let pause = due.saturating_duration_since(Instant::now());
        let at_once = asked.recv_timeout(pause.min(context.watchdog.interval())).is_ok();
        if context.stop.is_cancelled() {
            break;
        }
        if !at_once && Instant::now() < due {
            continue;
        }
        let caller = Caller::new(context.store.clock().now(), &counters, 0);
        // Where `cache_memlimit` has lowered the budget.
        while context.store.shrink(&caller) && !context.stop.is_cancelled() {
            heartbeat.beat();
        }
        if at_once || context.store.sweep_enabled() {
            sweep(context, &caller, at_once, heartbeat);
        }
        due = Instant::now() + SWEEP_INTERVAL;
    }
}

/// Looks through the whole store once.
fn sweep(context: &ServerContext, caller: &Caller<'_>, at_once: bool, heartbeat: &Heartbeat) {
    let mut since = Instant::now();
    let (mut checked, began) = (0, since);
    context.store.sweep(caller, |items| {
        checked += items;
        if at_once {
            heartbeat.beat();
        } else {
            heartbeat.sleep(since.elapsed() * SWEEP_REST);
        }
        since = Instant::now();
        if context.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if checked > 0 && context.events.watched(Kinds::SYSEVENTS) {
        context.events.tell(Kinds::SYSEVENTS, |line| {
            let elapsed = began.elapsed().as_secs();
            line.push_str(&format!("type=lru_crawler crawler=1 elapsed={elapsed} examined={checked}"));
        });
    }
}
